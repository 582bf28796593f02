"""Any data set by its name, split; its training pool made long-tailed on purpose."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.experiments.bundled import BUNDLED
from rskernels.experiments.multimodal.data import load_multimodal, split_speakers
from rskernels.experiments.texts import draw_texts, to_tokens
from rskernels.rsft.data.digest import digest
from rskernels.rsft.data.files import read_mnist, read_npz
from rskernels.rsft.data.listed import Bad, ImageFiles, Texts, read_image_folder, read_texts
from rskernels.rsft.data.samples import Data, Samples
from rskernels.rsft.data.splits import make_long_tailed, split_balanced
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

FILES = ("mnist", "npz", "imagefolder", "text")
TEXTS = ("text", "bigrams")
# Their classes have sizes of their own, which are kept unless an imbalance is asked for.
OWN_SIZES = (*FILES, "bigrams")
DATASETS = (*BUNDLED, "speech", "multimodal", "bigrams", *FILES)


class Loaded(NamedTuple):
    """Data, and by what they are known again."""

    data: Data
    digest: str
    """Of inputs as float32, as `make_samples` scales them, and labels as int64: before the split,
    and before anything that processors compute differently. Of images in folders and of texts,
    which are read after the split, of what was read."""
    is_target: Tensor | None = None
    """bool ``[rows of the pool]``, where the files say which are of the target domain."""


# What a split needs is labels, and that rows can be taken.
Source = Samples | ImageFiles | Texts


class Reading(NamedTuple):
    """How files are read."""

    channels: str | None = None
    """"first" or "last", of the images of "npz"; None where their shape tells."""
    image_size: int = 32
    """Height and width of images in folders."""
    max_bad: int = 0
    """Malformed images or texts that are left out; one more is an error."""
    text_column: str = "text"
    label_column: str = "label"
    max_tokens: int = 64
    """Read of each text."""
    tokenizer: Path | None = None
    """Folder of one; None trains one on the texts of the pool."""


def load(
    name: str,
    *,
    path: str | None = None,
    imbalance: float | None,
    test_fraction: float,
    generator: torch.Generator,
    reading: Reading | None = None,
) -> Loaded:
    """Load a data set, split it, then thin the training part to a long tail if that is asked for.

    Columns of a table are brought to mean 0 and standard deviation 1 of the pool; images stay.
    What is left out of a file, or converted, is said.

    Parameters
    ----------
    name : str
        One of ``DATASETS``.
    path : str, optional
        Of "mnist" and "imagefolder" the folder, of "npz" the file, of "text" either.
    imbalance : float, optional
        Size of the pool's most frequent class over that of its rarest. None, for files and
        "bigrams" alone, leaves every row of the training part in the pool.
    test_fraction : float
        Share of the smallest class held out, the same number of rows of every class. Not read
        where the files say what the test set is.
    generator : torch.Generator
        Decides the split, the pool and which classes are rare.
    reading : Reading, optional
        How files are read.

    Raises
    ------
    ValueError
        For an unknown name, or a path that is missing or not asked for.
    DataError
        For files that are missing or malformed, of one class alone or of rows all alike, or an
        imbalance or fraction that leaves a class empty.
    ModuleNotFoundError
        If a package that reads them is not installed.
    """
    check_source(name, path)
    reading = reading or Reading()
    if name == "multimodal":
        assert imbalance is not None
        data = load_multimodal(
            imbalance=imbalance, test_fraction=test_fraction, generator=generator
        )
        return Loaded(data, digest((*data.pool, *data.test)))
    where = None if path is None else Path(path).expanduser()
    everything, test = _read(name, where, test_fraction, generator, reading)
    identity = digest((*everything, *(test or ()))) if isinstance(everything, Samples) else None
    train = torch.arange(len(everything.labels))
    if test is None:
        train, held_out = split_balanced(everything.labels, test_fraction, generator)
        test = everything.take(held_out)
    elif not torch.equal(test.labels.unique(), everything.labels.unique()):
        raise DataError(
            f"{path} has classes {everything.labels.unique().tolist()} to train on and "
            f"{test.labels.unique().tolist()} to test on"
        )
    chosen = train
    if imbalance is not None:
        chosen = train[make_long_tailed(everything.labels[train], imbalance, generator)]
    pool, test, is_target = _made(everything.take(chosen), test, reading)
    if path is not None:
        left_out = len(train) - len(chosen)
        _tell(path, everything.labels[train], pool.labels, test.labels, imbalance, left_out)
        _check_rows_differ(path, pool)
    if pool.inputs.dim() == 2 and pool.inputs.is_floating_point():
        pool, test = _standardised(pool, test, path)
    counts = pool.labels.bincount(minlength=int(test.labels.max()) + 1)
    return Loaded(Data(pool, test, counts), identity or digest((*pool, *test)), is_target)


def _read(
    name: str,
    path: Path | None,
    test_fraction: float,
    generator: torch.Generator,
    reading: Reading,
) -> tuple[Source, Source | None]:
    """Return the rows of a data set, and those that it says are for the test.

    Raises
    ------
    DataError
        If they are not to be had, or all of one class.
    """
    if name == "speech":
        return split_speakers(test_fraction, generator)
    if name == "bigrams":
        return draw_texts(generator)
    if path is None:
        return BUNDLED[name](), None
    if name == "imagefolder":
        return read_image_folder(path)
    if name == "text":
        columns = {"text_column": reading.text_column, "label_column": reading.label_column}
        return read_texts(path, **columns, bad=Bad(reading.max_bad))
    everything, test = read_npz(path, reading.channels) if name == "npz" else read_mnist(path)
    if int(everything.labels.max()) == 0:
        raise DataError(
            f"all {len(everything.labels)} rows of {path} are of one class: there is nothing to "
            "tell apart; at least two are needed"
        )
    return everything, test


def _made(pool: Source, test: Source, reading: Reading) -> tuple[Samples, Samples, Tensor | None]:
    """Read the rows that were chosen, and say of those of the pool which are of a target domain."""
    if isinstance(pool, Texts) and isinstance(test, Texts):
        texts = [pool.texts, test.texts]
        tokens = to_tokens(texts, reading.tokenizer, reading.max_tokens)
        return Samples(tokens[0], pool.labels), Samples(tokens[1], test.labels), None
    if isinstance(pool, ImageFiles) and isinstance(test, ImageFiles):
        bad = Bad(reading.max_bad)
        (images, is_target), (tested, _) = (
            part.read(reading.image_size, bad) for part in (pool, test)
        )
        bad.check("images")
        for before, after in ((pool, images), (test, tested)):
            lost = set(before.labels.tolist()) - set(after.labels.tolist())
            if lost:
                raise DataError(f"no image of class {min(lost)} is left in one of the two parts")
        return images, tested, is_target if is_target.any() else None
    assert isinstance(pool, Samples)
    assert isinstance(test, Samples)
    return pool, test, None


def _tell(
    path: str, train: Tensor, pool: Tensor, test: Tensor, imbalance: float | None, left_out: int
) -> None:
    """Say how many rows of a file are used for what, and how many an imbalance leaves out."""
    say(
        f"of {path}, {len(pool)} rows are trained on, of each class {_counts(pool)}, and "
        f"{len(test)} tested on, {_counts(test)}"
    )
    if left_out:
        say(
            f"imbalance={imbalance:g} leaves out {left_out} rows: there are "
            f"{len(train)} to train on, of each class {_counts(train)}"
        )


def _counts(labels: Tensor, most: int = 20) -> str:
    """Return the rows of each class as a text; of many classes their range."""
    counts = labels.bincount()
    if len(counts) > most:
        return f"{counts.min()} to {counts.max()}"
    return ", ".join(map(str, counts.tolist()))


def _check_rows_differ(path: str, pool: Samples) -> None:
    if torch.equal(pool.inputs, pool.inputs[:1].expand_as(pool.inputs)):
        raise DataError(
            f"x of {path} is alike in all {len(pool.labels)} rows that are trained on, as far as "
            "float32 tells: there is nothing to tell them apart by"
        )


def _standardised(pool: Samples, test: Samples, path: str | None) -> list[Samples]:
    """Bring columns to mean 0 and standard deviation 1 of the pool; one that is constant to 0."""
    spread, mean = torch.std_mean(pool.inputs, dim=0, correction=0)
    constant = (pool.inputs.amin(dim=0) == pool.inputs.amax(dim=0)) | (spread == 0)
    if path is not None and constant.any():
        columns = constant.nonzero()[:, 0].tolist()
        say(
            f"{len(columns)} column(s) of {path} are not used, column {columns[0]} first: they "
            "hold one value, as far as float32 tells, in all rows that are trained on"
        )
    parts = []
    for samples in (pool, test):
        inputs = ((samples.inputs - mean) / spread).masked_fill(constant, 0.0)
        if not inputs.isfinite().all():
            column = int((~inputs.isfinite()).any(dim=0).nonzero()[0])
            raise DataError(
                f"column {column} of {path} holds, in rows to test on, numbers that are beyond "
                "float32 once those that are trained on have standard deviation 1"
            )
        parts.append(Samples(inputs, samples.labels))
    return parts


def check_source(name: str, path: str | None) -> None:
    """Raise ValueError if there is no data set of that name, or it lacks, or has, a path."""
    if name not in DATASETS:
        raise ValueError(f"data={name!r}: accepted are {', '.join(DATASETS)}")
    if (path is None) == (name in FILES):
        fault = "needs a path" if path is None else "is bundled and takes no path"
        raise ValueError(f"data={name!r} {fault}, got path={path!r}")
