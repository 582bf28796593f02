"""``rskernels train``: the task of each method on the bundled data, for the gradient loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rskernels.experiments.backbones import Learner, image_backbone, make_learner
from rskernels.experiments.config import SHIFTED, GradientConfig
from rskernels.experiments.multimodal.network import (
    NAMES,
    MultimodalNetwork,
    accuracy_of_each,
    modality_of,
)
from rskernels.experiments.shift import domains, proposal, transfer
from rskernels.rsft.data.drift import draw_stream, priors
from rskernels.rsft.data.resample import RESAMPLERS
from rskernels.rsft.data.samples import Data
from rskernels.rsft.data.splits import log_class_balance, long_tail_counts
from rskernels.rsft.errors import DataError
from rskernels.rsft.run import train
from rskernels.rsft.task import Epoch, Order, Task, resampled, shuffled

FROM_SHIFT = {"transfer": transfer, "proposal": proposal}


def train_model(config: GradientConfig, out: Path, **arguments: Any) -> dict[str, Any]:
    """Train a small network on a data set; arguments are those of `rskernels.rsft.run.train`."""
    generator = torch.Generator().manual_seed(config.seed)
    task = make_task(config, generator)
    return train(task, config, out, generator=generator, **arguments)


def make_task(config: GradientConfig, generator: torch.Generator) -> Task:
    """Load the data of a run and prepare what its method needs.

    Raises
    ------
    DataError
        If the data are not to be had, or not such as the method or the backbone needs.
    ImportError
        If a package that a backbone needs is not installed.
    """
    backbone = image_backbone(config)  # what is wrong with it is told before images are read
    data, digest, is_target = config.load(generator)
    if is_target is not None and config.method not in SHIFTED:
        raise DataError(
            f"{config.path} holds a source and a target: methods {' and '.join(SHIFTED)} read "
            f"both, got method={config.method!r}"
        )
    learner = make_learner(config, backbone, data, generator)
    # The digest is of the data as read: what is computed of them differs between processors.
    digest = learner.identity(digest)
    if config.method in FROM_SHIFT:
        both = domains(config, data, is_target, learner, generator)
        make = FROM_SHIFT[config.method]
        return make(config, both, learner, generator)._replace(digest=digest)
    if config.data == "multimodal":
        return multimodal(config, data, generator)._replace(digest=digest)
    return class_balance(config, learner.read(data), learner, generator)._replace(digest=digest)


def class_balance(
    config: GradientConfig, data: Data, learner: Learner, generator: torch.Generator
) -> Task:
    """Return the task of a long-tailed pool, to be uniform over the classes."""
    labels = data.pool.labels
    log_density = log_class_balance(data.counts)[labels]
    order, pilot = shuffled(len(labels)), torch.arange(len(labels))
    if config.drift is not None:
        order = drifting(config, data, generator)
        pilot, _, moving = order(0, generator)
        assert moving is not None
        log_density = moving
    if config.method in RESAMPLERS:
        order = resampled(order, labels, RESAMPLERS[config.method])
    model = learner.make(data.pool.inputs, len(data.counts), generator)
    return Task.from_samples(data.pool, data.test, model, log_density, order=order, pilot=pilot)


def multimodal(config: GradientConfig, data: Data, generator: torch.Generator) -> Task:
    """Return the task of a pool of several modalities, to be uniform over the classes of each."""
    classes, labels = len(data.counts), data.pool.labels
    modality = modality_of(data.pool.inputs)
    cell = modality * classes + labels
    log_p_hat = log_class_balance(cell.bincount(minlength=len(NAMES) * classes))
    model = MultimodalNetwork(classes, generator)
    rows = modality.bincount().tolist()
    order = shuffled(len(labels))
    if config.method in RESAMPLERS:
        order = resampled(order, cell, RESAMPLERS[config.method])
    return Task.from_samples(
        data.pool,
        data.test,
        model,
        log_p_hat[cell],
        order=order,
        before={f"pool_{name}": count for name, count in zip(NAMES, rows, strict=True)},
        modality=modality,
        modalities=NAMES,
        measure=lambda model: accuracy_of_each(model, data),
    )


def drifting(config: GradientConfig, data: Data, generator: torch.Generator) -> Order:
    """Return the order of a stream of as many rows as a long tail has, whose priors move.

    The priors of each epoch are taken as known: log p̂ follows them without delay or error.
    """
    assert config.drift is not None
    assert config.imbalance is not None
    imbalance, steps = config.imbalance, config.drift - 1
    labels, classes = data.pool.labels, len(data.counts)
    n = int(long_tail_counts(int(data.counts.min()), classes, imbalance).sum())
    rank = torch.randperm(classes, generator=generator)

    def order(epoch: int, generator: torch.Generator) -> Epoch:
        prior = priors(rank, imbalance, min(epoch / steps, 1.0))
        log_density = -(prior * classes).log().float()
        return Epoch(draw_stream(labels, prior, n, generator), {}, log_density[labels])

    return order
