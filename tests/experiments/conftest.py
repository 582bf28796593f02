"""Runs without figures, which are most of a tiny run's time, and on one thread."""

from ..support.quiet import figures, one_thread_and_no_figures

__all__ = ["figures", "one_thread_and_no_figures"]
