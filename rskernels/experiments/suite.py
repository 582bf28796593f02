"""The experiments that ``rskernels compare`` runs: what is compared, on what data."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rskernels.experiments.config import GradientConfig
from rskernels.experiments.data_config import IMBALANCE


class Case(NamedTuple):
    """One of the ways to train that an experiment compares.

    Attributes
    ----------
    name : str
        In tables and folders; no other case of the experiment has it.
    options : dict
        Of `GradientConfig`, besides the experiment's.
    is_baseline : bool
        Whether it is what a practitioner would use instead of rejection.
    """

    name: str
    options: dict[str, Any]
    is_baseline: bool = True


class Experiment(NamedTuple):
    """Cases on the same data, split and initial weights, seed by seed.

    Attributes
    ----------
    name : str
        In tables and folders.
    title : str
        What is asked, in a line of Markdown.
    options : dict
        Of `GradientConfig`, for all cases.
    cases : tuple of Case
        The first is what the others are paired with.
    quick : dict
        Options with which it takes seconds, ``epochs`` among them.
    has_before : bool
        Whether the model that the fine-tuning starts from is compared too.
    """

    name: str
    title: str
    options: dict[str, Any]
    cases: tuple[Case, ...]
    quick: dict[str, Any]
    has_before: bool = False


# What the name of a case ends in whose M the pilot pass has fixed.
FROZEN = ", fixed by the pilot"


class ExperimentRun(NamedTuple):
    """One run of an experiment: a case and a seed."""

    experiment: str
    case: str
    config: GradientConfig


def accept(envelope: str, **options: Any) -> Case:
    """Return the case of `accept` with a policy of M."""
    name = f"accept, M {envelope}{FROZEN if options.get('freeze') else ''}"
    if "epochs" in options:
        name += f", {options['epochs']} epochs"
    return Case(name, {"method": "accept", "envelope": envelope, **options}, False)


def baselines(**undersampling: Any) -> tuple[Case, ...]:
    """Return what one would use instead of rejection, with options of undersampling."""
    return (
        Case("plain", {"method": "plain"}),
        Case("class weights", {"method": "reweight"}),
        Case("oversampling", {"method": "oversample"}),
        Case("undersampling", {"method": "undersample", **undersampling}),
        Case("importance weights", {"method": "importance"}),
    )


def balance(undersampling_epochs: int) -> tuple[Case, ...]:
    """Return the cases of class balance.

    An epoch of undersampling is a fraction of the others': it gets as many more.
    """
    return (
        *baselines(epochs=undersampling_epochs),
        accept("max"),
        accept("quantile:0.9"),
        accept("budget:0.5"),
        Case("control, M quantile:0.9", {"method": "control", "envelope": "quantile:0.9"}, False),
    )


TRANSFER = {"method": "transfer"}
PROPOSAL = {"method": "proposal"}

EXPERIMENTS = (
    Experiment(
        "digits",
        "Class balance: handwritten digits, ten classes, the most frequent 20 times the rarest",
        {"data": "digits", "imbalance": 20.0},
        balance(205),
        {"epochs": 4},
    ),
    Experiment(
        "wine",
        "Class balance: wine, a table of three classes, the most frequent 10 times the rarest",
        {"data": "wine", "imbalance": 10.0, "epochs": 60, "batch_size": 16, "lr": 0.02},
        balance(280),
        {"epochs": 4},
    ),
    Experiment(
        "breast-cancer",
        "Class balance: breast cancer, a table of two classes, one 20 times the other",
        {"data": "breast_cancer", "imbalance": 20.0, "batch_size": 16, "lr": 0.02},
        balance(315),
        {"epochs": 4},
    ),
    Experiment(
        "multimodal",
        "Modality and class balance: digits as images, speech and mistyped words, 20 : 4 : 1, each "
        "with its most frequent class 5 times the rarest",
        {"data": "multimodal", "epochs": 40, "lr": 0.02},
        # Of three modalities few rows are accepted: as many epochs as undersampling has.
        (
            *balance(200),
            accept("quantile:0.9", epochs=200),
            accept("budget:0.5", epochs=200),
        ),
        {"epochs": 2},
    ),
    Experiment(
        "transfer",
        "Shift: a new head on a frozen backbone, from turned and blurred digits, and a few clean "
        "ones, to clean digits",
        {"data": "digits"},
        (
            Case("all rows", {**TRANSFER, "selection": "all"}),
            Case("target rows alone", {**TRANSFER, "selection": "target"}),
            Case("weights p/q of models", {**TRANSFER, "selection": "weight"}),
            Case(
                "weights p/q of densities",
                {**TRANSFER, "selection": "weight", "ratio": "densities"},
            ),
            Case("transfer, models", TRANSFER, False),
            Case("transfer, densities", {**TRANSFER, "ratio": "densities"}, False),
        ),
        {"epochs": 2, "pretrain_epochs": 2},
        has_before=True,
    ),
    Experiment(
        "proposal",
        "Shift: a model of turned and blurred digits adapted to clean ones, of which no label is "
        "known",
        {"data": "digits"},
        (
            Case("all rows", {**PROPOSAL, "selection": "all"}),
            Case("weights p/q", {**PROPOSAL, "selection": "weight"}),
            Case("proposal", PROPOSAL, False),
        ),
        {"epochs": 2, "pretrain_epochs": 2},
        has_before=True,
    ),
    Experiment(
        "drift",
        "Drift: digits whose class priors move from a long tail, 20 to 1, to its reverse",
        {"data": "digits", "imbalance": 20.0, "drift": 30},
        (
            *baselines(),
            accept("decayed"),
            accept("decayed", freeze=True),
            accept("quantile:0.9"),
            accept("quantile:0.9", freeze=True),
            accept("budget:0.5"),
        ),
        {"epochs": 4, "drift": 4},
    ),
)
# Run where they are named, since they need packages of other extras.
NAMED = (
    Experiment(
        "text",
        "Class balance: a small BERT, from scratch, on made-up texts of ten classes, Zipf from 400 "
        "to 40",
        {"data": "bigrams", "epochs": 20, "lr": 0.02},
        (
            Case("plain", {"method": "plain"}),
            Case("class weights", {"method": "reweight"}),
            Case("oversampling", {"method": "oversample"}),
            accept("quantile:0.9"),
            accept("budget:0.5"),
        ),
        {"epochs": 2},
    ),
)
DEMO_CASES = (
    "plain",
    "class weights",
    "importance weights",
    "accept, M max",
    "accept, M quantile:0.9",
)
DEMO = Experiment(
    "demo",
    "Class balance: long-tailed handwritten digits",
    {"data": "digits", "imbalance": IMBALANCE},
    tuple(case for case in balance(205) if case.name in DEMO_CASES),
    {"epochs": 1},
)


def choose(
    experiments: Sequence[Experiment],
    *,
    names: Iterable[str] | None = None,
    cases: Iterable[str] | None = None,
) -> tuple[Experiment, ...]:
    """Return experiments by name, with some of their cases and always the first.

    Raises
    ------
    ValueError
        If there is none of a name.
    """
    check_names("experiment", names or (), [e.name for e in experiments])
    chosen = [e for e in experiments if names is None or e.name in names]
    if cases is not None:
        check_names("case", cases, [case.name for e in chosen for case in e.cases])
        kept = [
            e._replace(cases=(e.cases[0], *(c for c in e.cases[1:] if c.name in cases)))
            for e in chosen
        ]
        chosen = [e for e in kept if {c.name for c in e.cases} & {*cases}]
    return tuple(chosen)


def check_names(kind: str, names: Iterable[str], accepted: Sequence[str]) -> None:
    """Raise ValueError if a name is not accepted."""
    unknown = [name for name in names if name not in accepted]
    if unknown:
        raise ValueError(
            f"{kind} {unknown[0]!r}: accepted are {'; '.join(dict.fromkeys(accepted))}"
        )


def make_runs(
    experiments: Sequence[Experiment], *, seeds: int, first_seed: int = 0, quick: bool = False
) -> list[ExperimentRun]:
    """Return every run, all cases of a seed before the next seed.

    So a machine that is slower for a while is so for all cases, and what is there after an
    interruption compares like with like.

    Raises
    ------
    ValueError
        If a configuration is refused.
    """
    return [
        ExperimentRun(experiment.name, case.name, _config(experiment, case, seed, quick))
        for seed, experiment in itertools.product(
            range(first_seed, first_seed + seeds), experiments
        )
        for case in experiment.cases
    ]


def _config(experiment: Experiment, case: Case, seed: int, quick: bool) -> GradientConfig:
    config = GradientConfig(**{**experiment.options, **case.options}, seed=seed)
    if not quick:
        return config
    # A case that trains longer than the others still does.
    times = config.epochs / GradientConfig(**experiment.options).epochs
    quickly = {**experiment.quick, "epochs": math.ceil(experiment.quick["epochs"] * times)}
    return dataclasses.replace(config, **quickly)
