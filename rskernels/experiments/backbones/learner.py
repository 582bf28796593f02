"""What a run's model reads and is: a small network, or a backbone under a new head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.experiments.backbones.images import (
    ImageBackbone,
    torchvision_backbone,
    transformers_backbone,
)
from rskernels.experiments.backbones.texts import TextBackbone, read_text_backbone, small_encoder
from rskernels.experiments.config import GradientConfig
from rskernels.experiments.datasets import TEXTS
from rskernels.experiments.networks import BackboneNetwork, SmallNetwork, make_model
from rskernels.rsft.data.digest import digest
from rskernels.rsft.data.samples import Data, Samples

ROWS, ROWS_OF_FEATURES = 1024, 64  # that are read at a time


class Learner(NamedTuple):
    """How a model of a run comes about.

    Attributes
    ----------
    make : callable
        Inputs as the model reads them, classes and a generator to a new model.
    features : callable, optional
        What is computed of each input once, since it stays; the model then reads that.
    digest : str
        Of a backbone's weights; empty without one.
    """

    make: Callable[[Tensor, int, torch.Generator], SmallNetwork]
    features: Callable[[Tensor], Tensor] | None = None
    digest: str = ""

    @property
    def rows(self) -> int:
        """How many inputs are read at a time: of a backbone activations are large."""
        return ROWS if self.features is None else ROWS_OF_FEATURES

    def read(self, data: Data) -> Data:
        """Return the data as the model reads them."""
        if self.features is None:
            return data
        pool, test = (
            Samples(in_batches(self.features, part.inputs, self.rows), part.labels)
            for part in (data.pool, data.test)
        )
        return data._replace(pool=pool, test=test)

    def identity(self, data: str) -> str:
        """Return the digest of data, whose own is given, and backbone together."""
        return hashlib.sha256(f"{data} {self.digest}".encode()).hexdigest() if self.digest else data


def make_learner(
    config: GradientConfig, images: ImageBackbone | None, data: Data, generator: torch.Generator
) -> Learner:
    """Return how the model of a run comes about.

    Parameters
    ----------
    config : GradientConfig
        The run.
    images : ImageBackbone, optional
        What `image_backbone` gave.
    data : Data
        That are trained on.
    generator : torch.Generator
        Source of the weights of an encoder of texts that is trained from scratch.

    Raises
    ------
    DataError
        If an encoder of texts cannot be read, or does not take the data.
    ModuleNotFoundError
        If a package that it needs is not installed.
    """
    is_text = data.pool.inputs.dtype == torch.int64
    if images is None and not is_text:
        return Learner(make_model)
    backbone = images or _text(config, data, generator)
    width = backbone.width()
    known = digest(backbone.state_dict().values())
    if config.unfreeze or config.backbone is None:
        return Learner(
            lambda inputs, classes, drawn: BackboneNetwork(classes, width, drawn, backbone),
            digest=known,
        )
    backbone.requires_grad_(False)
    return Learner(
        lambda inputs, classes, drawn: BackboneNetwork(classes, width, drawn), backbone, known
    )


def _text(config: GradientConfig, data: Data, generator: torch.Generator) -> TextBackbone:
    both = data.pool.inputs, data.test.inputs
    tokens = max(int(part.max()) for part in both) + 1
    if config.backbone is None:
        return small_encoder(tokens, max(part.shape[1] for part in both), generator)
    _, _, folder = config.backbone.partition(":")
    return read_text_backbone(
        Path(folder).expanduser(), tokens, generator, from_scratch=config.unfreeze
    )


def image_backbone(config: GradientConfig) -> ImageBackbone | None:
    """Return the backbone of images that a run asks for, before any image is read.

    Raises
    ------
    DataError
        If it cannot be read.
    ImportError
        If a package that it needs is not installed, or does not load.
    """
    if config.backbone is None or config.data in TEXTS:
        return None
    kind, _, name = config.backbone.partition(":")
    if kind == "torchvision":
        assert config.weights is not None
        return torchvision_backbone(name, Path(config.weights).expanduser(), config.image_size)
    # The draws of the run are the same with any backbone.
    generator = torch.Generator().manual_seed(config.seed)
    return transformers_backbone(
        Path(name).expanduser(), config.image_size, generator, from_scratch=config.unfreeze
    )


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], inputs: Tensor, rows: int = ROWS) -> Tensor:
    """Return a function of inputs ``[N, ...]``, taken a few rows at a time, without gradient."""
    return torch.cat([function(part) for part in inputs.split(rows)])
