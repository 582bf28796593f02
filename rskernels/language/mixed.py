"""Several tasks as one: their prompts in turns, each judged as its own task does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from rskernels.language.config import LanguageConfig
from rskernels.language.rewards import BUILTIN, GYM, rewards_of, task_from
from rskernels.language.task import Row, Task
from rskernels.rsft.errors import DataError


def mixed(tasks: Sequence[Task]) -> Task:
    """Return a task that asks the prompts of several.

    Parameters
    ----------
    tasks : sequence of Task
        Of names that differ.

    Returns
    -------
    Task
        Rows with ``"prompt"``, ``"task"``, the name of the task that a prompt is of, and ``"row"``,
        the row there; the tasks take turns for as long as each has some. What is measured of the
        whole is measured of each task, too, under its name.

    Raises
    ------
    ValueError
        If there is none, or two have one name.
    """
    parts = {task.name: task for task in tasks}
    if not parts or len(parts) < len(tasks):
        names = ", ".join(task.name for task in tasks)
        raise ValueError(f"needed are tasks of names that differ, got {names or 'none'}")

    def reward(
        prompts: list[str], completions: list[str], task: list[str], row: list[Row], **others: Any
    ) -> list[float]:
        values = [0.0] * len(prompts)
        for name in dict.fromkeys(task):
            at = [place for place, of in enumerate(task) if of == name]
            asked, said, rows = ([of[place] for place in at] for of in (prompts, completions, row))
            for place, value in zip(at, rewards_of(parts[name], rows, asked, said), strict=True):
                values[place] = value
        return values

    train, test = (
        [
            {"prompt": row.get("prompt"), "task": name, "row": row}
            for turn in zip_longest(*(getattr(task, kind) for task in tasks))
            for name, row in zip(parts, turn, strict=True)
            if row is not None
        ]
        for kind in ("train", "test")
    )
    return Task(" and ".join(parts), train, test, reward, parts=parts)


def task_of_several(config: LanguageConfig) -> Task:
    """Return the mix of the tasks that a configuration names between commas.

    Each has options of its own, and each of those that read files a file of its own.

    Raises
    ------
    DataError
        If a name, an option or a file is not as it must be.
    """
    names = [part.strip() for part in (config.tasks or "").split(",")]
    if "" in names or len(set(names)) < len(names):
        raise DataError(f"tasks={config.tasks!r}: needed are names that differ, between commas")
    options: dict[str, list[str]] = {name: [] for name in names}
    for part in filter(None, (config.task_options or "").split(",")):
        owner = next((name for name in names if part.strip().startswith(f"{name}.")), None)
        if owner is None:
            raise DataError(
                f"task_options={config.task_options!r}: of several tasks an option names its own, "
                f"as {names[0]}.name=value"
            )
        options[owner].append(part.strip().removeprefix(f"{owner}."))
    reading = [name for name in names if name not in BUILTIN and not name.startswith(f"{GYM}:")]
    # Where none reads files, the first says so.
    reading = reading or names[:1]
    data, test_data = (_files(config, field, reading) for field in ("data", "test_data"))
    with_pattern = "answer" if "answer" in names else names[0]
    return mixed(
        [
            task_from(
                dataclasses.replace(
                    config,
                    tasks=name,
                    task_options=",".join(options[name]) or None,
                    data=data.get(name),
                    test_data=test_data.get(name),
                    answer_pattern=config.answer_pattern if name == with_pattern else None,
                )
            )
            for name in names
        ]
    )


def _files(config: LanguageConfig, field: str, names: list[str]) -> dict[str, str]:
    """Return the file of each of these tasks, as many between commas."""
    text: str | None = getattr(config, field)
    if text is None:
        return {}
    files = [text] if len(names) == 1 else [part.strip() for part in text.split(",")]
    if len(files) != len(names):
        raise DataError(
            f"{field}={text!r}: {len(names)} tasks read files, {', '.join(names)}: needed are as "
            f"many between commas, in this order, got {len(files)}"
        )
    return dict(zip(names, files, strict=True))
