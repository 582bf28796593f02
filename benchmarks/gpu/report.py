"""Turn a GPU run (JSON) into Markdown: ``python -m benchmarks.gpu.report GPU-NAME.JSON``."""

from __future__ import annotations

import json
import math
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.common.tables import MIB, number, speed, table, verdict
from benchmarks.common.thresholds import GPU_COPY_SHARE
from benchmarks.gpu.shapes import ACCEPTANCES, FULL, LARGE, Shape, lazy_name

LAZY = [lazy_name(acceptance) for acceptance in ACCEPTANCES]
HEADINGS = (
    "rows", "V", "ms", "GB/s", "of copy", "× eager", "fastest eager", "× compiled", "compiled",
    "× public", "public", "verify", *(name.removeprefix("verify_mask ") for name in LAZY),
    "extra MiB", "eager's",
)  # fmt: skip
ALIGNMENT = tuple(":--" if "fastest" in h or h in ("compiled", "public") else "--:"
                  for h in HEADINGS)  # fmt: skip

EXPLAINED = f"""\
Medians by CUDA events, the L2 cache flushed before every call (`triton.testing.do_bench`). *ms*,
*GB/s*: `{FULL}`, which reads every logit once; *of copy*: that over the bandwidth of a
device-to-device copy (bytes read and written) in the same run. *× eager*, *× compiled*,
*× public*: how many times faster than the fastest eager torch form, than the compiled one, and
than a public package, of those that give the same mask from the same inputs, computed in float32;
their time depends on neither the acceptance nor the direction of the ratio and is taken once a
shape. *verify*: how many times faster it is than `{FULL}`, returning log-probabilities and counts
too. *{", ".join(name.removeprefix("verify_mask ") for name in LAZY)}*: how many times faster
`verify_mask` decides than `{FULL}`, at that acceptance. *extra MiB*: how far a call raises the
peak of torch's allocator, its output included, of ours and of the fastest eager form. Bold:
slower."""


class Row:
    """What the table shows of one shape."""

    def __init__(self, result: dict[str, Any], bandwidth: float):
        self.result = result
        self.shape = Shape(result["rows"], result["columns"], result["dtype"])
        self.seconds = self._seconds("ours", FULL)
        self.gigabytes = self.shape.logits_bytes / self.seconds / 1e9
        self.share = 1e9 * self.gigabytes / bandwidth
        self.fastest = {kind: self._fastest(kind) for kind in ("eager", "compiled", "public")}

    def over(self, kind: str, operation: str = FULL) -> float:
        """Return how many times faster than the fastest form of a kind; NaN where not known."""
        return self.fastest[kind][1] / self._seconds("ours", operation)

    def over_full(self, operation: str) -> float:
        """Return how many times faster an operation is than the full pass for a mask."""
        return self.seconds / self._seconds("ours", operation)

    @property
    def slower_than(self) -> list[str]:
        """Return every operation that a form beats, with our speed over the form's."""
        return [
            f"{operation} {self.shape}: {self.over(kind, operation):.2f}× {form} ({kind})"
            for operation in self.result["ours"]
            for kind, (form, _) in self.fastest.items()
            if self.over(kind, operation) < 1.0
        ]

    def cells(self) -> list[str]:
        forms: list[str] = []
        for kind, (form, _) in self.fastest.items():
            forms += [speed(self.over(kind)), form]
        memory = self.result["memory"]
        return [
            str(self.shape.rows),
            str(self.shape.columns),
            number(1e3 * self.seconds),
            number(self.gigabytes),
            number(self.share),
            *forms,
            *(speed(self.over_full(name)) for name in ("verify", *LAZY)),
            *(number(_mebibytes(memory.get(kind))) for kind in ("ours", "eager")),
        ]

    def line(self) -> str:
        """Return the shape in a line, for who watches a run."""
        lazy = " ".join(number(self.over_full(name)) for name in LAZY)
        return (
            f"{self.shape!s:26} {1e3 * self.seconds:9.4g} ms {self.gigabytes:7.0f} GB/s "
            f"{self.share:5.2f} of copy {self.over('eager'):6.2f}x eager "
            f"{self.over('compiled'):6.2f}x compiled; lazy {lazy}"
        )

    def _seconds(self, kind: str, name: str) -> float:
        return self.result[kind].get(name, math.nan)

    def _fastest(self, kind: str) -> tuple[str, float]:
        forms = self.result[kind]
        return min(forms.items(), key=lambda form: form[1]) if forms else ("", math.nan)


def markdown(results: dict[str, Any]) -> str:
    """Return the whole report."""
    rows = [Row(result, results["copy_bandwidth"]) for result in results["shapes"]]
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    parts = [
        "# Speed: GPU",
        f"{machine}.\n{versions}.\n`{results['command']}`, {results['date']}, "
        f"{results['seconds']} s.",
        f"Copy bandwidth: {results['copy_bandwidth'] / 1e9:.0f} GB/s.",
        EXPLAINED,
        "## Required",
        table(("what", "required", "measured", ""), _required(results, rows)),
    ]
    for dtype, group in groupby(sorted(rows, key=_by_dtype), key=lambda row: row.shape.dtype):
        parts += [f"## {dtype}", table(HEADINGS, [row.cells() for row in group], ALIGNMENT)]
    if "times" in results.get("hidden", {}):
        parts += ["## log q of the targets from hidden states", _hidden(results["hidden"])]
    slower = [f"- {line}" for row in rows for line in row.slower_than]
    parts += ["## Below 1×", "\n".join(slower) or "None."]
    if results["failures"]:
        parts += ["## Wrong", "\n".join(f"- {failure}" for failure in results["failures"])]
    if results["notes"]:
        parts += ["## Notes", "\n".join(f"- {note}" for note in results["notes"])]
    return "\n\n".join(parts) + "\n"


def _by_dtype(row: Row) -> tuple[str, int, int]:
    return row.shape.dtype, row.shape.columns, row.shape.rows


def _required(results: dict[str, Any], rows: list[Row]) -> list[list[str]]:
    tests = results["tests"]
    wrong = len(results["failures"])
    slower = sum(bool(row.slower_than) for row in rows)
    lines = [
        ["the tests that need a GPU", "pass", f"{tests['outcome']}: {tests['summary']}",
         verdict(tests["outcome"] == "passed")],
        ["decisions against float64, lazy ones against the full pass", "none differ",
         f"{wrong} cases differ", verdict(not wrong)],
        ["shapes on which a torch form is faster", "0", f"{slower} of {len(rows)}",
         verdict(not slower)],
    ]  # fmt: skip
    large = [row for row in rows if row.shape == LARGE]
    for row in large:
        what, least = f"{FULL} {row.shape}: of the copy bandwidth", GPU_COPY_SHARE
        lines.append([what, f"≥ {least}", f"{row.share:.2f}", verdict(row.share >= least)])
    return lines


def _hidden(hidden: dict[str, Any]) -> str:
    rows, width, columns = hidden["sizes"]
    lines = [
        [name, number(1e3 * seconds), number(_mebibytes(hidden["memory"][name]))]
        for name, seconds in hidden["times"].items()
    ]  # fmt: skip
    text = f"Hidden states [{rows}, {width}], weights [{columns}, {width}], {hidden['dtype']}.\n\n"
    return text + table(("form", "ms", "extra MiB"), lines, (":--", "--:", "--:"))


def _mebibytes(value: int | None) -> float:
    return math.nan if value is None else value / MIB


if __name__ == "__main__":
    source = Path(sys.argv[1])
    source.with_suffix(".md").write_text(
        markdown(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8"
    )
