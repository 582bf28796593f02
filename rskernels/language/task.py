"""What a language model is fine-tuned on: prompts, and a reward of an answer."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Thread
from typing import Any

from rskernels.rsft.errors import DataError, TrainingError

SHOWN = 60  # characters of a prompt that is named

Row = dict[str, Any]
Reward = Callable[..., Any]
"""``reward(prompts, completions, **columns) -> list[float]``, as TRL calls it: each argument is a
list with an entry a row. It may be ``async``. None in what it returns means no reward."""


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
        The tasks that `mixed` joined to this one, by name; its rows then have ``"task"``.
    """

    name: str
    train: list[Row] = field(repr=False)
    test: list[Row] = field(repr=False)
    reward: Reward
    key: Callable[[str], str] | None = None
    measures: Mapping[str, Callable[[str], float]] = field(default_factory=dict)
    parts: Mapping[str, Task] = field(default_factory=dict)


def mixed(tasks: Sequence[Task]) -> Task:
    """Return a task with the prompts of several.

    Parameters
    ----------
    tasks : sequence of Task
        Of names that differ.

    Returns
    -------
    Task
        Its rows have ``"prompt"``, ``"task"``, the name of the task that the prompt is from, and
        ``"row"``, the row there. Rows of the tasks alternate for as long as each has some. What is
        measured of the whole is measured of each task, too, under its name.

    Raises
    ------
    ValueError
        If there is none, or two have one name.
    DataError
        If one trains on a prompt that another holds out.
    """
    parts = {task.name: task for task in tasks}
    if not parts or len(parts) < len(tasks):
        names = ", ".join(task.name for task in tasks)
        raise ValueError(f"needed are tasks of names that differ, got {names or 'none'}")
    _refuse_leaks(tasks)

    def reward(
        prompts: list[str], completions: list[str], task: list[str], row: list[Row], **others: Any
    ) -> list[float]:
        values = [0.0] * len(prompts)
        for name in dict.fromkeys(task):
            at = [place for place, of in enumerate(task) if of == name]
            got = rewards_of(
                parts[name],
                [row[place] for place in at],
                [prompts[place] for place in at],
                [completions[place] for place in at],
            )
            for place, value in zip(at, got, strict=True):
                values[place] = value
        return values

    train, test = (
        [
            {"prompt": row.get("prompt"), "task": name, "row": row}
            for turn in itertools.zip_longest(*(getattr(task, kind) for task in tasks))
            for name, row in zip(parts, turn, strict=True)
            if row is not None
        ]
        for kind in ("train", "test")
    )
    return Task(" and ".join(parts), train, test, reward, parts=parts)


def _refuse_leaks(tasks: Sequence[Task]) -> None:
    """Raise DataError if a task trains on prompts that another of them holds out."""
    asked, held = (
        # A prompt that is no text is refused later, by `check_task`.
        [
            dict.fromkeys(
                p for row in getattr(task, kind) if isinstance(p := row.get("prompt"), str)
            )
            for task in tasks
        ]
        for kind in ("train", "test")
    )
    for at, other in itertools.permutations(range(len(tasks)), 2):
        common = [prompt for prompt in held[at] if prompt in asked[other]]
        if common:
            raise DataError(
                f"{len(common)} of the {len(held[at])} prompts that the task {tasks[at].name} "
                f"holds out are trained on by {tasks[other].name}, the first "
                f"{common[0][:SHOWN]!r}: "
                "prompts that are trained on measure nothing; take them out of one of the tasks"
            )


def rewards_of(task: Task, rows: list[Row], prompts: list[str], answers: list[str]) -> list[float]:
    """Return the reward of each answer; NaN where the function returns None.

    Raises
    ------
    DataError
        If it does not return a number, or None, for each.
    TrainingError
        If it raises, with where.
    """
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    columns.pop("prompt", None)
    try:
        got = task.reward(prompts=prompts, completions=answers, **columns)
        if inspect.isawaitable(got):
            got = asyncio.run_coroutine_threadsafe(_awaited(got), _background(os.getpid())).result()
    except (DataError, TrainingError):
        raise  # of a part of a mixed task
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise TrainingError(
            f"the reward of {task.name} raised {type(error).__name__}, {at.filename}, line "
            f"{at.lineno}: {error}"
        ) from error
    values = got.tolist() if hasattr(got, "tolist") else got
    if not isinstance(values, list | tuple):
        raise DataError(
            f"the reward of {task.name} returned {type(got).__name__}: needed is a list with a "
            "number, or None, for each answer"
        )
    if len(values) != len(answers):
        raise DataError(
            f"the reward of {task.name} returned {len(values)} numbers for {len(answers)} answers"
        )
    texts = [value for value in values if isinstance(value, str | bytes)]
    if texts:
        raise DataError(f"the reward of {task.name} returned what is no number: {texts[0]!r}")
    try:
        return [float("nan") if value is None else float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the reward of {task.name} returned what is no number: {error}") from error


async def _awaited(returned: Awaitable[Any]) -> Any:
    return await returned


@lru_cache(maxsize=1)
def _background(process: int) -> asyncio.AbstractEventLoop:
    """Return an event loop that runs in a thread of this process.

    All calls share it, since HTTP clients stay bound to the loop that they were first used in. The
    caller's own loop will not do, as it may be running.
    """
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    return loop
