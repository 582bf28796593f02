"""What a selection is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rskernels.pipeline.decide import Rule
from rskernels.pipeline.rows.columns import Columns


@dataclass(frozen=True)
class SelectConfig:
    """A selection of the rows of a data set.

    Attributes
    ----------
    form, beta, bound, seed
        As of ``rskernels.select.tilt``.
    columns : Columns
        Names of columns.
    max_bad : int
        Malformed rows that are let pass, counted and rejected.
    max_duplicates : int
        Rows that are let pass whose id another has.
    """

    form: str
    beta: float = 0.0
    bound: float | None = None
    seed: int = 0
    columns: Columns = field(default_factory=Columns)
    max_bad: int = 0
    max_duplicates: int = 0

    @property
    def rule(self) -> Rule:
        """How each row is decided."""
        return Rule(self.form, self.beta, self.bound, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Return what decides which rows are kept, for JSON."""
        record = asdict(self)
        del record["max_bad"], record["max_duplicates"]
        return record
