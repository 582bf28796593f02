"""The one message for the packages that read and write data sets."""

from collections.abc import Iterator
from contextlib import contextmanager

HINT = "pip install '.[data]' in a clone of rskernels"


@contextmanager
def data_extra() -> Iterator[None]:
    """Wrap the import of an optional package, naming the extra when it is absent.

    Raises
    ------
    ModuleNotFoundError
        With the missing package and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "a package").partition(".")[0]
        raise ModuleNotFoundError(
            f"data sets need {package}, which is not installed: {HINT}", name=missing.name
        ) from missing
