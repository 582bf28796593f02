"""The ten digits as images, spoken, and as written words: three modalities of one task."""

from importlib import resources
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rskernels.experiments.bundled import load_digits
from rskernels.experiments.multimodal.network import pack
from rskernels.experiments.multimodal.words import draw_words, encode
from rskernels.rsft.data.samples import Data, Samples
from rskernels.rsft.data.splits import long_tail_counts, rows_of_each_class, split_balanced
from rskernels.rsft.errors import DataError

# How often image, speech and word are in the pool, of each class.
SHARES = (20, 4, 1)
CLASSES = 10


class Spoken(NamedTuple):
    """Digits spoken by eSpeak NG; ``scripts/make_spoken_digits.py`` says how.

    Attributes
    ----------
    samples : Samples
        Log-mel features, float32 ``[1800, 1, 12, 16]`` in [0, 1], and the digits.
    speakers : Tensor
        int64 ``[1800]``, 0 to 29: who speaks.
    """

    samples: Samples
    speakers: Tensor


def load_spoken_digits() -> Spoken:
    """Load the bundled spoken digits: each digit six times by each of thirty synthetic speakers."""
    resource = resources.files("rskernels.experiments.multimodal") / "spoken_digits.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        features = torch.from_numpy(arrays["features"].astype(np.float32) / 255)
        labels, speakers = (
            torch.from_numpy(arrays[name].astype(np.int64)) for name in ("labels", "speakers")
        )
    return Spoken(Samples(features[:, None], labels), speakers)


def split_speakers(test_fraction: float, generator: torch.Generator) -> tuple[Samples, Samples]:
    """Load the spoken digits, those of some speakers to train on and of the others to test on.

    Parameters
    ----------
    test_fraction : float
        Share of the speakers to test on.
    generator : torch.Generator
        Decides which.

    Raises
    ------
    DataError
        If the fraction leaves no speaker to train on, or none to test on.
    """
    spoken = load_spoken_digits()
    speakers = torch.randperm(int(spoken.speakers.max()) + 1, generator=generator)
    heard = round(test_fraction * len(speakers))
    if not 0 < heard < len(speakers):
        raise DataError(
            f"test_fraction={test_fraction} takes {heard} of the {len(speakers)} speakers; it must "
            "leave at least one for train and one for test"
        )
    is_test = torch.isin(spoken.speakers, speakers[:heard])
    return spoken.samples.take(~is_test), spoken.samples.take(is_test)


def load_multimodal(*, imbalance: float, test_fraction: float, generator: torch.Generator) -> Data:
    """Load the three modalities, with a pool of 20 : 4 : 1 and a test set of 1 : 1 : 1.

    The pool of each modality is long-tailed by the same imbalance, and which class is rare in it is
    drawn for each. The test set has equally many rows of every class in every modality, and shares
    with the pool no image, no speaker and no way of mistyping a word.

    Parameters
    ----------
    imbalance : float
        Most frequent class over rarest within each modality.
    test_fraction : float
        Share of the rarest digit's images, and of the speakers, that the test set is drawn from.
    generator : torch.Generator
        Decides the split, the pool, and the words.

    Returns
    -------
    Data
        With rows as `rskernels.experiments.multimodal.network` packs them.

    Raises
    ------
    DataError
        If the imbalance or the fraction leaves a class of a modality empty.
    """
    images = load_digits()
    train, held_out = split_balanced(images.labels, test_fraction, generator)
    candidates = [
        (images.take(train), images.take(held_out)),
        split_speakers(test_fraction, generator),
    ]

    counts = pool_counts([int(pool.labels.bincount().min()) for pool, _ in candidates], imbalance)
    ranks = [torch.randperm(CLASSES, generator=generator) for _ in SHARES]
    counts = [count[rank] for count, rank in zip(counts, ranks, strict=True)]
    each = min(int(test.labels.bincount().min()) for _, test in candidates)
    even = torch.full((CLASSES,), each)
    pools, tests = [], []
    for (pool, test), count in zip(candidates, counts[:2], strict=True):
        pools.append(pool.take(rows_by_count(pool.labels, count, generator)))
        tests.append(test.take(rows_by_count(test.labels, even, generator)))
    words, digits = draw_words(counts[2], generator)
    pools.append(Samples(encode(words), digits))
    others, digits = draw_words(even, generator, frozenset(words))
    tests.append(Samples(encode(others), digits))
    pool, test = together(pools), together(tests)
    return Data(pool, test, pool.labels.bincount(minlength=CLASSES))


def pool_counts(available: list[int], imbalance: float) -> list[Tensor]:
    """Return the class sizes of each modality, falling: 20 : 4 : 1 in the most frequent class.

    Parameters
    ----------
    available : list of int
        Rows of each class at hand of the modalities but the last, of which any number can be drawn.
    imbalance : float
        Most frequent class over rarest, of each modality.

    Raises
    ------
    DataError
        If a class of the rarest modality would be empty.
    """
    most = min(rows // share for rows, share in zip(available, SHARES, strict=False))
    if most < 1:
        raise DataError(
            f"{available} images and spoken rows of a class are too few for a pool of "
            f"{SHARES}: a smaller test_fraction leaves more"
        )
    if not 1 <= imbalance <= most:
        raise DataError(
            f"imbalance={imbalance}: accepted are 1 (balanced) to {most}, the rows of the most "
            f"frequent class that {SHARES[-1]} part in {sum(SHARES)} leaves to the rarest modality"
        )
    start = int(long_tail_counts(most, CLASSES, imbalance)[0])
    return [long_tail_counts(share * start, CLASSES, imbalance) for share in SHARES]


def rows_by_count(labels: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a number of rows of each class, int64; each at most once."""
    return torch.cat(
        [
            rows[torch.randperm(len(rows), generator=generator)[:count]]
            for rows, count in zip(rows_of_each_class(labels), counts.tolist(), strict=True)
        ]
    )


def together(samples: list[Samples]) -> Samples:
    """Return samples of each modality, in order, as rows of one table."""
    rows = [pack(each.inputs, modality) for modality, each in enumerate(samples)]
    return Samples(torch.cat(rows), torch.cat([each.labels for each in samples]))
