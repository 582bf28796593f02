"""What a selection is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rskernels.pipeline.rows.columns import Columns
from rskernels.pipeline.rule import Rule


@dataclass(frozen=True)
class SelectConfig:
    """A selection of the rows of a data set.

    Attributes
    ----------
    rule : Rule
        Which are kept.
    columns : Columns
        Names of columns.
    max_bad : int
        Malformed rows that are let pass, counted and rejected.
    max_duplicates : int
        Rows that are let pass whose id another has.
    """

    rule: Rule
    columns: Columns = field(default_factory=Columns)
    max_bad: int = 0
    max_duplicates: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return what decides which rows are kept, for JSON."""
        return {**asdict(self.rule), "columns": asdict(self.columns)}
