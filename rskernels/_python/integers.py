"""Whole numbers as arguments: Python's, NumPy's, and torch's symbolic ones."""

from __future__ import annotations

from numbers import Integral

import torch


def as_integer(name: str, value: object, accepted: str = "an int") -> int:
    """Return an int for an int or a NumPy integer; a torch.SymInt stays as it is.

    Raises
    ------
    TypeError
        For anything else, a bool included.
    """
    if type(value) is int:
        return value
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be {accepted}, got {kind_of(value)}")
    return int(value)


def kind_of(value: object) -> str:
    """Return what an error calls a value that is no number."""
    kind = type(value).__name__
    if kind == "ndarray" and torch.compiler.is_compiling():
        kind += (
            "; torch.compile makes an array of a NumPy number: "
            "give a Python one, made outside of what is compiled"
        )
    return kind
