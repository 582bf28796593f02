"""Rows of several modalities as rows of a table, and the network that reads them as they are.

A row is 1 at its modality's place among the first, then the modalities' numbers side by side, 0 but
for its own. So all that reads rows of a table reads these too.
"""

import math
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels.experiments.multimodal.words import LETTERS, LONGEST
from rskernels.experiments.networks import HIDDEN, SmallCNN, SmallNetwork, initialise
from rskernels.rsft.artifacts.metrics import evaluate
from rskernels.rsft.data.samples import Data

NAMES = ("image", "speech", "word")
# Pixels; mel bands by stretches of time; letters by places in the word.
SHAPES = ((1, 8, 8), (1, 12, 16), (len(LETTERS), LONGEST))
SIZES = tuple(map(math.prod, SHAPES))
STARTS = tuple(accumulate(SIZES, initial=len(NAMES)))
WIDTH = STARTS[-1]


def pack(inputs: Tensor, modality: int) -> Tensor:
    """Return inputs of a modality, float32 ``[N, *SHAPES[modality]]``, as rows ``[N, WIDTH]``."""
    rows = torch.zeros(len(inputs), WIDTH)
    rows[:, modality] = 1
    rows[:, STARTS[modality] : STARTS[modality + 1]] = inputs.flatten(1)
    return rows


def unpack(rows: Tensor, modality: int) -> Tensor:
    """Return rows of one modality ``[N, WIDTH]`` as its inputs ``[N, *SHAPES[modality]]``."""
    inputs = rows[:, STARTS[modality] : STARTS[modality + 1]]
    return inputs.reshape(len(rows), *SHAPES[modality])


def modality_of(rows: Tensor) -> Tensor:
    """Return the modality of each row, int64 ``[N]``."""
    return rows[:, : len(NAMES)].argmax(dim=1)


class WordEncoder(nn.Module):
    """A convolution over three letters at a time, its largest responses, and a linear layer.

    Parameters
    ----------
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):
            self.conv1 = nn.Conv1d(len(LETTERS), HIDDEN, 3, padding=1)
            self.linear1 = nn.Linear(HIDDEN, HIDDEN)
        initialise(self, generator)

    def features(self, inputs: Tensor) -> Tensor:
        """Return ``[N, 64]`` of words ``[N, 26, places]``."""
        hidden = F.relu(self.conv1(inputs)).amax(dim=2)  # [N, 64]
        return F.relu(self.linear1(hidden))


class MultimodalNetwork(SmallNetwork):
    """An encoder for each modality, and one head upon them all.

    Parameters
    ----------
    classes : int
        Number of logits C.
    generator : torch.Generator
        Source of the initial weights; the global generator is not read.
    """

    def __init__(self, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        image, speech, _ = SHAPES
        self.encoders = nn.ModuleList(
            [
                SmallCNN(classes, image, generator),
                SmallCNN(classes, speech, generator),
                WordEncoder(generator),
            ]
        )
        for encoder in self.encoders[:2]:
            del encoder.head
        with torch.device("meta"):
            self.head = nn.Linear(HIDDEN, classes)
        initialise(self.head, generator)

    def features(self, inputs: Tensor) -> Tensor:
        """Return ``[N, 64]`` of rows ``[N, WIDTH]``."""
        features = inputs.new_zeros(len(inputs), HIDDEN)
        modality = modality_of(inputs)
        for number, encoder in enumerate(self.encoders):
            (rows,) = torch.nonzero(modality == number, as_tuple=True)
            # What a batch lacks gives no gradient, not one of 0 that momentum would step on.
            if len(rows):
                encoded = encoder.features(unpack(inputs[rows], number))  # type: ignore[operator]
                features = features.index_copy(0, rows, encoded)
        return features


def accuracy_of_each(model: nn.Module, data: Data) -> dict[str, float]:
    """Return the balanced accuracy on each modality's test rows, as ``accuracy_image`` etc."""
    modality = modality_of(data.test.inputs)
    return {
        f"accuracy_{name}": evaluate(
            model, data.test.take(torch.nonzero(modality == number)[:, 0]), data.counts
        ).balanced_accuracy
        for number, name in enumerate(NAMES)
    }
