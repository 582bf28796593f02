"""What a selection is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rskernels._python.integers import as_integer
from rskernels.pipeline.rows.columns import Columns
from rskernels.pipeline.rule import RANKED, Rule


@dataclass(frozen=True)
class SelectConfig:
    """A selection of the rows of a data set.

    Attributes
    ----------
    rule : Rule
        Which are kept.
    columns : Columns
        Names of columns.
    pairs : int
        Pairs of a chosen and a rejected answer to write of each prompt, at most.
    parts : bool
        Whether what is kept stays in parts, a file a piece, in place of one file.
    max_bad : int
        How many malformed rows are let pass; they are counted and rejected.
    max_duplicates : int
        How many rows may have the id of an earlier one. Must be 0 for a rule of ``rule.RANKED``,
        which ranks the rows of a prompt by their ids.

    Raises
    ------
    TypeError, ValueError
        If a number is no integer, below 0, or not for the rule.
    """

    rule: Rule
    columns: Columns = field(default_factory=Columns)
    pairs: int = 0
    parts: bool = False
    max_bad: int = 0
    max_duplicates: int = 0

    def __post_init__(self) -> None:
        for name in ("pairs", "max_bad", "max_duplicates"):
            if as_integer(name, getattr(self, name)) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.pairs and self.rule.form == "weights":
            raise ValueError("the form 'weights' keeps every answer, so that there are no pairs")
        if self.max_duplicates and self.rule.form in RANKED:
            raise ValueError(
                f"the form {self.rule.form!r} needs ids that differ: max_duplicates must be 0, got "
                f"{self.max_duplicates}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what decides which rows are kept, for JSON."""
        return {
            **asdict(self.rule),
            "columns": asdict(self.columns),
            "pairs": self.pairs,
            "parts": self.parts,
        }
