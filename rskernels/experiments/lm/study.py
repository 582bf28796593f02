"""All runs, each kept in a file so that an interrupted study goes on."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rskernels.experiments.lm import measure as measuring
from rskernels.experiments.lm import methods, train
from rskernels.experiments.lm.measure import Start, enumerated_of, is_able, measure
from rskernels.experiments.lm.methods import GRADIENT, NAMED, RENEWED, ROWS
from rskernels.experiments.lm.rates import GRID, TUNED_ON, rate_of, score_of
from rskernels.experiments.lm.subjects import SUBJECTS, Subject
from rskernels.experiments.lm.train import NothingSelectedError, run_method
from rskernels.experiments.resumable import Made, Piece, make_pieces
from rskernels.language.config import LanguageConfig
from rskernels.language.policy import Policy, load
from rskernels.language.scratch import write_start
from rskernels.language.scratch.start import LENGTH
from rskernels.language.scratch.start import STARTS as MODELS
from rskernels.language.task import Task
from rskernels.rsft.errors import CheckpointError, TrainingError

STARTS, SETTINGS = "starts", "settings.json"
START = "start"
READY = "ready"
TURNS, ASIDE = 5, 1000
"""Tries to make a starting model, and how far apart their seeds are."""


class Size(NamedTuple):
    """How much is run."""

    subjects: tuple[Subject, ...]
    methods: tuple[str, ...]
    seeds: range
    grid: Mapping[str, tuple[float, ...]] = GRID
    """Learning rates that are tried, by the kind of a method."""
    tuned_on: range = TUNED_ON
    """Seeds that they are tried on."""


class Study(NamedTuple):
    """What is made of a study."""

    runs: list[Piece]
    trials: list[Piece]
    """Of learning rates."""


FULL = Size(SUBJECTS, tuple(NAMED), range(10))


def _brief(subject: Subject) -> Subject:
    return dataclasses.replace(
        subject, generated=4000, trained=1200, samples=8, rounds=2, tested=10, answers=4, part=0.2,
        able=0.0, enumerated=2 if subject.enumerated else 0,
    )  # fmt: skip


_MIDDLE = {ROWS: (3e-3,), GRADIENT: (1e-4,), RENEWED: (4e-4,)}
QUICK = Size(tuple(map(_brief, SUBJECTS)), tuple(NAMED), range(1), _MIDDLE, range(0))


def choose(size: Size, *, tasks: list[str] | None, methods: list[str] | None, seeds: range) -> Size:
    """Return some of the tasks and methods, and other seeds.

    Raises
    ------
    ValueError
        If a name is not known.
    """
    known = [subject.name for subject in size.subjects]
    for names, accepted in ((tasks, known), (methods, list(size.methods))):
        unknown = [name for name in names or () if name not in accepted]
        if unknown:
            raise ValueError(f"accepted are {', '.join(accepted)}, got {unknown[0]!r}")
    if set(seeds) & set(size.tuned_on):
        first, last = size.tuned_on[0], size.tuned_on[-1]
        raise ValueError(f"learning rates are chosen by the seeds {first} to {last}: give others")
    return size._replace(
        subjects=tuple(s for s in size.subjects if tasks is None or s.name in tasks),
        methods=tuple(key for key in size.methods if methods is None or key in methods),
        seeds=seeds,
    )


def run_study(
    size: Size,
    folder: Path,
    say: Callable[[str], None],
    *,
    jobs: int = 1,
    minutes: float | None = None,
) -> Study:
    """Make the runs that ``folder`` lacks, and return all there are.

    Trials of learning rates come first: a method runs once all of its own are made.

    Parameters
    ----------
    size : Size
        How much.
    folder : Path
        Of the runs, and in ``starts`` of the starting models, one of each task and seed.
    say : callable
        Told of each run that was made.
    jobs : int
        Processes at a time, each of one thread.
    minutes : float, optional
        After which no further run is begun.
    """
    check_settings(size, folder)
    end = None if minutes is None else time.monotonic() + 60.0 * minutes

    def make(pieces: list[Made]) -> list[Piece]:
        left = None if end is None else (end - time.monotonic()) / 60.0
        return make_pieces(pieces, folder, say, jobs=jobs, minutes=left)

    trials = make(_trials(size, folder))
    return Study(make(_runs(size, folder, trials)), trials)


def settings_of(size: Size) -> dict[str, Any]:
    """Return what decides the runs of each task, as JSON: of it, of the methods, of the model."""
    config = LanguageConfig()
    constants = {
        "beta": methods.BETA, "betas": methods.BETAS, "share": methods.SHARE,
        "least": methods.LEAST, "fresh": methods.FRESH, "budget": train.BUDGET,
        "half_life": train.HALF_LIFE, "few": measuring.FEW, "looked_at": measuring.LOOKED_AT,
        "weight_decay": config.weight_decay, "clip": config.clip, "turns": TURNS, "aside": ASIDE,
        "grid": size.grid, "tuned_on": list(size.tuned_on),
    }  # fmt: skip
    of = {}
    for subject in size.subjects:
        made = MODELS[subject.name]
        model = {
            "layers": made.layers, "width": made.width, "batch": made.batch, "rotary": made.rotary,
            "length": LENGTH, "lessons": [lesson._asdict() for lesson in made.lessons],
        }  # fmt: skip
        of[subject.name] = {**dataclasses.asdict(subject), "constants": constants, "model": model}
    settings: dict[str, Any] = json.loads(json.dumps(of))
    return settings


def check_settings(size: Size, folder: Path) -> None:
    """Raise CheckpointError if a folder has runs of other settings; else note these there."""
    folder.mkdir(parents=True, exist_ok=True)
    path, settings = folder / SETTINGS, settings_of(size)
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in settings.keys() & there.keys():
        if settings[name] != there[name]:
            raise CheckpointError(f"{folder} has runs of {name} with other settings")
    path.write_text(json.dumps({**there, **settings}, indent=1) + "\n", encoding="utf-8")


def _trials(size: Size, folder: Path) -> list[Made]:
    """Return the trials of learning rates; none of a method that has a single one.

    Tasks take turns, so that processes do not wait for one another's starting models.
    """
    return [
        (trial_name(subject.name, seed, key, lr), partial(try_rate, subject, key, seed, lr, folder))
        for seed in size.tuned_on
        for key in size.methods
        for lr in size.grid[NAMED[key].kind]
        for subject in size.subjects
        if len(size.grid[NAMED[key].kind]) > 1
    ]


def _runs(size: Size, folder: Path, trials: list[Piece]) -> list[Made]:
    """Return the runs, seed by seed, so that what there is early is of all methods.

    A seed's starting models are made first, so that few processes wait for one.
    """
    known = {
        (subject, key): rate_of(trials, subject.name, key, size.grid, size.tuned_on)
        for subject in size.subjects
        for key in size.methods
    }
    rates = {of: lr for of, lr in known.items() if lr is not None}
    made: list[Made] = []
    for seed in size.seeds:
        made += [
            (run_name(subject.name, seed, START), partial(measure_start, subject, seed, folder))
            for subject in dict.fromkeys(subject for subject, _ in rates)
        ]
        made += [
            (run_name(subject.name, seed, key), partial(make_run, subject, key, seed, lr, folder))
            for (subject, key), lr in rates.items()
        ]
    return made


def run_name(task: str, seed: int, method: str) -> str:
    """Return the name of a run's file."""
    return f"{task}-{seed}-{method}"


