"""The report of a selection: as JSON, as Markdown, and a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rskernels.pipeline.config import SelectConfig
from rskernels.pipeline.job import Record, Work
from rskernels.pipeline.read import Dataset
from rskernels.pipeline.store.runs import merged
from rskernels.pipeline.store.write import write_whole
from rskernels.pipeline.totals import figures, merged_totals, overall_of


def write_report(
    folder: Path,
    data: Dataset,
    config: SelectConfig,
    records: Sequence[Record],
    work: Work,
    duplicates: int,
) -> dict[str, Any]:
    """Write the report and return it."""
    prompts, totals = _over_prompts(work.paths("groups", len(records)))
    report = {
        "config": config.to_dict(),
        "files": len(data.files),
        "format": data.format,
        "bad": sum(record.bad for record in records),
        "named": [line for record in records for line in record.named][:10],
        "duplicates": duplicates,
        "overall": totals,
        "prompts": prompts,
        "rewards": _merged_rewards(records),
        "seconds": sum(record.seconds for record in records),
        "deciding_seconds": sum(record.deciding for record in records),
    }
    write_whole(folder / "report.json", json.dumps(report, indent=1, allow_nan=False))
    return report


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report of a finished run."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


BINS = 20


def _over_prompts(runs: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return means over prompts, and totals over all rows, range by range of prompts."""
    wholes, count, acceptance = [], 0, np.zeros(BINS, np.int64)
    without, kl, kl_rows = 0, 0.0, 0
    for records, _, _ in merged(runs):
        groups = merged_totals(records)
        if not len(groups):
            continue
        of = figures(groups)
        wholes.append(overall_of(groups))
        count += len(groups)
        without += int((groups["accepted"] == 0).sum())
        share = of["acceptance"][np.isfinite(of["acceptance"])]
        acceptance += np.histogram(share, BINS, (0.0, 1.0))[0]
        has = np.isfinite(of["kl"])
        kl += float((of["kl"] * groups["decided"])[has].sum())
        kl_rows += int(groups["decided"][has].sum())
    prompts = {
        "count": count,
        "without_accepted": without,
        "acceptance_histogram": acceptance.tolist(),
        "kl": kl / kl_rows if kl_rows else None,
    }
    return prompts, _whole(wholes)


def _whole(parts: list[dict[str, float]]) -> dict[str, Any]:
    """Return counts, and what follows from sums, over all rows."""
    counted = ("seen", "accepted", "violations", "invalid", "unknown", "decided")
    total: dict[str, Any] = {name: sum(int(part[name]) for part in parts) for name in counted}
    top = max((part["top"] for part in parts), default=-math.inf)
    shift = top if top > -math.inf else 0.0
    w = squared = excess = 0.0
    for part in parts:
        factor = math.exp(part["top"] - shift)
        w, squared = w + part["w"] * factor, squared + part["w_squared"] * factor**2
        excess += part["excess"] * factor
    known = total["seen"] - total["invalid"] - total["unknown"]
    valid = total["seen"] - total["invalid"]
    sums = {
        name: math.fsum(part[name] for part in parts)
        for name in ("reward", "reward_kept", "expected")
    }
    total["acceptance"] = _share(total["accepted"], total["decided"])
    total["expected_acceptance"] = _share(sums["expected"], known)
    total["delta"] = _share(excess, w)
    total["ess"] = _share(w * w, squared)
    total["reward"] = _share(sums["reward"], valid)
    total["reward_kept"] = _share(sums["reward_kept"], total["accepted"])
    return total


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _merged_rewards(records: Sequence[Record]) -> list[list[float]]:
    rewards: dict[float, list[int]] = {}
    for record in records:
        for value, rows, accepted in record.rewards:
            of = rewards.setdefault(value, [0, 0])
            of[0] += int(rows)
            of[1] += int(accepted)
    return [[value, *rewards[value]] for value in sorted(rewards)]
