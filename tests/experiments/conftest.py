"""Runs without figures, which are most of a tiny run's time, and on one thread."""

import pytest

from ..support.quiet import figures, one_thread_and_no_figures
from .wine import make

__all__ = ["figures", "one_thread_and_no_figures"]


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """A comparison that nothing has interrupted: its folder and results."""
    out = tmp_path_factory.mktemp("straight")
    return out, make(out)
