"""Warnings that are given once a process."""

import functools
import warnings


@functools.cache
def warn(text):
    """Warn of something once."""
    warnings.warn(text, RuntimeWarning, stacklevel=2)
