"""What ``--tasks`` names: prompts and a reward, from this package, another one, or a file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rskernels._python.extras import framework
from rskernels.language.config import LanguageConfig
from rskernels.language.task import SHOWN, Reward, Row, Task, mixed
from rskernels.law.philox import row_uniforms_64
from rskernels.law.streams import Stream
from rskernels.pipeline.score.reward import arguments_of, imported
from rskernels.rsft.errors import DataError

BUILTIN = ("arithmetic", "parity", "graph")
GYM = "reasoning_gym"
GYM_SIZES = (2000, 200)
ACCEPTED = (
    f"accepted are {', '.join(BUILTIN)}, {GYM}:NAME, module:function with --data, and answer with "
    "--data"
)


def task_from(config: LanguageConfig) -> Task:
    """Return the task that a configuration names.

    Raises
    ------
    DataError
        If the name, an option of it, or a file is not as it must be.
    ModuleNotFoundError
        If reasoning_gym, or what the module imports, is not installed.
    """
    name = config.tasks
    if name is None:
        raise DataError(f"tasks: what is asked must be named; {ACCEPTED}")
    if "," in name:
        return _several(config)
    options = options_of(config.task_options)
    if name in BUILTIN:
        _refuse_files(config)
        return _builtin(config, name, options)
    if name == "answer":
        return _from_files(config, name, _same_answer(config.answer_pattern), options)
    module, _, function = name.partition(":")
    if not function:
        raise DataError(f"tasks={name!r} is not known; {ACCEPTED}")
    if config.answer_pattern is not None:
        raise DataError(f"answer_pattern is for --tasks answer, got {name!r}")
    if module == GYM:
        _refuse_files(config)
        return _gym(function, config.seed, options)
    reward, needed = _own(name)
    return _from_files(config, name, reward, options, needed)


def _several(config: LanguageConfig) -> Task:
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
    """Return the file of each of these tasks, which an option lists between commas."""
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


def options_of(text: str | None) -> dict[str, Any]:
    """Return the options of a text such as ``"digits=3,train=500"``; JSON values are parsed.

    Raises
    ------
    DataError
        If a part has no name or no value.
    """
    options: dict[str, Any] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if not name or not value:
            raise DataError(f"task_options={text!r}: needed is name=value between commas")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _refuse_files(config: LanguageConfig) -> None:
    for name in ("data", "test_data", "answer_pattern"):
        if getattr(config, name) is not None:
            raise DataError(f"{name} is not read by --tasks {config.tasks}, which has its own")


def _builtin(config: LanguageConfig, name: str, options: dict[str, Any]) -> Task:
    from rskernels.language.tasks.named import note_other_seed, task_of

    note_other_seed(config.model, name, config.seed)
    try:
        task: Task = task_of(name, config.seed, **options)
    except (TypeError, ValueError) as error:
        raise DataError(f"task_options: {error}") from error
    return task


def _gym(name: str, seed: int, options: dict[str, Any]) -> Task:
    """Return a data set of reasoning_gym with its own verifier, which may give parts of 1."""
    with framework(f"--tasks {GYM}:{name}", "pip install reasoning-gym"):
        import reasoning_gym
    sizes = [
        options.pop(part, size) for part, size in zip(("train", "test"), GYM_SIZES, strict=True)
    ]
    try:
        # One data set cut in two, since two seeds may ask the same.
        made = reasoning_gym.create_dataset(name, size=sum(sizes), seed=seed % (1 << 31), **options)
    except (TypeError, ValueError) as error:
        raise DataError(f"reasoning_gym has no {name} with {options}: {error}") from error
    rows = [
        {"prompt": entry["question"], "answer": entry["answer"], "entry": entry} for entry in made
    ]
    train, seen = rows[: sizes[0]], {row["prompt"] for row in rows[: sizes[0]]}

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        return [
            float(made.score_answer(answer=text.strip(), entry=entry))
            for text, entry in zip(completions, columns["entry"], strict=True)
        ]

    test = [row for row in rows[sizes[0] :] if row["prompt"] not in seen]
    return Task(f"{GYM}:{name}", train, test, reward)


def _own(name: str) -> tuple[Reward, list[str]]:
    """Return the function of a module, given the columns that it takes, and those that it needs."""
    found = imported(name, str(Path.cwd()), "--tasks")
    named, takes_all = arguments_of(found, name, "--tasks")

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> Any:
        taken = {column: of for column, of in columns.items() if takes_all or column in named}
        return found(prompts=prompts, completions=completions, **taken)

    return reward, [column for column, is_needed in named.items() if is_needed]


def _same_answer(pattern: str | None) -> Reward:
    """Return the reward that is 1 where an answer is that of the row."""
    extract = _extractor(pattern)

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        answers = columns["answer"]
        return [
            float(extract(text) == str(answer).strip())
            for text, answer in zip(completions, answers, strict=True)
        ]

    return reward


def _extractor(pattern: str | None) -> Callable[[str], str | None]:
    if pattern is None:
        return str.strip
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"answer_pattern={pattern!r} is no regular expression: {error}") from error

    def extract(text: str) -> str | None:
        matches = list(compiled.finditer(text))
        return matches[-1][min(1, compiled.groups)].strip() if matches else None

    return extract


def _from_files(
    config: LanguageConfig,
    name: str,
    reward: Reward,
    options: dict[str, Any],
    needed: Sequence[str] = (),
) -> Task:
    if options:
        raise DataError(f"task_options are not read by --tasks {name}")
    if config.data is None:
        raise DataError(f"--tasks {name} needs --data, a file of JSON lines with a prompt each")
    rows = read_rows(Path(config.data))
    if config.test_data is not None:
        train, test = rows, read_rows(Path(config.test_data))
        _refuse_common(config, train, test)
    else:
        train, test = _held_out(rows, config.test_fraction, config.seed)
    if not train:
        raise DataError(
            f"{config.data} has {len(rows)} rows with one prompt, all of which are held out"
        )
    for column in needed:
        if column not in rows[0]:
            raise DataError(
                f"--tasks {name} needs the column {column!r}; those of {config.data} are "
                f"{', '.join(rows[0])}"
            )
    if name == "answer":
        for file, of in ((config.data, rows), (config.test_data, test)):
            _refuse_no_answers(file or config.data, of)
    key = None
    if config.answer_pattern is not None:
        extract = _extractor(config.answer_pattern)
        key = lambda text: extract(text) or ""  # noqa: E731
    return Task(name, train, test, reward, key)


def _refuse_no_answers(file: str, rows: list[Row]) -> None:
    if "answer" not in rows[0]:
        raise DataError(f"{file} has no column 'answer', which --tasks answer compares with")
    for row in rows:
        if not isinstance(row["answer"], str | bool | int | float):
            raise DataError(
                f"{file}: the answer of {row['prompt'][:SHOWN]!r} must be text or a number, got "
                f"{json.dumps(row['answer'])[:SHOWN]}"
            )


def _held_out(rows: list[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Return rows to train on and rows held out; rows with the same prompt stay together."""
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    count = max(1, round(fraction * len(prompts)))
    u = row_uniforms_64(torch.arange(len(prompts)), 0, seed, Stream.ORDER)
    held = {prompts[at] for at in u.argsort(stable=True)[:count].tolist()}
    return (
        [row for row in rows if row["prompt"] not in held],
        [row for row in rows if row["prompt"] in held],
    )


def _refuse_common(config: LanguageConfig, train: list[Row], test: list[Row]) -> None:
    asked = {row["prompt"] for row in train}
    held = dict.fromkeys(row["prompt"] for row in test)
    common = [prompt for prompt in held if prompt in asked]
    if common:
        raise DataError(
            f"{len(common)} of the {len(held)} prompts of {config.test_data} are in {config.data} "
            f"too, the first {common[0][:SHOWN]!r}: prompts that are trained on measure nothing; "
            "take them out of one of the files"
        )


def read_rows(path: Path) -> list[Row]:
    """Read rows of JSON lines, each with a ``prompt`` and all with the same columns.

    Raises
    ------
    DataError
        Naming the line that is malformed.
    """
    try:
        # Text may hold any other character that Python takes for the end of a line.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip(" \t\r"):
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number} is no JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise DataError(f"{path}:{number} must be an object with a text as its prompt")
        if rows and row.keys() != rows[0].keys():
            raise DataError(
                f"{path}:{number} has columns {sorted(row)}, the first row {sorted(rows[0])}"
            )
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows
