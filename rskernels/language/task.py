"""What a language model is fine-tuned on: prompts, and a reward of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Reward = Callable[..., Any]
"""``reward(prompts, completions, **columns) -> list[float]``, as TRL calls it: all are lists of one
length, a column of the rows each. It may be ``async``. None is no reward."""


@dataclass(frozen=True)
class Task:
    """Prompts to train on, prompts that are held out, and what an answer is worth.

    Attributes
    ----------
    name : str
        For reports.
    train, test : list of dict
        Rows with ``"prompt"``, a str, and any further columns, such as ``"answer"``, which the
        reward is given. All rows have the same columns.
    reward : callable
        ``reward(prompts, completions, **columns) -> list[float]``, as TRL's, also ``async``. None
        in the list is no reward. It must be a function of its arguments alone: it is called
        again when a run is resumed.
    key : callable, optional
        The canonical form of an answer: right answers of equal keys count as one where distinct
        right answers are counted. None: the answer without white space at its ends.
    measures : dict of str to callable
        What else is measured of answers to held-out prompts, by name: a number of an answer, of
        which the mean is reported. None by default.
    parts : dict of str to Task
        Of a task that `mixed` made, the tasks that it is of; its rows have ``"task"``.
    """

    name: str
    train: list[Row] = field(repr=False)
    test: list[Row] = field(repr=False)
    reward: Reward
    key: Callable[[str], str] | None = None
    measures: Mapping[str, Callable[[str], float]] = field(default_factory=dict)
    parts: Mapping[str, Task] = field(default_factory=dict)
