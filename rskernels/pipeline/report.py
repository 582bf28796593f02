"""The report of a selection: as JSON, as Markdown, and a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rskernels.pipeline.config import SelectConfig
from rskernels.pipeline.figure import draw
from rskernels.pipeline.job import NAMED, Record, Work
from rskernels.pipeline.read import Dataset
from rskernels.pipeline.rule import (
    M_IS,
    NOTES,
    OF_THE_ROWS,
    WITH_PILOT,
    WITHOUT_M,
    WITHOUT_WEIGHTS,
    Rule,
)
from rskernels.pipeline.store.runs import merged
from rskernels.pipeline.store.write import write_whole
from rskernels.pipeline.totals import COUNTS, figures, merged_totals, overall_of

BINS = 20
"""Of the acceptance of prompts, from 0 to 1."""


def write_report(
    folder: Path,
    data: Dataset,
    config: SelectConfig,
    records: Sequence[Record],
    work: Work,
    counts: Mapping[str, int],
    *,
    is_own_pilot: bool = False,
) -> dict[str, Any]:
    """Write ``report.json``, ``report.md`` and, with matplotlib, ``report.png``; return the first.

    Numbers have the names of ``select.TiltedSelection``, and None where the form has none; to them
    come those of ``counts``. ``bad`` counts malformed rows, which ``seen`` leaves out, and rows
    whose reward the form does not take. ``rewards`` has [reward, rows, accepted], rewards within
    3 % as one. ``without_weight`` counts the rows that "weights" leaves out, and the prompts that
    have only such; ``unknown`` those of which the pilot has no reward. ``kl`` is an estimate by the
    rows, of which K answers to a prompt bound it by log K; ``kl_at_most`` is the mean of that.
    ``is_own_pilot`` says that the rows are their own pilot.
    """
    rule = config.rule
    prompts, overall = _totals(work.paths("groups", len(records)), rule)
    warnings = []
    if is_own_pilot:
        overall["delta"] = None
        warnings.append(OF_THE_ROWS)
        if prompts["fewer_than_n"]:
            warnings.append(
                f"{prompts['fewer_than_n']} of {prompts['count']} prompts have fewer than "
                f"n = {rule.n} answers."
            )
    warnings += _left_out(rule, overall, prompts)
    m_is = M_IS.get(rule.form, "none")
    report = {
        "form": rule.form,
        "note": NOTES["own " + rule.form] if is_own_pilot else NOTES[rule.form],
        "warnings": warnings,
        "M_is": m_is,
        "delta_is": None
        if overall["delta"] is None
        else ("estimate" if m_is == "learnt" else "bound"),
        "kl_is": None if prompts["kl"] is None else "estimate",
        "config": config.to_dict(),
        "files": list(data.files),
        "skipped": list(data.skipped),
        "format": data.format,
        "rows": sum(record.rows for record in records),
        "bad": sum(record.bad for record in records),
        "named": [line for record in records for line in record.named][:NAMED],
        **counts,
        "overall": overall,
        "prompts": prompts,
        "rewards": merged_rewards(records),
        "seconds": round(sum(record.seconds for record in records), 3),
        "deciding_seconds": round(sum(record.deciding for record in records), 3),
        "deciding_cpu_seconds": round(sum(record.deciding_cpu for record in records), 3),
    }
    has_figure = draw(report, folder / "report.png")
    write_whole(folder / "report.md", markdown(report, has_figure=has_figure))
    write_whole(folder / "report.json", json.dumps(report, indent=1, allow_nan=False))
    return report


def _left_out(rule: Rule, overall: dict[str, Any], prompts: dict[str, Any]) -> list[str]:
    """Return what to warn of: rows that no decision was about."""
    warnings, rows = [], overall["seen"] - overall["invalid"]
    if overall["without_weight"]:
        warnings.append(
            f"{overall['without_weight']} of {rows} rows have the reward -infinity, so no weight, "
            f"and are left out; {prompts['without_weight']} of {prompts['count']} prompts have no "
            "others."
        )
    if overall["violations"] and rule.form == "bounded":
        warnings.append(
            f"{overall['violations']} of {rows} rows have a reward above the bound, {rule.bound}: "
            "they are kept, though not often enough, so that what is kept is not the tilted law. A "
            "larger --bound mends it."
        )
    if overall["unknown"] and rule.form in WITH_PILOT:
        warnings.append(
            f"{overall['unknown']} of {rows} rows are of the {prompts['unknown']} of "
            f"{prompts['count']} prompts that the pilot has no reward of: they have no M, and none "
            "is kept."
        )
    return warnings


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report of a finished run."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is worth showing of a report, a name and a number a line."""
    overall, prompts, form = report["overall"], report["prompts"], report["form"]
    numbers = [
        ("rows", report["rows"]), ("kept", overall["accepted"]),
        ("share kept", overall["acceptance"]), ("share expected", overall["expected_acceptance"]),
        ("mean reward", overall["reward"]), ("mean reward of what is kept", overall["reward_kept"]),
        ("KL from the policy, nats: an estimate by the rows", prompts["kl"]),
        ("the most that it can be, log K of K answers", prompts["kl_at_most"]),
        ("effective sample size", overall["ess"]),
        ("prompts", prompts["count"]),
        ("prompts of which nothing is kept", prompts["without_accepted"]),
        ("rows above M", overall["violations"] if form in M_IS else None),
        (f"mass above M: {_a(report['delta_is'])}", overall["delta"]),
        ("rows whose prompt has no pilot", overall["unknown"] if form in WITH_PILOT else None),
        ("rows of no weight, left out", overall["without_weight"]),
        ("prompts of only such", prompts["without_weight"]),
        ("pairs", report["pairs"] or None), ("malformed rows", report["bad"]),
        ("rows with the id of another", report["duplicates"]),
    ]  # fmt: skip
    return [(name, _shown(value)) for name, value in numbers if value is not None]


