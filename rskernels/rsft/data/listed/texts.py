"""Texts and their classes: of JSON lines, of CSV, or a file each in a folder a class."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.rsft.data.listed.bad import Bad
from rskernels.rsft.data.listed.folders import TEST, TRAIN, Listing, list_folder
from rskernels.rsft.errors import DataError

LINES, DELIMITERS = (".jsonl", ".ndjson"), {".csv": ",", ".tsv": "\t"}
KINDS = (*LINES, *DELIMITERS)

# How a row is named, its text, and its class; or None, and why it has no text.
Row = tuple[str, Any, Any]


class Texts(NamedTuple):
    """Texts and their classes.

    Attributes
    ----------
    texts : list of str
        N of them.
    labels : Tensor
        int64 ``[N]``.
    """

    texts: list[str]
    labels: Tensor

    def take(self, rows: Tensor) -> Texts:
        """Return some of them, by their numbers, int64 ``[n]``."""
        return Texts([self.texts[row] for row in rows.tolist()], self.labels[rows])


def read_texts(
    path: Path, *, text_column: str, label_column: str, bad: Bad
) -> tuple[Texts, Texts | None]:
    """Read texts and their classes.

    Parameters
    ----------
    path : Path
        A file ``.jsonl``, ``.csv`` or ``.tsv``, in UTF-8; a folder with such files named ``train``
        and, perhaps, ``test`` or ``val``; or a folder a class with a text in each file ``.txt``,
        under ``train`` and ``test`` where there are these. Classes are numbered in the order of
        their names, or of their numbers where all are whole.
    text_column, label_column : str
        Names of the columns, or of an object's fields.
    bad : Bad
        Counts rows that are malformed, or of which text or class is missing or blank.

    Returns
    -------
    (Texts, Texts or None)
        To train on and to test on; None where the files do not say which are for the test.

    Raises
    ------
    DataError
        If there is no such file, more rows are malformed than `bad` accepts, there are not two
        classes, or a class to test on is not one to train on.
    """
    parts = _files(path)
    if parts:
        rows = [_good(_rows(file, text_column, label_column), bad) for file in parts]
    else:
        listed = list_folder(path, (".txt",))
        if "train" not in listed.parts:
            held = ", ".join(listed.parts)
            raise DataError(f"{path} holds {held}; of texts, train and test are read")
        rows = [_good(_texts_of(part, listed.classes), bad) for part in listed.parts.values()]
    bad.check("texts")
    names = _sorted_classes({label for _, label in rows[0]})
    if len(names) < 2:
        raise DataError(f"{path} has texts of {len(names)} class(es); needed are at least two")
    place = {name: number for number, name in enumerate(names)}
    unknown = [label for part in rows[1:] for _, label in part if label not in place]
    if unknown:
        raise DataError(f"{path} has class {unknown[0]!r} to test on, but none such to train on")
    made = [
        Texts([text for text, _ in part], torch.tensor([place[label] for _, label in part]))
        for part in rows
    ]
    return made[0], made[1] if len(made) > 1 else None


def _files(path: Path) -> list[Path]:
    """Return the file, or those of a folder to train and to test on; none of a folder of texts."""
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            raise DataError(f"{path} is no file of texts; accepted are {', '.join(KINDS)}")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist")
    found = {
        name: [path / f"{name}{kind}" for kind in KINDS if (path / f"{name}{kind}").is_file()]
        for name in (TRAIN, *TEST)
    }
    for files in found.values():
        if len(files) > 1:
            raise DataError(f"{path} holds {files[0].name} and {files[1].name}: which is meant?")
    test = next((files for files in list(found.values())[1:] if files), [])
    return found[TRAIN] + test if found[TRAIN] else []


def _rows(file: Path, text_column: str, label_column: str) -> Iterator[Row]:
    """Yield the rows of a file, each named by its line."""
    suffix = file.suffix.lower()
    each = _json_rows(file) if suffix in LINES else _csv_rows(file, DELIMITERS[suffix])
    for number, row in each:
        name = f"{file}:{number}"
        if isinstance(row, str):
            yield name, None, row
        elif missing := [c for c in (text_column, label_column) if row.get(c) is None]:
            held = ", ".join(str(column) for column in row)
            yield name, None, f"has no {missing[0]!r}, but {held or 'nothing'}"
        else:
            yield name, row[text_column], row[label_column]


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                yield number, f"is no JSON: {error}"
                continue
            yield number, row if isinstance(row, dict) else f"is no object but {type(row).__name__}"


def _csv_rows(file: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    # Bytes that are no UTF-8 become what cannot be encoded, and is refused row by row.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            names = next(reader, [])
        except csv.Error as error:
            raise DataError(f"{file} has no first row of names: {error}") from error
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield reader.line_num, f"is no CSV: {error}"
                continue
            if cells is None:
                return
            if cells:
                number = reader.line_num
                wrong = f"has {len(cells)} cells for {len(names)} names"
                same = len(cells) == len(names)
                yield number, dict(zip(names, cells, strict=True)) if same else wrong


def _texts_of(part: Listing, classes: list[str]) -> Iterator[Row]:
    """Yield the texts of files, each named by its file."""
    for file, label in zip(part.paths, part.labels, strict=True):
        try:
            yield str(file), file.read_bytes().decode("utf-8-sig"), classes[label]
        except (OSError, UnicodeDecodeError) as error:
            yield str(file), None, f"cannot be read: {error}"


def _good(rows: Iterator[Row], bad: Bad) -> list[tuple[str, str]]:
    """Return text and class of the rows that have both."""
    good = []
    for name, text, label in rows:
        if text is None:
            bad.add(f"{name} {label}")
        elif not isinstance(text, str) or not text.strip():
            bad.add(f"{name} has a text that is {'blank' if isinstance(text, str) else 'none'}")
        elif not _is_utf8(text):
            bad.add(f"{name} has a text that is no UTF-8")
        elif isinstance(label, bool) or not isinstance(label, int | str) or not str(label).strip():
            bad.add(f"{name} has class {label!r}; accepted are a name and a whole number")
        else:
            good.append((text, str(label)))
    return good


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sorted_classes(names: set[str]) -> list[str]:
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)
