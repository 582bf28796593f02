"""A shift of the inputs: clean images turned and blurred, and the tasks of adapting to it."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels.experiments.backbones import Learner, in_batches
from rskernels.experiments.config import GradientConfig
from rskernels.experiments.networks import SmallNetwork
from rskernels.rsft.artifacts.metrics import evaluate
from rskernels.rsft.data.domains import log_domain_densities
from rskernels.rsft.data.draw import draw_rows
from rskernels.rsft.data.samples import Data, Samples, as_float
from rskernels.rsft.data.splits import split_balanced
from rskernels.rsft.errors import DataError, TrainingError
from rskernels.rsft.task import Epoch, Task, shuffled

# Share of the pool's smallest class that is of the target domain.
TARGET_SHARE = 0.1
LARGEST_ANGLE = math.pi / 3
LARGEST_BLUR = 1.0  # standard deviation, in pixels
RADIUS = 3


class Domains(NamedTuple):
    """Two domains, as the model reads them."""

    source: Samples
    target: Samples
    test: Samples
    counts: Tensor
    """int64 ``[C]``, rows of each class in both."""


def transfer(
    config: GradientConfig, domains: Domains, learner: Learner, generator: torch.Generator
) -> Task:
    """Return the task of a new head on a backbone that stays as the source domain left it.

    All rows of source and target are in the pool. With
    ``ratio="models"`` the two probabilities are those of a row's label by the model of the source,
    and by a copy fine-tuned on the target; with "densities" they are the two domains' densities at
    its features. With ``selection="target"`` the pool are the rows of the target alone, and with
    "weight" the log density is the log ratio, so that `reweight` weighs by it.
    """
    source, target, test, counts = domains
    pool = Samples(*map(torch.cat, zip(source, target, strict=True)))
    model = learner.make(pool.inputs, len(counts), generator)
    settings = fit_settings(config, generator)
    fit(model, source, **settings)
    before = scores_before(model, test, counts)
    if config.ratio == "models":
        adapted = copy.deepcopy(model)
        fit(adapted, target, **settings)
        logits, targets = in_batches(adapted, pool.inputs), pool.labels
        log_q = in_batches(model, pool.inputs).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    else:
        logits = domain_densities(model, source, target, pool)
        targets, log_q = torch.zeros_like(pool.labels), logits[:, 1]
    model.renew_head(generator)
    log_density, read = log_q, logits if config.selection == "reject" else None
    if config.selection == "weight":
        log_density = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0] - log_q
    if config.selection != "reject":
        targets = pool.labels
    rows = torch.arange(len(targets))
    if config.selection == "target":
        rows = rows[-len(target.labels) :]
    return Task.from_samples(
        pool.take(rows),
        test,
        model,
        log_density[rows],
        targets=targets[rows],
        logits=read,
        before=before,
    )


def proposal(
    config: GradientConfig, domains: Domains, learner: Learner, generator: torch.Generator
) -> Task:
    """Return the task of adapting a model to a target domain, of which no label is known.

    The pool is the source, q its density, and p that of the target: an epoch's rows are drawn from
    p by rejection from the pool, or weighed by p/q, or all used.
    """
    source, target, test, counts = domains
    model = learner.make(source.inputs, len(counts), generator)
    fit(model, source, **fit_settings(config, generator))
    before = scores_before(model, test, counts)
    densities = domain_densities(model, source, target, source)
    log_ratio = densities[:, 0] - densities[:, 1]
    labels = source.labels

    def drawn(epoch: int, generator: torch.Generator) -> Epoch:
        seed = int(torch.randint(1 << 62, (), generator=generator))
        draws = draw_rows(log_ratio, len(labels), seed=seed)
        measures = {
            "draw_acceptance": draws.acceptance_rate,
            "draw_log_M": draws.report.log_M,
            "distinct_rows": len(draws.samples.unique()),
        }
        return Epoch(draws.samples, measures)

    order = drawn if config.selection == "reject" else shuffled(len(labels))
    return Task.from_samples(source, test, model, log_ratio, order=order, before=before)


def domains(
    config: GradientConfig,
    data: Data,
    is_target: Tensor | None,
    learner: Learner,
    generator: torch.Generator,
) -> Domains:
    """Return the two domains of a pool.

    Where the files say which rows are of the target, `is_target`, these are it, and the others the
    source. Else the pool is split: the target are a few images, and the source the others, turned
    and blurred.
    """
    if config.data == "multimodal":
        raise DataError(
            f"method={config.method!r} turns and blurs images, of which 'multimodal' is made only "
            "in part"
        )
    check_images(data.pool.inputs, config.method)
    read = learner.features or as_float
    pool, labels = data.pool.inputs, data.pool.labels
    test = Samples(in_batches(read, data.test.inputs, learner.rows), data.test.labels)
    if is_target is not None:
        rows = torch.nonzero(~is_target)[:, 0], torch.nonzero(is_target)[:, 0]
        source, target = (
            Samples(in_batches(lambda at: read(pool[at]), part, learner.rows), labels[part])
            for part in rows
        )
        return Domains(source, target, test, data.counts)
    smallest = int(labels.bincount().min())
    if not round(TARGET_SHARE * smallest):
        cause = "the file" if config.imbalance is None else f"imbalance={config.imbalance}"
        raise DataError(
            f"{cause} leaves {smallest} rows to the rarest class: too few for "
            f"method={config.method!r}, whose target domain takes a share of {TARGET_SHARE}"
        )
    rest, few = split_balanced(labels, TARGET_SHARE, generator)
    angle, width = draw_shift(len(rest), generator)
    moved = in_batches(
        lambda at: read(shift(as_float(pool[rest[at]]), angle[at], width[at])),
        torch.arange(len(rest)),
        learner.rows,
    )
    target = Samples(in_batches(lambda at: read(pool[at]), few, learner.rows), labels[few])
    return Domains(Samples(moved, labels[rest]), target, test, data.counts)


def domain_densities(
    model: SmallNetwork, source: Samples, target: Samples, pool: Samples
) -> Tensor:
    """Return the log densities of target and source at a pool's features, ``[rows, 2]``."""
    return log_domain_densities(
        *(in_batches(model.features, samples.inputs) for samples in (source, target, pool))
    )


