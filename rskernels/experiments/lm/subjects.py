"""The tasks, and how many tokens are spent on each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rskernels.language.task import Task
from rskernels.language.tasks import task_of


# Each is itself alone, so that what is kept of one can be found again.
@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A task, and what every method has to spend on it.

    Attributes
    ----------
    name : str
        Of the task.
    form : {"verifier", "bounded"}
        Of its exact tilt; rewards are at most 1.
    longest : int
        The most tokens of an answer.
    generated, trained : int
        Tokens of a round that are generated, and that have a gradient.
    step : int
        Tokens of a gradient step.
    samples : int
        Answers to a prompt.
    rounds : int
        How many.
    tested, answers : int
        Held-out prompts, and answers to each.
    part : float
        Of the demonstrations that the starting model usually has.
    able : float
        Of the long answers of parity that a starting model gives, the part that must be right: one
        that has not learnt to add has nothing to select. It is made again by another seed.
    enumerated : int
        Held-out prompts whose law is enumerated.
    options : dict
        Of the task.
    """

    name: str
    form: str
    longest: int
    generated: int
    trained: int
    step: int
    samples: int = 32
    rounds: int = 3
    tested: int = 80
    answers: int = 16
    part: float = 1.0
    able: float = 0.0
    enumerated: int = 0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def task(self, seed: int) -> Task:
        """Return the task of a seed."""
        return task_of(self.name, seed, **self.options)


SUBJECTS = (
    Subject(
        name="arithmetic",
        form="verifier",
        longest=11,
        generated=36_000,
        trained=18_000,
        step=600,
    ),
    Subject(
        name="parity",
        form="verifier",
        longest=13,
        generated=24_000,
        trained=12_000,
        step=600,
        able=0.9,
    ),
    Subject(
        name="graph",
        form="bounded",
        longest=7,
        generated=24_000,
        trained=12_000,
        step=400,
        enumerated=24,
        options={"reward": "toll"},
    ),
)
"""In the order of the report."""