def trial_name(task: str, seed: int, method: str, lr: float) -> str:
    """Return the name of the file of a learning rate's trial."""
    return f"tuning-{run_name(task, seed, method)}-{lr:g}"


def measure_start(subject: Subject, seed: int, folder: Path) -> Piece:
    """Measure the starting model, which is made where it is not there."""
    torch.set_num_threads(1)
    task, start = start_of(subject, seed, folder)
    seen = measure(subject, task, start.policy, start, 0, seed, is_last=True)
    return {**_named(subject, seed, START), "course": [], "end": seen}


def make_run(subject: Subject, key: str, seed: int, lr: float, folder: Path) -> Piece:
    """Make a run."""
    torch.set_num_threads(1)
    task, start = start_of(subject, seed, folder)
    policy = policy_at(path_of(subject, seed, folder), seed)
    ran = run_method(NAMED[key], subject, task, policy, start, seed, lr)
    return {**_named(subject, seed, key), "lr": lr, **ran}


def try_rate(subject: Subject, key: str, seed: int, lr: float, folder: Path) -> Piece:
    """Make a run, and return its score alone: 0 where the rate left no answer to be trained on."""
    try:
        score = score_of(subject, make_run(subject, key, seed, lr, folder)["end"])
    except NothingSelectedError:
        score = 0.0
    return {**_named(subject, seed, key), "lr": lr, "score": score}


def _named(subject: Subject, seed: int, key: str) -> Piece:
    version = torch.__version__.partition("+")[0]
    return {"task": subject.name, "seed": seed, "method": key, "torch": version}


def start_of(subject: Subject, seed: int, folder: Path) -> tuple[Task, Start]:
    """Return the task of a seed, and what is known of its starting model.

    The model is made where it is not there. Of the methods of a seed only the first takes long.
    """
    return _known(json.dumps(dataclasses.asdict(subject)), seed, folder)


# By what a subject says: one that has come to another process is equal to none. As many as there
# are tasks, which take turns where a process makes only starting models.
@lru_cache(maxsize=len(SUBJECTS))
def _known(said: str, seed: int, folder: Path) -> tuple[Task, Start]:
    subject = Subject(**json.loads(said))
    task, path = subject.task(seed), path_of(subject, seed, folder)
    with _alone(path):
        if not (path / READY).exists():
            make_start(subject, task, path, seed)
    own = json.loads((path / "start.json").read_text(encoding="utf-8"))["seed"]
    before = policy_at(path, seed)
    return task, Start(before, enumerated_of(subject, task, before), own)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes this starting model; one that dies lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_start(subject: Subject, task: Task, path: Path, seed: int) -> None:
    """Make a starting model, again by another seed where it is not able.

    ``path`` is there only when all of it is; it must not be there yet, or be empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
        made = Path(part) / "model"
        for turn in range(TURNS):
            write_start(subject.name, task, made, seed=seed + ASIDE * turn, part=subject.part)
            if is_able(subject, task, policy_at(made, seed), seed):
                (made / READY).touch()
                made.replace(path)
                return
    raise TrainingError(f"none of {TURNS} starting models of {subject.name} was able")


def path_of(subject: Subject, seed: int, folder: Path) -> Path:
    """Return the folder of a starting model."""
    return folder / STARTS / f"{subject.name}-{seed}"


def policy_at(folder: Path, seed: int) -> Policy:
    """Read a starting model."""
    return load(LanguageConfig(model=str(folder), seed=seed), torch.device("cpu"))