def markdown(report: dict[str, Any], *, has_figure: bool) -> str:
    """Return a report as a page."""
    rule = {k: v for k, v in report["config"].items() if v is not None and k != "columns"}
    lines = [
        f"# Selection: {report['form']}", "", report["note"], "",
        *(line for text in report["warnings"] for line in (f"**Warning:** {text}", "")),
        "| | |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in table(report)), "",
        "`" + ", ".join(f"{k} = {v}" for k, v in rule.items()) + "`", "",
    ]  # fmt: skip
    if has_figure:
        lines += ["![Rewards and acceptance](report.png)", ""]
    if report["skipped"]:
        named = [*report["skipped"][:NAMED], "…"][: len(report["skipped"])]
        lines += ["## Not read", "", f"{len(report['skipped'])} in the folders:", ""]
        lines += [*(f"- {name}" for name in named), ""]
    if report["named"]:
        lines += ["## Malformed rows", "", *(f"- {line}" for line in report["named"]), ""]
    return "\n".join(lines)


def _a(what: str | None) -> str:
    return f"an {what}" if what == "estimate" else f"a {what}"


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _totals(runs: Sequence[Path], rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return means over prompts, and totals over all rows, range by range of prompts."""
    wholes, count, acceptance = [], 0, np.zeros(BINS, np.int64)
    without = fewer = unknown = no_weight = kl_rows = 0
    kl = at_most = 0.0
    for records, _, _ in merged(runs):
        groups = merged_totals(records)
        if not len(groups):
            continue
        of = figures(groups)
        wholes.append(overall_of(groups))
        count += len(groups)
        without += int((groups["accepted"] == 0).sum())
        unknown += int((groups["unknown"] > 0).sum())
        has_none = (groups["accepted"] == 0) & (groups["seen"] > groups["invalid"])
        no_weight += int(has_none.sum())
        share = of["acceptance"][np.isfinite(of["acceptance"])]
        acceptance += np.histogram(share, BINS, (0.0, 1.0))[0]
        has = np.isfinite(of["kl"])
        kl += float((of["kl"] * groups["decided"])[has].sum())
        kl_rows += int(groups["decided"][has].sum())
        at_most += float((np.log(of["known"][has]) * groups["decided"][has]).sum())
        fewer += int((of["known"] < (rule.n or 0)).sum())
    has_weights = rule.form not in WITHOUT_WEIGHTS
    prompts = {
        "count": count,
        "without_accepted": without,
        "acceptance_histogram": acceptance.tolist(),
        "fewer_than_n": fewer,
        "unknown": unknown,
        "without_weight": no_weight if rule.form == "weights" else None,
        "kl": kl / kl_rows if kl_rows and has_weights else None,
        "kl_at_most": at_most / kl_rows if kl_rows and has_weights else None,
    }
    overall = _whole(wholes)
    missing = [
        *(("expected_acceptance", "delta") if rule.form in WITHOUT_M else ()),
        *(("violations",) if rule.form == "weights" else ()),
        # Of other rules without M the weights of two prompts have no common unit.
        *(("ess",) if rule.form in WITHOUT_M and rule.form != "weights" else ()),
    ]
    overall.update(dict.fromkeys(missing))
    left_out = overall["seen"] - overall["invalid"] - overall["accepted"]
    overall["without_weight"] = left_out if rule.form == "weights" else None
    return prompts, overall


def _whole(parts: list[dict[str, float]]) -> dict[str, Any]:
    """Return counts, and what follows from sums, over all rows."""
    total: dict[str, Any] = {name: sum(int(part[name]) for part in parts) for name in COUNTS}
    top = max((part["top"] for part in parts), default=-math.inf)
    shift = top if top > -math.inf else 0.0
    w = squared = excess = 0.0
    for part in parts:
        factor = math.exp(part["top"] - shift)
        w, squared = w + part["w"] * factor, squared + part["w_squared"] * factor**2
        excess += part["excess"] * factor
    valid = total["seen"] - total["invalid"]
    reward, reward_kept, expected = (
        _sum([part[name] for part in parts]) for name in ("reward", "reward_kept", "expected")
    )
    total["acceptance"] = _share(total["accepted"], total["decided"])
    total["expected_acceptance"] = _share(expected, valid - total["unknown"])
    total["delta"] = _share(excess, w)
    total["ess"] = _share(w * w, squared)
    total["reward"] = _share(reward, valid)
    total["reward_kept"] = _share(reward_kept, total["accepted"])
    return total


def _sum(numbers: list[float]) -> float:
    """Return a sum, NaN where a float64 cannot hold it."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return math.nan


def _share(part: float, whole: float) -> float | None:
    # A sum of rewards may overflow where none of them does.
    return part / whole if whole and math.isfinite(part) else None


def merged_rewards(records: Sequence[Record]) -> list[list[float]]:
    """Return how many rows have about each reward, and are kept, over all pieces."""
    rewards: dict[float, list[int]] = {}
    for record in records:
        for value, rows, accepted in record.rewards:
            of = rewards.setdefault(value, [0, 0])
            of[0] += int(rows)
            of[1] += int(accepted)
    return [[value, *rewards[value]] for value in sorted(rewards)]
