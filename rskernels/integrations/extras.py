"""The one message for a framework that is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def framework(what: str, hint: str) -> Iterator[None]:
    """Wrap the import of a framework, saying how to get it when it is absent.

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


HF_HINT = "pip install '.[hf]' in a clone of rskernels"
LANGUAGE_HINT = "pip install '.[language]' in a clone of rskernels"
