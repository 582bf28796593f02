"""Tasks by their names."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rskernels.language.task import Task
from rskernels.language.tasks import arithmetic, graph, parity
from rskernels.rsft.say import say

_MADE = {"arithmetic": arithmetic, "parity": parity, "graph": graph}
NAMES = tuple(_MADE)
START = "start.json"
"""What says, beside a starting model that ``scratch`` made, what of."""


def note_other_seed(model: str | None, name: str, seed: int) -> None:
    """Say so where a starting model may have been shown the prompts that are held out.

    Parameters
    ----------
    model : str, optional
        Its folder, with ``START`` if ``scratch`` made it.
    name, seed
        Of the task, as of ``task_of``.
    """
    path = Path(model or "") / START
    if int(os.environ.get("RANK", 0)) or not path.is_file():
        return
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        of_task, of_seed = made["task"], made["seed"]
    except (ValueError, KeyError, TypeError):
        return  # another's file of this name
    if of_task == name and of_seed != seed:
        say(
            f"{model} was made with --seed {of_seed}: prompts that are held out with --seed {seed} "
            "may be among its demonstrations"
        )


def task_of(name: str, seed: int, **options: Any) -> Task:
    """Return a task.

    Parameters
    ----------
    name : {"arithmetic", "parity", "graph"}
        Which; each has a file of its name here, that says what it asks.
    seed : int
        Decides the prompts.
    **options
        Of its ``make_task``: how many prompts to ``train`` on and to ``test`` by, and more.

    Raises
    ------
    TypeError, ValueError
        If a name or an option is not known, or out of its range.
    """
    make = _known(name).make_task
    _check_options(f"the task {name}", make, options)
    made: Task = make(seed, **options)
    return made


def demonstrations_of(
    name: str, task: Task, count: int, seed: int, **options: Any
) -> list[tuple[str, str]]:
    """Return prompts with answers to train a starting model on; none is of a prompt held out.

    Parameters
    ----------
    name : {"arithmetic", "parity", "graph"}
        Of the task.
    task : Task
        Whose prompts to train on are used; of parity, whose prompts are not.
    count, seed : int
        How many, and what decides them.
    **options
        Of its ``demonstrations``.

    Returns
    -------
    list of (str, str)
        Prompt and answer.

    Raises
    ------
    TypeError, ValueError
        If a name or an option is not known.
    """
    rows = [*task.train, *task.test] if name == "parity" else task.train
    make = _known(name).demonstrations
    _check_options(f"demonstrations of {name}", make, options)
    pairs: list[tuple[str, str]] = make([row["prompt"] for row in rows], count, seed, **options)
    return pairs


def _check_options(what: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise TypeError where an option is not known, or not of the kind of its default."""
    usual = {
        option.name: option.default
        for option in inspect.signature(make).parameters.values()
        if option.kind is option.KEYWORD_ONLY
    }
    for name, value in options.items():
        if name not in usual:
            accepted = f"accepted are {', '.join(usual)}" if usual else "it has none"
            raise TypeError(f"{what} has no option {name!r}; {accepted}")
        kind = type(usual[name])
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"{name} of {what} must be {kind.__name__}, got {value!r}")


def _known(name: str) -> Any:
    if name not in _MADE:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    return _MADE[name]
