"""The files of a data set, in one order and of one format, and a digest of what they hold."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rskernels.pipeline.read.packed import CODECS, codec_of
from rskernels.rsft.errors import DataError

SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
ENDINGS = f"{', '.join(SUFFIXES)}, JSON lines also in {', '.join(CODECS)} after that"
ENDS = 1 << 16  # bytes at either end of a file that its digest reads


@dataclass(frozen=True)
class Dataset:
    """Files of one format.

    Attributes
    ----------
    files : tuple of str
        In the order in which they were named, those of a folder or pattern by name.
    format : {"jsonl", "parquet", "arrow"}
    skipped : tuple of str
        What lies in folders that were named and is not read, as its name ends in nothing known.
    """

    files: tuple[str, ...]
    format: str
    skipped: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """How large the files are."""
        return sum(os.path.getsize(file) for file in self.files)

    @property
    def suffix(self) -> str:
        """What the name of a file of this format ends in."""
        return f".{self.format}"

    def digest(self) -> str:
        """Return the SHA-256 of each file's size and its first and last 64 KiB, in order."""
        sha = hashlib.sha256()
        for name in self.files:
            size = os.path.getsize(name)
            sha.update(f"{size};".encode())
            with open(name, "rb") as file:
                sha.update(file.read(ENDS))
                file.seek(max(0, size - ENDS))
                sha.update(file.read(ENDS))
        return sha.hexdigest()


def format_of(file: str) -> str | None:
    """Return the format of a file by its name; None if none is known."""
    path = Path(file)
    if codec_of(file) is None:
        return SUFFIXES.get(path.suffix.lower())
    return "jsonl" if SUFFIXES.get(Path(path.stem).suffix.lower()) == "jsonl" else None


def dataset_of(inputs: Iterable[str | Path]) -> Dataset:
    """Return the files that inputs name: files, folders and patterns.

    Raises
    ------
    DataError
        If there are none, one is of no known format, or they are of several.
    """
    skipped: list[str] = []
    once: dict[tuple[int, int], str] = {}
    for name in inputs:
        for file in _files(str(name), skipped):
            once.setdefault(_inode(file), file)  # by whatever names and links
    files = list(once.values())
    formats: dict[str, str] = {}
    for file in files:
        kind = format_of(file)
        if kind is None:
            raise DataError(f"{file} must end in one of {ENDINGS}")
        formats.setdefault(kind, file)
    if not files:
        raise DataError("there are no input files")
    if len(formats) > 1:
        raise DataError(
            "inputs must be of one format, got "
            + ", ".join(f"{kind} ({file})" for kind, file in formats.items())
        )
    return Dataset(tuple(files), next(iter(formats)), tuple(dict.fromkeys(skipped)))


def refuse_mixed(out: Path, inputs: Iterable[str | Path], *of_files: Dataset | None) -> None:
    """Refuse results that would replace what is read, or be read by a later run.

    Raises
    ------
    DataError
        If a file lies in the folder of the results, or that folder in one that is named.
    """
    folder = Path(os.path.realpath(out))
    for data in of_files:
        for file in data.files if data is not None else ():
            if folder in Path(os.path.realpath(file)).parents:
                raise DataError(
                    f"{file} is read and lies in the folder of the results, {out}: name another "
                    "folder with --out"
                )
    for name in inputs:
        path = Path(os.path.realpath(name))
        if path.is_dir() and path in (folder, *folder.parents):
            raise DataError(
                f"the folder of the results, {out}, lies in {name}, which is read: name one "
                "outside with --out"
            )


def refuse_shared(data: Dataset, pilot: Dataset | None) -> None:
    """Refuse a pilot that is decided itself: an M that is taken from the rows is no bound.

    Raises
    ------
    DataError
        If a file is an input and one of the pilot, by whatever names and links.
    """
    if pilot is None:
        return
    inputs = {_inode(file) for file in data.files}
    for file in pilot.files:
        if _inode(file) in inputs:
            raise DataError(
                f"{file} is an input and a pilot: a pilot is other answers to the same prompts"
            )


def _inode(file: str) -> tuple[int, int]:
    of = os.stat(file)
    return of.st_dev, of.st_ino


def _files(name: str, skipped: list[str]) -> Sequence[str]:
    """Return the files that an input names, and note what lies in a folder and is none."""
    if os.path.isdir(name):
        found: list[str] = []
        for root, folders, files in os.walk(name):
            links = [of for of in folders if os.path.islink(os.path.join(root, of))]
            for file in sorted([*files, *links]):
                path = os.path.join(root, file)
                if file.startswith((".", "_")):
                    continue
                is_known = format_of(file) is not None and os.path.isfile(path)
                (found if is_known else skipped).append(path)
        if not found:
            raise DataError(f"{name} holds no file that ends in one of {ENDINGS}")
        return sorted(found)
    if os.path.exists(name):
        return [name]
    found = sorted(file for file in glob.glob(name, recursive=True) if os.path.isfile(file))
    if not found:
        raise DataError(f"{name} does not exist")
    return found
