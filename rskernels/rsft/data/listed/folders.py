"""Files of a folder by class: a folder a class, under a folder a part where there are parts."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

TRAIN, TEST = "train", ("test", "val", "valid", "validation")
SOURCE, TARGET = "source", "target"


class Listing(NamedTuple):
    """The files of a part, in the order of their names."""

    paths: list[Path]
    labels: list[int]


class Listed(NamedTuple):
    """The files of a folder.

    Attributes
    ----------
    parts : dict
        "train", alone or with "test"; or "source", "target" and "test".
    classes : list of str
        Names of the classes, by label.
    """

    parts: dict[str, Listing]
    classes: list[str]


def list_folder(folder: Path, suffixes: Collection[str]) -> Listed:
    """List the files of a folder by class.

    Parameters
    ----------
    folder : Path
        With a folder a class; or with folders ``train`` and, perhaps, ``test`` or ``val`` of such;
        or with ``source``, ``target`` and ``test``. Files lie in them at any depth.
    suffixes : collection of str
        Of the files that are listed, in lower case. Other ones are said, hidden ones passed over.

    Raises
    ------
    DataError
        If the folder is none, a class has no file, or the parts have different classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; needed is one with a folder for each class")
    parts = _parts(folder)
    classes = [each.name for each in _folders(next(iter(parts.values())))]
    if len(classes) < 2:
        raise DataError(
            f"{next(iter(parts.values()))} holds {len(classes)} folder(s), {', '.join(classes)}: "
            "needed is one for each of at least two classes"
        )
    return Listed({n: _list(p, classes, suffixes) for n, p in parts.items()}, classes)


def _parts(folder: Path) -> dict[str, Path]:
    """Return the folders of the parts, the one that names the classes first."""
    held = {each.name: each for each in _folders(folder)}
    test = next((held[name] for name in TEST if name in held), None)
    if SOURCE in held and TARGET in held and {*held} <= {SOURCE, TARGET, *TEST}:
        if test is None:
            raise DataError(f"{folder} holds {SOURCE} and {TARGET}: needed is {TEST[0]} besides")
        return {SOURCE: held[SOURCE], TARGET: held[TARGET], "test": test}
    # A class may be called so too: only folders of nothing else are parts.
    if TRAIN in held and {*held} <= {TRAIN, *TEST}:
        unread = [name for name in held if held[name] != test and name != TRAIN]
        if unread:
            say(f"of {folder} {TRAIN} and {test and test.name} are read, not {', '.join(unread)}")
        return {"train": held[TRAIN]} | ({} if test is None else {"test": test})
    return {"train": folder}


def _folders(folder: Path) -> list[Path]:
    return sorted(
        each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
    )


def _list(folder: Path, classes: list[str], suffixes: Collection[str]) -> Listing:
    """List the files of a part."""
    held = [each.name for each in _folders(folder)]
    if held != classes:
        differing = sorted({*held} ^ {*classes})
        raise DataError(f"{folder} and the folders beside it differ in class {differing[0]!r}")
    paths, labels, others = [], [], []
    for label, name in enumerate(classes):
        files = [
            path
            for path in sorted((folder / name).rglob("*"))
            if not path.name.startswith(".") and path.is_file()
        ]
        listed = [path for path in files if path.suffix.lower() in suffixes]
        others += [path for path in files if path.suffix.lower() not in suffixes]
        if not listed:
            raise DataError(f"{folder / name} holds no file of {', '.join(sorted(suffixes))}")
        paths += listed
        labels += [label] * len(listed)
    if others:
        say(f"{len(others)} file(s) of other kinds are not read, {others[0]} first")
    return Listing(paths, labels)
