"""Turn measured cases (JSON) into Markdown: ``python benchmarks/report.py results/cpu.json``."""

from __future__ import annotations

import json
import math
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from cases import LAZY_SPEED

NOISY = 0.2  # spread of the quartiles over the median
MIB = 2**20

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


class Row:
    """What the table shows of one case."""

    def __init__(self, result: dict[str, Any]):
        self.result = result
        self.operation, self.dtype = result["operation"], result["dtype"]
        self.shape = (result["rows"], result["columns"])
        self.acceptance = result["acceptance"]
        self.seconds = result["ours"]["median"]
        self.gigabytes = result["bytes"] / self.seconds / 1e9
        self.limit, limit = self._fastest("limit")
        # Per byte, so that an operation that moves more than the logits is compared fairly.
        self.share = limit * result["bytes"] / result["logits_bytes"] / self.seconds
        self.eager, eager = self._fastest("eager")
        self.compiled, compiled = self._fastest("compiled")
        self.over_eager, self.over_compiled = eager / self.seconds, compiled / self.seconds
        _, full = self._fastest("full")
        self.over_full = full / self.seconds
        self.rounding, rounding = self._fastest("eager", is_exact=False)
        self.over_rounding = rounding / self.seconds

    @property
    def title(self) -> str:
        text = f"{self.operation}, {self.dtype}"
        return text if self.acceptance == 0.5 else f"{text}, {100 * self.acceptance:g} % accepted"

    @property
    def name(self) -> str:
        return f"{self.title} {list(self.shape)}"

    @property
    def slower_than(self) -> list[str]:
        """Return the torch forms that beat this case, with our speed over theirs."""
        pairs = (
            (self.eager, self.over_eager, "eager"),
            (self.compiled, self.over_compiled, "compiled"),
            (self.rounding, self.over_rounding, "eager, q rounded to bfloat16"),
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
            str(self.shape[0]),
            str(self.shape[1]),
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

    def _fastest(self, kind: str, is_exact: bool = True) -> tuple[str, float]:
        forms = {
            name: timing["median"]
            for name, timing in self.result.get(kind, {}).items()
            if timing.get("is_exact", True) == is_exact
        }
        return min(forms.items(), key=lambda form: form[1]) if forms else ("", math.nan)


def line(result: dict[str, Any]) -> str:
    """Return one case in a line, for who watches a run."""
    row = Row(result)
    return (
        f"{row.name:48} {1e3 * row.seconds:10.4g} ms {row.gigabytes:7.1f} GB/s "
        f"{row.share:5.2f} of limit {row.over_eager:7.2f}x eager "
        f"{row.over_compiled:7.2f}x compiled"
    )


def write(results: dict[str, Any], out: Path) -> None:
    """Write the JSON, and the Markdown beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(results))


def rows(results: dict[str, Any]) -> list[Row]:
    return [Row(result) for result in results["cases"]]


def markdown(results: dict[str, Any]) -> str:
    """Return the whole report."""
    measured = rows(results)
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    parts = [
        f"# Speed: {results['kind'].upper()}",
        f"{machine}.\n{versions}.\n`{results['command']}`, {results['date']}, "
        f"{results['seconds']} s.",
    ]
    parts.append(EXPLAINED)
    required = _required(measured)
    if required:
        parts += ["## Required", table(("what", "required", "measured", ""), required)]
    ordered = sorted(measured, key=lambda row: row.title)
    for title, group in groupby(ordered, key=lambda row: row.title):
        cells = [row.cells() for row in sorted(group, key=lambda row: row.shape[::-1])]
        parts += [f"## {title}", table(HEADINGS, cells, ALIGNMENT)]
    parts += ["## Below 1×", _slower(measured)]
    noisy = [row.name for row in measured if row.spread > NOISY]
    if noisy:
        parts += [
            f"## Noisy\n\nQuartiles more than {NOISY:.0%} of the median apart: {'; '.join(noisy)}."
        ]
    if results.get("notes"):
        parts += ["## Notes", "\n".join(f"- {note}" for note in results["notes"])]
    return "\n\n".join(parts) + "\n"


def _required(measured: list[Row]) -> list[list[str]]:
    """Return what the project asks of the CPU, against what was measured."""
    cases = {(row.operation, row.shape, row.dtype): row for row in measured}
    lines = []

    def need(what: str, least: float, value: float) -> None:
        lines.append([what, f"≥ {least:g}", f"{value:.2f}", verdict(value >= least)])

    def need_little_memory(row: Row) -> None:
        share = row.memory("ours") * MIB / row.result["logits_bytes"]
        what = f"{row.name}: extra memory of the logits"
        lines.append([what, "≤ 1 %", f"{share:.3%}", verdict(share <= 0.01)])

    large = cases.get(("accept_mask", (2048, 32000), "float32"))
    if large:
        torch_form = min(large.over_eager, large.over_compiled)
        need(f"{large.name}: × the fastest torch form", 2.0, torch_form)
        need(f"{large.name}: × the fastest eager form", 8.0, large.over_eager)
        need(f"{large.name}: of the read limit", 0.55, large.share)
        need(f"{large.name}: of the read limit, as a full pass", 0.6, large.share)
        need(f"{large.name}: × the fastest compiled form", 2.2, large.over_compiled)
        need_little_memory(large)
    short = cases.get(("accept_mask", (2048, 32000), "bfloat16"))
    if short:
        need(f"{short.name}: of the read limit", 0.4, short.share)
    for shape in ((2048, 1000), (256, 32000)):
        if dense := cases.get(("accept_mask dense", shape, "float32")):
            need(f"{dense.name}: × the fastest eager form", 3.0, dense.over_eager)
    for row in measured:
        if row.operation == "verify_mask" and not math.isnan(row.over_full):
            need(f"{row.name}: × its full pass", LAZY_SPEED[row.acceptance], row.over_full)
    estimate = cases.get(("estimate_M", (2048, 32000), "float32"))
    if estimate:
        need(f"{estimate.name}: of the read limit", 0.45, estimate.share)
        need_little_memory(estimate)
    small = cases.get(("accept_mask", (4, 10), "float32"))
    if small:
        need(f"{small.name}: × the fastest eager form", 1.0, small.over_eager)
    return lines


def _slower(measured: list[Row]) -> str:
    lines = [f"- {row.name}: {', '.join(row.slower_than)}" for row in measured if row.slower_than]
    return "\n".join(lines) if lines else "None."


def verdict(holds: bool) -> str:
    return "met" if holds else "**not met**"


def number(value: float) -> str:
    if math.isnan(value):
        return ""
    if value >= 100.0:
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.3g}"


def speed(ratio: float) -> str:
    if math.isnan(ratio):
        return ""
    text = f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"
    return f"**{text}**" if ratio < 1.0 else text


def table(
    headings: tuple[str, ...], lines: list[list[str]], alignment: tuple[str, ...] | None = None
) -> str:
    marks = alignment or (":--",) * len(headings)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, marks, *lines))


if __name__ == "__main__":
    source = Path(sys.argv[1])
    source.with_suffix(".md").write_text(markdown(json.loads(source.read_text())))
