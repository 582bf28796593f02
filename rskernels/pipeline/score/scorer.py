"""What a scorer is, and what a run of one is asked to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from rskernels.pipeline.rows.columns import Columns


class Row(NamedTuple):
    """A row as a scorer sees it."""

    prompt: Any
    """Text, or a list of messages ``{"role", "content"}``."""
    completion: Any
    """Likewise; a list where the prompt is one."""
    columns: dict[str, Any]
    """What else the row holds."""


class Scores(NamedTuple):
    """Scores of rows."""

    values: list[tuple[float, ...] | None]
    """Of each row a number for each column that the scorer adds; None of a row without a score."""
    bad: dict[int, str]
    """Rows without a score, and why. If they are more than ``room``, later rows may be missing."""


class Scorer(Protocol):
    """Gives rows their scores. It can be pickled, and loads what it needs at its first call."""

    @property
    def usual_name(self) -> str:
        """What the column of the score is called if no other name is given."""

    @property
    def more(self) -> tuple[str, ...]:
        """Endings of the names of further columns, which hold integers."""

    def check(self, names: Collection[str]) -> None:
        """Raise DataError if the scorer cannot be loaded, or needs a column that is not there."""

    def __call__(self, rows: Sequence[Row], room: int) -> Scores:
        """Score rows; with more than ``room`` bad ones it may stop."""

    def to_dict(self) -> dict[str, Any]:
        """Return what decides scores, for JSON."""


@dataclass(frozen=True)
class ScoreConfig:
    """What a run adds to rows.

    Attributes
    ----------
    scorer : Scorer
        ``Reward`` or ``LogProb``.
    name : str, optional
        Of the column of scores; None: "reward", or "log_prob".
    columns : Columns
        Names of columns: prompt, completion and messages are read.
    max_bad : int
        How many rows may be malformed or without a score; they are counted, named and left out.
    parts : bool
        Whether rows stay in the files of their pieces, in a folder, in place of one file.
    """

    scorer: Scorer
    name: str | None = None
    columns: Columns = field(default_factory=Columns)
    max_bad: int = 0
    parts: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are added."""
        name = self.name or self.scorer.usual_name
        return (name, *(name + ending for ending in self.scorer.more))

    def to_dict(self) -> dict[str, Any]:
        """Return what decides what is written, for JSON."""
        return {
            "scorer": self.scorer.to_dict(),
            "names": list(self.names),
            "columns": asdict(self.columns),
            "parts": self.parts,
        }
