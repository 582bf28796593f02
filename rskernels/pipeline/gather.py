"""All answers to a prompt decided together, where a form needs them: a pass before the writing.

The rows of each piece are written without their text, 36 bytes a row, sorted by prompt. Then range
after range of prompts is merged from all pieces and decided. What became of each row goes to one
file, in the order of the data, which the pass that writes reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rskernels.pipeline.decide import decide_together, shared_envelope
from rskernels.pipeline.rows.keys import Keys
from rskernels.pipeline.rule import Rule
from rskernels.pipeline.store.runs import Records, merged, new_records
from rskernels.pipeline.store.write import atomic
from rskernels.rsft.errors import DataError

GATHERED = np.dtype(
    [
        ("key", np.int64),
        ("id", np.int64),
        ("answer", np.int64),
        ("reward", np.float64),
        ("row", np.uint32),
    ]
)
RESOLVED = np.dtype([("kept", np.bool_), ("log_ratio", np.float64)])


def gathered(keys: Keys) -> Records:
    """Return what a decision needs of a piece: a record of each row that is not malformed."""
    records = np.zeros(len(keys.id), GATHERED)
    records["key"], records["id"], records["reward"] = keys.group, keys.id, keys.reward
    records["answer"], records["row"] = keys.answer, np.arange(len(records))
    is_good = np.ones(len(records), bool)
    is_good[list(keys.bad)] = False
    return records[is_good]


def resolve(
    runs: Sequence[Path],
    pilot: Sequence[Path] | None,
    sizes: Sequence[int],
    rule: Rule,
    path: Path,
) -> None:
    """Decide the rows of all pieces, and write what became of each to a file, whole or absent.

    Parameters
    ----------
    runs : sequence of Path
        A file of each piece with what ``gathered`` returned.
    pilot : sequence of Path, optional
        Likewise of a pilot.
    sizes : sequence of int
        Rows of each piece.
    rule : Rule
        How.
    path : Path
        The file: ``RESOLVED`` records of all rows in order.

    Raises
    ------
    DataError
        If two rows of a prompt have the same id, and the rule ranks them by it; or if the pilot
        has none of the prompts, so that none has an M.
    """
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    others, shared = () if pilot is None else (pilot,), None
    if rule.shared and pilot is not None:
        shared = shared_envelope((of_pilot for of_pilot, _, _ in merged(pilot)), rule)
    is_needed, has_any, is_met = pilot is not None and shared is None, False, False
    with atomic(path) as temporary:
        out = new_records(temporary, RESOLVED, int(starts[-1]))
        for start in range(0, len(out), 1 << 20):
            out["log_ratio"][start : start + (1 << 20)] = np.nan
        for records, run, of_pilot in merged(runs, *others):
            given = of_pilot[0] if of_pilot else None
            has_any |= bool(len(records))
            is_met |= given is not None and bool(np.isin(records["key"], given["key"]).any())
            try:
                kept, log_ratio = decide_together(records, given, rule, shared)
            except ValueError as error:
                raise DataError(f"{rule.form} cannot decide: {error}") from error
            at = starts[run] + records["row"]
            out["kept"][at], out["log_ratio"][at] = kept, log_ratio
        out.flush()
        del out
        if is_needed and has_any and not is_met:
            raise DataError(
                "the pilot has none of the prompts of the inputs: it must answer the same ones, "
                "told by the same columns (--prompt, --messages, --group)"
            )


def rows_from(path: Path, start: int, count: int) -> Records:
    """Return ``count`` records from the row ``start`` on, of a file that has one for each row."""
    records = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.array(records[start : start + count])
