"""The message for optional packages that are absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

DATA_HINT, HF_HINT, LANGUAGE_HINT, RAY_HINT, TRAIN_HINT = (
    f"pip install '.[{extra}]' in a clone of rskernels"
    for extra in ("data", "hf", "language", "ray", "train")
)


@contextmanager
def framework(what: str, hint: str) -> Iterator[None]:
    """Wrap the import of an optional package, saying how to get it when it is absent.

    Parameters
    ----------
    what : str
        What needs it, the subject of the message.
    hint : str
        How it is installed.

    Raises
    ------
    ModuleNotFoundError
        With the missing package and the hint.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "a package").partition(".")[0]
        raise ModuleNotFoundError(
            f"{what} needs {package}, which is not installed: {hint}", name=missing.name
        ) from missing


def data_extra() -> AbstractContextManager[None]:
    """Wrap the import of what reads and writes data sets."""
    return framework("reading a data set", DATA_HINT)


def train_extra() -> AbstractContextManager[None]:
    """Wrap the import of what only training needs."""
    return framework("training", TRAIN_HINT)
