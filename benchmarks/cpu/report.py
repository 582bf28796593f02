"""Turn measured CPU cases (JSON) into Markdown: ``python -m benchmarks.cpu.report CPU.JSON``."""

from __future__ import annotations

import json
import math
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.common import thresholds
from benchmarks.common.cases import Case
from benchmarks.common.tables import MIB, number, speed, table, verdict

NOISY = 0.2  # spread of the quartiles over the median

HEADINGS = (
    "rows", "V", "ms", "GB/s", "of limit", "× eager", "fastest eager", "× compiled",
    "fastest compiled", "extra MiB", "eager's",
)  # fmt: skip
ALIGNMENT = ("--:",) * 6 + (":--", "--:", ":--", "--:", "--:")

EXPLAINED = """\
Medians of alternating rounds in one process, all threads. GB/s: the fewest bytes that the
operation must move (the logits once; the dense form's mask too; three times the logits for the
gradient) over the time. *of limit*: that over the practical read limit, which is the row maximum
of the same array in the same rounds, by the faster of torch's `amax` and a vectorised Numba
kernel. *× eager*, *× compiled*: how many times faster than the fastest eager and
the fastest compiled torch form that gives the same answer from the same inputs, computed in
float32. *extra*: how far a call raises resident memory, its output included, of ours and of the
fastest eager form. Bold: slower than that torch form."""

# What a measure of thresholds.CPU is, in the table of what is required.
MEASURES = {
    "over_torch": "× the fastest torch form",
    "over_eager": "× the fastest eager form",
    "over_compiled": "× the fastest compiled form",
    "over_full": "× its full pass",
    "share": "of the read limit",
}


class Row:
    """What the table shows of one case.

    ``result`` holds the fields of the case, ``ours`` (median, low and high seconds), and by the
    kind of form (``eager``, ``rounded`` to bfloat16, ``compiled``, ``limit``, ``full``) the median
    seconds of each.
    """

    def __init__(self, result: dict[str, Any]):
        self.case = Case(*(result[field] for field in Case.__dataclass_fields__))
        self.result = result
        self.seconds = result["ours"]["median"]
        self.gigabytes = self.case.bytes / self.seconds / 1e9
        self.limit, limit = self._fastest("limit")
        # Per byte, so that an operation that moves more than the logits is compared fairly.
        self.share = limit * self.case.bytes / self.case.logits_bytes / self.seconds
        self.eager, self.over_eager = self._over("eager")
        self.compiled, self.over_compiled = self._over("compiled")
        self.rounded, self.over_rounded = self._over("rounded")
        _, self.over_full = self._over("full")

    @property
    def over_torch(self) -> float:
        """How many times faster than the fastest torch form."""
        return min(self.over_eager, self.over_compiled)

    @property
    def title(self) -> str:
        text = f"{self.case.operation}, {self.case.dtype}"
        share = self.case.acceptance
        return text if share == 0.5 else f"{text}, {100 * share:g} % accepted"

    @property
    def name(self) -> str:
        return f"{self.title} [{self.case.rows}, {self.case.columns}]"

    @property
    def slower_than(self) -> list[str]:
        """Return the torch forms that beat this case, with our speed over theirs."""
        pairs = (
            (self.eager, self.over_eager, "eager"),
            (self.compiled, self.over_compiled, "compiled"),
            (self.rounded, self.over_rounded, "eager, q rounded to bfloat16"),
        )
        return [f"{ratio:.2f}× {name} ({kind})" for name, ratio, kind in pairs if ratio < 1.0]

    @property
    def spread(self) -> float:
        ours = self.result["ours"]
        return (ours["high"] - ours["low"]) / ours["median"]

    def memory(self, kind: str) -> float:
        """Return extra memory in MiB, NaN where it was not measured."""
        value = self.result.get("memory", {}).get(kind)
        return math.nan if value is None else value / MIB

    def cells(self) -> list[str]:
        return [
            str(self.case.rows),
            str(self.case.columns),
            number(1e3 * self.seconds),
            number(self.gigabytes),
            number(self.share),
            speed(self.over_eager),
            self.eager,
            speed(self.over_compiled),
            self.compiled,
            number(self.memory("ours")),
            number(self.memory("eager")),
        ]

    def line(self) -> str:
        """Return the case in a line, for who watches a run."""
        return (
            f"{self.name:48} {1e3 * self.seconds:10.4g} ms {self.gigabytes:7.1f} GB/s "
            f"{self.share:5.2f} of limit {self.over_eager:7.2f}x eager "
            f"{self.over_compiled:7.2f}x compiled"
        )

    def _fastest(self, kind: str) -> tuple[str, float]:
        forms = self.result.get(kind, {})
        return min(forms.items(), key=lambda form: form[1]) if forms else ("", math.nan)

    def _over(self, kind: str) -> tuple[str, float]:
        """Return the fastest form of a kind, and how many times faster we are."""
        name, seconds = self._fastest(kind)
        return name, seconds / self.seconds


def markdown(results: dict[str, Any]) -> str:
    """Return the whole report."""
    measured = [Row(result) for result in results["cases"]]
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    parts = [
        "# Speed: CPU",
        f"{machine}.\n{versions}.\n`{results['command']}`, {results['date']}, "
        f"{results['seconds']} s.",
    ]
    parts.append(EXPLAINED)
    required = _required({row.case: row for row in measured})
    if required:
        parts += ["## Required", table(("what", "required", "measured", ""), required)]
    ordered = sorted(measured, key=lambda row: row.title)
    for title, group in groupby(ordered, key=lambda row: row.title):
        by_shape = sorted(group, key=lambda row: (row.case.columns, row.case.rows))
        parts += [f"## {title}", table(HEADINGS, [row.cells() for row in by_shape], ALIGNMENT)]
    slower = [f"- {row.name}: {', '.join(row.slower_than)}" for row in measured if row.slower_than]
    parts += ["## Below 1×", "\n".join(slower) or "None."]
    noisy = [row.name for row in measured if row.spread > NOISY]
    if noisy:
        parts += [
            f"## Noisy\n\nQuartiles more than {NOISY:.0%} of the median apart: {'; '.join(noisy)}."
        ]
    return "\n\n".join(parts) + "\n"


def _required(rows: dict[Case, Row]) -> list[list[str]]:
    """Return what is required of the cases that were measured."""
    lines = []
    for case, measure, least in thresholds.CPU:
        if case in rows and not math.isnan(value := getattr(rows[case], measure)):
            what = f"{rows[case].name}: {MEASURES[measure]}"
            lines.append([what, f"≥ {least:.3g}", f"{value:.2f}", verdict(value >= least)])
    most = thresholds.CPU_MEMORY
    for case in thresholds.CPU_MEMORY_CASES:
        if case in rows:
            share = rows[case].memory("ours") * MIB / case.logits_bytes
            what = f"{rows[case].name}: extra memory of the logits"
            lines.append([what, f"≤ {100 * most:g} %", f"{share:.3%}", verdict(share <= most)])
    return lines


if __name__ == "__main__":
    source = Path(sys.argv[1])
    source.with_suffix(".md").write_text(
        markdown(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8"
    )
