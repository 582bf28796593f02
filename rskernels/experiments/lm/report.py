"""The report of the comparison: tables, figures, and every run as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rskernels.experiments.comparison.intervals import Interval
from rskernels.experiments.comparison.report import markdown, show_signed
from rskernels.experiments.lm import words
from rskernels.experiments.lm.analysis import (
    COSTS,
    START,
    TITLES,
    Runs,
    compared_of,
    long_by_tilt,
    measures_of,
    to_own_tilt,
    verdict,
)
from rskernels.experiments.lm.figures import draw_courses, draw_trades
from rskernels.experiments.lm.methods import BETA, NAMED
from rskernels.experiments.lm.study import Size, settings_of
from rskernels.experiments.resumable import Piece

STEM = "language"
FILE = f"{STEM}.md"
DATA = f"{STEM}.json"
EXACT = f"tilt-{BETA:g}"
REFERENCES = ("rft", EXACT)


def write_report(
    pieces: Sequence[Piece], size: Size, folder: Path, *, is_quick: bool = False
) -> Path:
    """Write ``language.md``, its figures, and ``language.json``; return the first.

    Parameters
    ----------
    pieces : sequence of dict
        The runs there are: those that are missing are named.
    size : Size
        All that there are to be.
    folder : Path
        Where to.
    is_quick : bool
        Whether the report says that its figures mean nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [Runs(pieces, subject) for subject in size.subjects]
    tasks = [runs for runs in tasks if len(runs.methods) > 1]
    draw_courses(tasks, folder / f"{STEM}-courses.png")
    draw_trades(tasks, folder / f"{STEM}-trades.png")
    kept = {"settings": settings_of(size), "pieces": _rounded(list(pieces))}
    (folder / DATA).write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
    sections = [
        "# Language models: which answers to train on",
        _origin(pieces, size, is_quick),
        words.EXPLAINED.format(**_numbers(size)),
        "## In short",
        words.SHORT,
        *(_short(runs) for runs in tasks),
        f"![Share of right answers, or mean reward, by rounds]({STEM}-courses.png)",
        f"![What is gained against divergence and diversity]({STEM}-trades.png)",
        *(_section(runs) for runs in tasks),
    ]
    path = folder / FILE
    path.write_text("\n\n".join(part.strip() for part in sections) + "\n", encoding="utf-8")
    return path


def restore(report: Path, size: Size, folder: Path) -> int:
    """Write the runs that a report has and a folder lacks; return how many.

    Of tasks whose settings are the same; nothing, where there is no report.
    """
    path = report / DATA
    if not path.is_file():
        return 0
    kept = json.loads(path.read_text(encoding="utf-8"))
    settings = settings_of(size)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for piece in kept["pieces"]:
        one = folder / f"{piece['task']}-{piece['seed']}-{piece['method']}.json"
        name = piece["task"]
        if kept["settings"].get(name) == settings.get(name, ...) and not one.exists():
            one.write_text(json.dumps(piece), encoding="utf-8")
            count += 1
    return count


def _origin(pieces: Sequence[Piece], size: Size, is_quick: bool) -> str:
    minutes = sum(piece["seconds"] for piece in pieces) / 60
    wanted = len(size.subjects) * len(size.seeds) * (len(size.methods) + 1)
    text = (
        f"Made by `rskernels compare lm{' --quick' * is_quick}` in {minutes:.0f} minutes of one "
        f"CPU core, torch {torch.__version__.partition('+')[0]}."
    )
    if is_quick:
        return f"{text} A trial of a few steps: its figures mean nothing."
    if len(pieces) < wanted:
        text += (
            f" **{len(pieces)} of {wanted} runs are made**; the same command makes the others. "
            "Figures are of the seeds that there are, and differences of those that both have."
        )
    return text


def _numbers(size: Size) -> dict[str, Any]:
    rows = [
        [
            subject.name,
            f"{subject.generated:,}", f"{subject.trained:,}", f"{subject.step:,}",
            *(f"{subject.rates[kind]:g}" for kind in ("rows", "gradient", "fresh")),
        ]
        for subject in size.subjects
    ]  # fmt: skip
    headings = [
        "", "generated a round", "trained a round", "a step", "learning rate",
        "of the policy gradient", "with fresh answers",
    ]  # fmt: skip
    first = size.subjects[0]
    return {
        "budgets": markdown(headings, rows), "rounds": first.rounds, "samples": first.samples,
        "tested": first.tested, "answers": first.answers,
    }  # fmt: skip


def _short(runs: Runs) -> str:
    """Say against which methods exact selections win, tie and lose, a measure a column."""
    measures = compared_of(runs.subject)
    references = [key for key in REFERENCES if key in runs.methods]
    rows = [
        [
            TITLES[other],
            *(
                ", ".join(verdict(runs, ours, other, measure) for ours in references)
                for measure in measures
            ),
        ]
        for other in runs.methods
        if other != START and NAMED[other].family != "exact"
    ]
    headings = [
        f"{m.heading}, {'less' if m.more_is_better is False else 'more'} is better"
        for m in measures
    ]
    title = f"**{runs.subject.name}**: {' and '.join(TITLES[key] for key in references)}, against"
    return f"{title}\n\n{markdown(['', *headings], rows)}"


def _section(runs: Runs) -> str:
    subject, measures = runs.subject, measures_of(runs.subject)
    headings = ["", *(measure.heading for measure in measures)]
    rows = [
        [TITLES[key], *(_show(runs.mean(key, measure), measure.form) for measure in measures)]
        for key in runs.methods
    ]
    own = {"graph": ("KL from its own tilt", to_own_tilt),
           "parity": ("long, by its own tilt", long_by_tilt)}  # fmt: skip
    if subject.name in own:
        heading, of = own[subject.name]
        headings.append(heading)
        for row, key in zip(rows, runs.methods, strict=True):
            row.append(_show(of(runs, key), ".3f"))
    costs = [
        [TITLES[key], *(_show(runs.mean(key, measure), measure.form) for measure in COSTS)]
        for key in runs.methods
        if key != START
    ]
    parts = [
        f"## {subject.name}",
        words.TASKS[subject.name],
        f"{len(runs.seeds)} seeds.",
        markdown(headings, rows),
        "What was kept of the answers, and what it cost:",
        markdown(["", *(measure.heading for measure in COSTS)], costs),
    ]
    compared = compared_of(subject)
    for reference in REFERENCES:
        if reference in runs.methods:
            differences = [
                [TITLES[key], *(show_signed(runs.difference(key, reference, m)) for m in compared)]
                for key in runs.methods
                if key not in (START, reference)
            ]
            parts += [
                f"Less *{TITLES[reference]}*, seed by seed:",
                markdown(["", *(measure.heading for measure in compared)], differences),
            ]
    return "\n\n".join(parts)


def _show(interval: Interval, form: str) -> str:
    if math.isnan(interval.mean):
        return "–"
    if math.isnan(interval.half):
        return format(interval.mean, form)
    return f"{interval.mean:{form}} ± {interval.half:{form}}"


def _rounded(value: Any) -> Any:
    """Return what JSON holds with six digits of every number."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
