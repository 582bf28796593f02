"""Rewards by a function that the user wrote: what TRL calls a reward function."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rskernels.pipeline.score.scorer import Row, Scores
from rskernels.rsft.errors import DataError

SHOWN = 200  # characters of an error
GIVEN = ("prompts", "completions")


@dataclass(frozen=True)
class Reward:
    """A function ``f(prompts, completions, **columns) -> list[float]``, as TRL calls it.

    Of conversations it is given lists of messages, with the completion as a list of one. Columns
    are lists by name: those that it has arguments for, and with ``**columns`` all. It may be
    ``async``. It is to score each row by itself: which rows come together may change.

    Attributes
    ----------
    function : str
        ``"module:function"``, imported from the Python path or the folder below.
    batch_size : int
        Rows that are given at once.
    folder : str
        Where modules are looked for as well; by default the current folder.

    Raises
    ------
    ValueError
        If the function is not named so, or ``batch_size`` is not positive.
    """

    function: str
    batch_size: int = 256
    folder: str = field(default_factory=lambda: str(Path.cwd()))

    def __post_init__(self) -> None:
        module, _, name = self.function.partition(":")
        if not module or not name:
            raise ValueError(f"a reward must be named module:function, got {self.function!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    @property
    def usual_name(self) -> str:
        """What the column is called if no other name is given."""
        return "reward"

    @property
    def more(self) -> tuple[str, ...]:
        """No further columns."""
        return ()

    def check(self, names: Collection[str]) -> None:
        """Raise DataError if there is no such function, or it needs a column that is not there."""
        _, named, _ = _loaded(self.function, self.folder)
        missing = [name for name, is_needed in named.items() if is_needed and name not in names]
        if missing:
            raise DataError(
                f"{self.function} needs the column {missing[0]!r}; the columns are "
                f"{', '.join(names)}"
            )

    def __call__(self, rows: Sequence[Row], room: int) -> Scores:
        """Score rows, those of a call that fails one by one."""
        scores = Scores([], {})
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            try:
                self._add(scores, batch)
            except Exception as error:
                if len(batch) == 1:
                    scores.bad[len(scores.values)] = _shown(error)
                    scores.values.append(None)
                else:
                    self._add_one_by_one(scores, batch, room)
            if len(scores.bad) > room:
                break
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Return what decides scores, for JSON."""
        return {"reward": self.function}

    def _add_one_by_one(self, scores: Scores, rows: Sequence[Row], room: int) -> None:
        for row in rows:
            try:
                self._add(scores, [row])
            except Exception as error:
                scores.bad[len(scores.values)] = _shown(error)
                scores.values.append(None)
                # A function that always fails may take long to.
                if len(scores.bad) > room:
                    return

    def _add(self, scores: Scores, rows: Sequence[Row]) -> None:
        function, named, takes_all = _loaded(self.function, self.folder)
        names = dict.fromkeys(name for row in rows for name in row.columns)
        columns = {
            name: [row.columns.get(name) for row in rows]
            for name in names
            if takes_all or name in named
        }
        given = [[row.prompt for row in rows], [row.completion for row in rows]]
        try:
            returned = function(**dict(zip(GIVEN, given, strict=True)), **columns)
            if inspect.isawaitable(returned):
                returned = asyncio.run(_awaited(returned))
        except SystemExit as error:
            # It would end the run, and with a status of its own.
            raise RuntimeError(f"the function raised SystemExit({error})") from error
        if hasattr(returned, "tolist"):
            returned = returned.tolist()
        if not isinstance(returned, list | tuple):
            raise TypeError(f"a list of numbers was to be returned, got {type(returned).__name__}")
        if len(returned) != len(rows):
            raise ValueError(f"{len(returned)} rewards were returned for {len(rows)} rows")
        # All are read before any is noted: where one fails, the rows are given again one by one.
        for number, why in [_number(value) for value in returned]:
            if why:
                scores.bad[len(scores.values)] = why
            scores.values.append(None if why else (number,))


def imported(function: str, folder: str, option: str) -> Callable[..., Any]:
    """Return the function that ``"module:function"`` names, from a folder or the Python path.

    Raises
    ------
    DataError
        If there is no such module, or no such function in it; ``option`` says who named it.
    ModuleNotFoundError
        If the module imports one that is not there.
    """
    module, _, name = function.partition(":")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise DataError(
            f"{option} {function}: there is no module {module!r}, in {folder} or on the Python path"
        ) from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise DataError(f"{option} {function}: {module} has no function {name!r}")
    of_name: Callable[..., Any] = found
    return of_name


@lru_cache(maxsize=8)
def _loaded(function: str, folder: str) -> tuple[Callable[..., Any], dict[str, bool], bool]:
    """Return a function, the columns that it names and needs, and whether it takes all."""
    found = imported(function, folder, "--reward")
    return found, *arguments_of(found, function, "--reward")


def arguments_of(
    found: Callable[..., Any], function: str, option: str
) -> tuple[dict[str, bool], bool]:
    """Return which columns a function names, and whether it needs each; and if it takes all.

    Raises
    ------
    DataError
        If it does not take prompts and completions; ``option`` says who named it.
    """
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):  # compiled functions may have none
        return {}, True
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [name for name in GIVEN if name not in parameters and not takes_all]
    if missing:
        raise DataError(
            f"{option} {function}: it must take prompts and completions by these names, and has no "
            f"{missing[0]}"
        )
    named = {
        name: p.default is p.empty
        for name, p in parameters.items()
        if name not in GIVEN and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return named, takes_all


def _number(value: Any) -> tuple[float, str]:
    """Return a reward, and what is wrong with it."""
    if value is None:
        return math.nan, "the reward is None"
    try:
        if isinstance(value, str | bytes):
            raise TypeError("a text that reads as a number is none, as in files")
        number = float(value)
    except OverflowError:
        return math.nan, "the reward is too large for a float64"
    except (TypeError, ValueError):
        return math.nan, f"the reward must be a number, got {value!r}"[:SHOWN]
    return number, "" if math.isfinite(number) else f"the reward is {number}"


async def _awaited(returned: Any) -> Any:
    return await returned


def _shown(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())  # a line of the report
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
