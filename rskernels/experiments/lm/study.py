"""All runs, each kept in a file so that an interrupted study goes on."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rskernels.experiments.lm import measure as measuring
from rskernels.experiments.lm import methods, train
from rskernels.experiments.lm.measure import Start, enumerated_of, is_able, measure
from rskernels.experiments.lm.methods import NAMED
from rskernels.experiments.lm.subjects import SUBJECTS, Subject
from rskernels.experiments.lm.train import run_method
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


FULL = Size(SUBJECTS, tuple(NAMED), range(10))


def _brief(subject: Subject) -> Subject:
    return dataclasses.replace(
        subject, generated=4000, trained=1200, samples=8, rounds=2, tested=10, answers=4, part=0.2,
        able=0.0, enumerated=2 if subject.enumerated else 0,
    )  # fmt: skip


QUICK = Size(tuple(map(_brief, SUBJECTS)), tuple(NAMED), range(1))


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
    return Size(
        tuple(s for s in size.subjects if tasks is None or s.name in tasks),
        tuple(key for key in size.methods if methods is None or key in methods),
        seeds,
    )


def run_study(
    size: Size,
    folder: Path,
    say: Callable[[str], None],
    *,
    jobs: int = 1,
    minutes: float | None = None,
) -> list[Piece]:
    """Make the runs that ``folder`` lacks, and return all there are.

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
    return make_pieces(_pieces(size, folder), folder, say, jobs=jobs, minutes=minutes)


def settings_of(size: Size) -> dict[str, Any]:
    """Return what decides the runs of each task, as JSON: of it, of the methods, of the model."""
    config = LanguageConfig()
    constants = {
        "beta": methods.BETA, "betas": methods.BETAS, "share": methods.SHARE,
        "least": methods.LEAST, "fresh": methods.FRESH, "budget": train.BUDGET,
        "half_life": train.HALF_LIFE, "few": measuring.FEW, "looked_at": measuring.LOOKED_AT,
        "weight_decay": config.weight_decay, "clip": config.clip, "turns": TURNS, "aside": ASIDE,
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


def _pieces(size: Size, folder: Path) -> list[Made]:
    """Return the runs, seed by seed, so that what there is early is of all methods.

    A seed's starting models are made first, so that few processes wait for one.
    """
    return [
        (f"{subject.name}-{seed}-{key}", partial(make_run, subject, key, seed, folder))
        for seed in size.seeds
        for keys in ((START,), size.methods)
        for subject in size.subjects
        for key in keys
    ]


def make_run(subject: Subject, key: str, seed: int, folder: Path) -> Piece:
    """Make a run, or measure the starting model, which is made where it is not there."""
    torch.set_num_threads(1)
    version = torch.__version__.partition("+")[0]
    named = {"task": subject.name, "seed": seed, "method": key, "torch": version}
    task, start = start_of(subject, seed, folder)
    if key == START:
        seen = measure(subject, task, start.policy, start, 0, seed, is_last=True)
        return {**named, "course": [], "end": seen}
    policy = policy_at(path_of(subject, seed, folder), seed)
    return {**named, **run_method(NAMED[key], subject, task, policy, start, seed)}


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
