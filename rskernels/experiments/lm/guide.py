"""The figures of the guide, which the report writes there: none of them is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rskernels.experiments.comparison.report import markdown
from rskernels.experiments.lm.analysis import DISTINCT, KL, PASS, REWARD, TITLES, Runs

BEGIN = "<!-- figures: written by rskernels compare lm --report -->"
END = "<!-- end of figures -->"


def figures_of(tasks: Sequence[Runs]) -> str:
    """Return a table of the means over seeds: a method a row, and three measures a task."""
    columns = [
        (runs, measure)
        for runs in tasks
        for measure in (REWARD if runs.subject.enumerated else PASS, DISTINCT, KL)
    ]
    headings = ["", *(f"{runs.subject.name}: {measure.heading}" for runs, measure in columns)]
    rows = [
        [
            TITLES[key],
            *(
                format(runs.mean(key, measure).mean, ".2f") if key in runs.methods else "–"
                for runs, measure in columns
            ),
        ]
        for key in TITLES
        if any(key in runs.methods for runs in tasks)
    ]
    seeds = ", ".join(f"{runs.subject.name} {len(runs.seeds)}" for runs in tasks)
    return f"{markdown(headings, rows)}\n\nMeans over seeds: {seeds}."


def write_figures(tasks: Sequence[Runs], guide: Path) -> bool:
    """Write the table between its marks in a guide; False if there is no guide, or no marks."""
    text = guide.read_text(encoding="utf-8") if guide.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return False
    guide.write_text(f"{before}{BEGIN}\n{figures_of(tasks)}\n{END}{after}", encoding="utf-8")
    return True
