"""What the gradient loop trains on, by method: rows, densities, the model, and an epoch's order."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rskernels.experiments.multimodal.network import (
    NAMES,
    MultimodalNetwork,
    accuracy_of_each,
    modality_of,
)
from rskernels.experiments.networks import SmallNetwork, make_model
from rskernels.rsft.artifacts.metrics import evaluate
from rskernels.rsft.data.bundled import Data, log_class_balance, long_tail_counts, split_balanced
from rskernels.rsft.data.draw import draw_rows
from rskernels.rsft.data.drift import draw_stream, priors
from rskernels.rsft.data.resample import RESAMPLERS, Resampler
from rskernels.rsft.data.samples import DataError, Samples
from rskernels.rsft.methods.config import Config, load
from rskernels.rsft.methods.transfer import (
    check_images,
    fit,
    in_batches,
    log_domain_densities,
    turn_and_blur,
)

# Share of the pool's smallest class that is of the target domain.
TARGET_SHARE = 0.1


class Epoch(NamedTuple):
    """The rows of an epoch.

    Attributes
    ----------
    rows : Tensor
        int64 ``[n]``, in the order in which they come.
    told : dict
        What there is to tell of them.
    log_density : Tensor, optional
        float32 ``[rows of the pool]``, where it moves; None is that of the task.
    """

    rows: Tensor
    told: dict[str, float]
    log_density: Tensor | None = None


# Number of the epoch, from 0, and generator.
Order = Callable[[int, torch.Generator], Epoch]


class Task(NamedTuple):
    """What the loop trains on.

    Attributes
    ----------
    pool, test : Samples
        To train on and to be judged on.
    counts : Tensor
        int64 ``[C]``, rows of each class in the pool.
    log_density : Tensor
        float32 ``[rows of the pool]``, what a rule weighs the model's probability against.
    model : SmallNetwork
        To train; its parameters that require no grad stay as they are.
    logits : Tensor, optional
        ``[rows of the pool, K]``, what a rule reads of each row; None are those of the model.
    targets : Tensor
        int64 ``[rows of the pool]``, the column of those logits.
    order : callable
        The number of an epoch and a generator to its rows.
    pilot : Tensor
        int64 ``[n]``, rows as the first epoch has them, from which M is first learnt.
    about : dict
        What the summary tells of what came before.
    modality : Tensor, optional
        int64 ``[rows of the pool]``, places in `modalities`; None where there is one.
    modalities : tuple of str
        Their names.
    tell : callable
        What an epoch's record tells besides, of the model as it is then.
    """

    pool: Samples
    test: Samples
    counts: Tensor
    log_density: Tensor
    model: SmallNetwork
    logits: Tensor | None
    targets: Tensor
    order: Order
    pilot: Tensor
    about: dict[str, float]
    modality: Tensor | None = None
    modalities: tuple[str, ...] = ()
    tell: Callable[[SmallNetwork], dict[str, float]] = lambda model: {}


def make_task(config: Config, generator: torch.Generator) -> Task:
    """Load the data of a run and prepare what its method needs.

    Raises
    ------
    DataError
        If the data are not to be had, or not such as the method needs.
    """
    data = load(config, generator)
    usual = multimodal if config.data == "multimodal" else class_balance
    return TASKS.get(config.method, usual)(config, data, generator)


def class_balance(config: Config, data: Data, generator: torch.Generator) -> Task:
    """Return the task of a long-tailed pool, whose wanted density is uniform over the classes."""
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
    model = make_model(data.pool.inputs, len(data.counts), generator)
    return Task(*data, log_density, model, None, labels, order, pilot, {})


def multimodal(config: Config, data: Data, generator: torch.Generator) -> Task:
    """Return the task of a pool of several modalities: wanted is uniform over classes of each."""
    classes, labels = len(data.counts), data.pool.labels
    modality = modality_of(data.pool.inputs)
    cell = modality * classes + labels
    log_p_hat = log_class_balance(cell.bincount(minlength=len(NAMES) * classes))
    model = MultimodalNetwork(classes, generator)
    rows = modality.bincount().tolist()
    order = shuffled(len(labels))
    if config.method in RESAMPLERS:
        order = resampled(order, cell, RESAMPLERS[config.method])
    return Task(
        *data,
        log_p_hat[cell],
        model,
        None,
        labels,
        order,
        torch.arange(len(labels)),
        {f"pool_{name}": many for name, many in zip(NAMES, rows, strict=True)},
        modality,
        NAMES,
        lambda model: accuracy_of_each(model, data),
    )


def transfer(config: Config, data: Data, generator: torch.Generator) -> Task:
    """Return the task of a new head on a backbone that stays as the source domain left it.

    The source are turned and blurred images, the target a few clean ones; all are in the pool. With
    ``ratio="models"`` the two probabilities are those of a row's label by the model of the source,
    and by a copy fine-tuned on the target; with "densities" they are the two domains' densities at
    its features. With ``selection="target"`` the pool are the few clean ones alone, and with
    "weight" the log density is the log ratio, so that `reweight` weighs by it.
    """
    source, target = shifted(config, data, generator)
    pool = Samples(*map(torch.cat, zip(source, target, strict=True)))
    model = make_model(pool.inputs, len(data.counts), generator)
    settings = fit_settings(config, generator)
    fit(model, source, **settings)
    about = scores_before(model, data)
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
    counts = pool.labels[rows].bincount(minlength=len(data.counts))
    return Task(
        pool.take(rows),
        data.test,
        counts,
        log_density[rows],
        model,
        read,
        targets[rows],
        shuffled(len(rows)),
        torch.arange(len(rows)),
        about,
    )


def proposal(config: Config, data: Data, generator: torch.Generator) -> Task:
    """Return the task of adapting a model to clean images, of which no label is known.

    The pool are turned and blurred images, q their density, and p that of a few clean ones: an
    epoch's rows are drawn from p by rejection from the pool, or weighed by p/q, or all used.
    """
    source, target = shifted(config, data, generator)
    model = make_model(source.inputs, len(data.counts), generator)
    fit(model, source, **fit_settings(config, generator))
    about = scores_before(model, data)
    densities = domain_densities(model, source, target, source)
    log_ratio = densities[:, 0] - densities[:, 1]
    labels = source.labels

    def drawn(epoch: int, generator: torch.Generator) -> Epoch:
        seed = int(torch.randint(1 << 62, (), generator=generator))
        found = draw_rows(log_ratio, len(labels), seed=seed)
        told = {
            "draw_acceptance": found.acceptance_rate,
            "draw_log_M": found.report.log_M,
            "distinct_rows": len(found.samples.unique()),
        }
        return Epoch(found.samples, told)

    order = drawn if config.selection == "reject" else shuffled(len(labels))
    counts, pilot = labels.bincount(minlength=len(data.counts)), torch.arange(len(labels))
    return Task(source, data.test, counts, log_ratio, model, None, labels, order, pilot, about)


TASKS: dict[str, Callable[[Config, Data, torch.Generator], Task]] = {
    "transfer": transfer,
    "proposal": proposal,
}


def shifted(config: Config, data: Data, generator: torch.Generator) -> tuple[Samples, Samples]:
    """Split a pool of clean images into a source, turned and blurred, and a small target."""
    if config.data == "multimodal":
        raise DataError(
            f"method={config.method!r} turns and blurs images, of which 'multimodal' is made only "
            "in part"
        )
    check_images(data.pool.inputs, config.method)
    smallest = int(data.pool.labels.bincount().min())
    if not round(TARGET_SHARE * smallest):
        raise DataError(
            f"imbalance={config.imbalance} leaves {smallest} rows to the rarest class: too few for "
            f"method={config.method!r}, whose target domain takes a share of {TARGET_SHARE}"
        )
    rest, few = split_balanced(data.pool.labels, TARGET_SHARE, generator)
    source, target = data.pool.take(rest), data.pool.take(few)
    return Samples(turn_and_blur(source.inputs, generator), source.labels), target


def domain_densities(
    model: SmallNetwork, source: Samples, target: Samples, pool: Samples
) -> Tensor:
    """Return the log densities of target and source at a pool's features, ``[rows, 2]``."""
    return log_domain_densities(
        *(in_batches(model.features, samples.inputs) for samples in (source, target, pool))
    )


def shuffled(rows: int) -> Order:
    """Return the order in which every row comes once."""
    return lambda epoch, generator: Epoch(torch.randperm(rows, generator=generator), {})


def drifting(config: Config, data: Data, generator: torch.Generator) -> Order:
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


def resampled(order: Order, labels: Tensor, resample: Resampler) -> Order:
    """Return an order of which a baseline repeats, or leaves out, rows."""

    def resampled_order(number: int, generator: torch.Generator) -> Epoch:
        epoch = order(number, generator)
        return epoch._replace(rows=epoch.rows[resample(labels[epoch.rows], generator)])

    return resampled_order


def scores_before(model: SmallNetwork, data: Data) -> dict[str, float]:
    """Return the scores on the test set, named as those before the fine-tuning."""
    scores = evaluate(model, data.test, data.counts)
    return {f"{name}_before": value for name, value in scores._asdict().items()}


def fit_settings(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Return how a model is trained before it is fine-tuned."""
    return {
        "epochs": config.pretrain_epochs,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "momentum": config.momentum,
        "generator": generator,
    }