def scores_before(model: SmallNetwork, test: Samples, counts: Tensor) -> dict[str, float]:
    """Return the scores on the test set, named as those before the fine-tuning."""
    scores = evaluate(model, test, counts)
    return {f"{name}_before": value for name, value in scores._asdict().items()}


def fit_settings(config: GradientConfig, generator: torch.Generator) -> dict[str, Any]:
    """Return how a model is trained before it is fine-tuned."""
    return {
        "epochs": config.pretrain_epochs,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "momentum": config.momentum,
        "generator": generator,
    }


def draw_shift(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the angle by which each of n images is turned, in ±60°, and the width of its blur.

    Both are float32 ``[n]`` and uniform; the width is at most one pixel.
    """
    angle = LARGEST_ANGLE * (2 * torch.rand(n, generator=generator) - 1)
    return angle, (LARGEST_BLUR * torch.rand(n, generator=generator)).clamp(min=1e-3)


def shift(images: Tensor, angle: Tensor, width: Tensor) -> Tensor:
    """Turn and blur images ``[N, C, H, W]``, each by its own angle and width, ``[N]``.

    What turns in from outside is 0.
    """
    n, channels = images.shape[:2]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(n, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, align_corners=False)
    offset = torch.arange(-RADIUS, RADIUS + 1)
    line = torch.softmax(-((offset / width[:, None]) ** 2) / 2, dim=1)  # [N, 7]
    kernel = (line[:, :, None] * line[:, None, :]).repeat_interleave(channels, dim=0)
    flat = turned.reshape(1, n * channels, *turned.shape[2:])
    blurred = F.conv2d(flat, kernel[:, None], padding=RADIUS, groups=n * channels)
    return blurred.view(images.shape)


def fit(
    model: nn.Module,
    samples: Samples,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    generator: torch.Generator,
) -> None:
    """Train a model plainly, in place: what comes before the fine-tuning.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for _ in range(epochs):
        for rows in torch.randperm(len(samples.labels), generator=generator).split(batch_size):
            loss = F.cross_entropy(model(samples.inputs[rows]), samples.labels[rows])
            if not loss.isfinite():
                raise TrainingError(
                    f"before the fine-tuning, the loss is {float(loss.detach())}; "
                    f"a smaller lr than {lr} may help"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def check_images(inputs: Tensor, method: str) -> None:
    """Raise DataError if the inputs cannot be turned and blurred."""
    if inputs.dim() != 4:
        raise DataError(f"method={method!r} turns and blurs images, the data are a table")
