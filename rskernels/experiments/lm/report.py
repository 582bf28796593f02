"""The report of the comparison: tables, figures, and every run as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rskernels.experiments.comparison.intervals import Interval
from rskernels.experiments.comparison.report import markdown, show_signed
from rskernels.experiments.lm import words
from rskernels.experiments.lm.analysis import (
    COSTS,
    START,
    TITLES,
    Measure,
    Runs,
    compared_of,
    exact_of,
    long_by_tilt,
    measures_of,
    to_own_tilt,
    verdict,
)
from rskernels.experiments.lm.figures import draw_courses, draw_trades
from rskernels.experiments.lm.guide import write_figures
from rskernels.experiments.lm.methods import BETA, NAMED, family_of
from rskernels.experiments.lm.rates import check_rates, rate_of, scores_of
from rskernels.experiments.lm.study import (
    FULL,
    QUICK,
    Size,
    Study,
    check_settings,
    run_name,
    settings_of,
    trial_name,
)
from rskernels.experiments.resumable import Piece, rounded
from rskernels.rsft.errors import CheckpointError

STEM = "language"
FILE = f"{STEM}.md"
DATA = f"{STEM}.json"
DIGITS = 6
EXACT = f"tilt-{BETA:g}"
REFERENCES = ("rft", EXACT)
PLAIN = "gradient"
GUIDE = Path("guides", "language_models.md")
"""Beside the folder of a report, where its figures are written too."""


def write_report(study: Study, size: Size, folder: Path, *, is_quick: bool = False) -> Path:
    """Write ``language.md``, its figures, and ``language.json``; return the first.

    Runs that the report there has and ``study`` lacks are kept: of other tasks, methods, seeds.

    Parameters
    ----------
    study : Study
        What there is: runs that are missing are named.
    size : Size
        All that there are to be, beside what the report there has.
    folder : Path
        Where to.
    is_quick : bool
        Whether the report says that its figures mean nothing.

    Raises
    ------
    CheckpointError
        If the report there is of other settings, or a run has not the rate that the trials choose.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = QUICK if is_quick else FULL
    study, size = _with_kept(study, size, _kept(folder, whole), whole)
    pieces, trials = study
    check_rates(pieces, trials, size.grid, size.tuned_on)
    tasks = [Runs(pieces, subject) for subject in size.subjects]
    tasks = [runs for runs in tasks if len(runs.methods) > 1]
    draw_courses(tasks, folder / f"{STEM}-courses.png")
    draw_trades(tasks, folder / f"{STEM}-trades.png")
    kept = {
        "settings": settings_of(size),
        "tuning": rounded(trials, DIGITS),
        "pieces": rounded(pieces, DIGITS),
    }
    (folder / DATA).write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
    sections = [
        "# Language models: which answers to train on",
        _origin(study, size, is_quick),
        words.EXPLAINED.format(**_numbers(size)),
        "## In short",
        words.SHORT,
        *(_short(runs) for runs in tasks),
        f"![Share of right answers, or mean reward, by rounds]({STEM}-courses.png)",
        f"![What is gained against divergence and diversity]({STEM}-trades.png)",
        *(_section(runs) for runs in tasks),
    ]
    if size.tuned_on:
        sections.append(_tuning(trials, size))
    if not is_quick:
        write_figures(tasks, folder.parent / GUIDE)
    path = folder / FILE
    path.write_text("\n\n".join(part.strip() for part in sections) + "\n", encoding="utf-8")
    return path


def restore(report: Path, size: Size, folder: Path, *, is_quick: bool = False) -> int:
    """Write the runs that a report has of some tasks and a folder lacks; return how many.

    Raises
    ------
    CheckpointError
        If the report, or the folder, has runs of other settings.
    """
    kept = _kept(report, QUICK if is_quick else FULL)
    check_settings(size, folder)
    files = [
        *((of["task"], run_name(of["task"], of["seed"], of["method"]), of) for of in kept.runs),
        *((of["task"], trial_name(*_trial(of)), of) for of in kept.trials),
    ]
    count = 0
    for task, name, piece in files:
        one = folder / f"{name}.json"
        if task in settings_of(size) and not one.exists():
            one.write_text(json.dumps(piece), encoding="utf-8")
            count += 1
    return count


def _kept(report: Path, whole: Size) -> Study:
    """Return what a report has; nothing, where there is no report."""
    path = report / DATA
    if not path.is_file():
        return Study([], [])
    kept = json.loads(path.read_text(encoding="utf-8"))
    settings = settings_of(whole)
    other = [name for name, said in kept["settings"].items() if said != settings.get(name)]
    if other:
        raise CheckpointError(
            f"{path} has runs of {', '.join(other)} with other settings, which a report here would "
            "drop: give another folder, or move it away"
        )
    return Study(kept["pieces"], kept["tuning"])


def _run(piece: Piece) -> tuple[str, int, str]:
    return piece["task"], piece["seed"], piece["method"]


def _trial(piece: Piece) -> tuple[str, int, str, float]:
    return *_run(piece), piece["lr"]


def _with_kept(study: Study, size: Size, kept: Study, whole: Size) -> tuple[Study, Size]:
    """Return what there is and what is kept, in the report's order, and what they are of.

    Seeds are then those of both, from the first to the last.
    """
    by_name = {_run(of): of for of in (*kept.runs, *study.runs)}
    trials = {_trial(of): of for of in (*kept.trials, *study.trials)}
    tasks = {subject.name for subject in size.subjects} | {of["task"] for of in kept.runs}
    methods = {START, *size.methods} | {of["method"] for of in kept.runs}
    seeds = {*size.seeds} | {of["seed"] for of in kept.runs}
    size = whole._replace(
        subjects=tuple(subject for subject in whole.subjects if subject.name in tasks),
        methods=tuple(key for key in whole.methods if key in methods),
        seeds=range(min(seeds), max(seeds) + 1),
    )
    order = [(s.name, n, key) for s in size.subjects for n in size.seeds for key in TITLES]
    runs = [by_name[name] for name in order if name in by_name]
    return Study(runs, [trials[name] for name in sorted(trials)]), size


def _origin(study: Study, size: Size, is_quick: bool) -> str:
    pieces = study.runs
    minutes = sum(piece["seconds"] for piece in (*pieces, *study.trials)) / 60
    wanted = len(size.subjects) * len(size.seeds) * (len(size.methods) + 1)
    text = (
        f"Made by `rskernels compare lm{' --quick' * is_quick}` in {minutes:.0f} minutes of one "
        f"CPU core, torch {' and '.join(sorted({piece['torch'] for piece in pieces}))}."
        " What follows from it stands in [the guide](../guides/language_models.md#which-to-choose)."
    )
    if is_quick:
        return f"{text} A trial of a few steps: its figures mean nothing."
    if len(pieces) < wanted:
        text += (
            f" **{len(pieces)} of {wanted} runs are made**; the same command makes the others. "
            "Figures are of the seeds that every method has finished, task by task."
        )
    others = [of.name for of in FULL.subjects if of not in size.subjects]
    if others:
        text += f" Of {' and '.join(others)} there are no runs here."
    return text


def _numbers(size: Size) -> dict[str, Any]:
    rows = [
        [
            subject.name,
            f"{subject.generated:,}", f"{subject.trained:,}", f"{subject.step:,}",
        ]
        for subject in size.subjects
    ]  # fmt: skip
    headings = ["", "generated a round", "trained a round", "a step"]
    first, rates = size.subjects[0], words.UNTUNED
    if size.tuned_on:
        tried = max(map(len, size.grid.values()))
        rates = words.RATES.format(tried=tried, tuned=len(size.tuned_on))
    return {
        "budgets": markdown(headings, rows), "rounds": first.rounds, "samples": first.samples,
        "tested": first.tested, "answers": first.answers,
        "rates": rates,
    }  # fmt: skip


def _tuning(trials: Sequence[Piece], size: Size) -> str:
    """Return what each learning rate came to, a task a table, those that were taken in bold."""
    parts = ["## Learning rates", words.TUNING.strip()]
    most = max(map(len, size.grid.values()))
    for subject in size.subjects:
        rows = []
        for key in size.methods:
            scores = scores_of(trials, subject.name, key)
            chosen = rate_of(trials, subject.name, key, size.grid, size.tuned_on)
            cells = [f"{sum(of) / len(of):.3f} at {lr:g}" for lr, of in sorted(scores.items())]
            taken = sorted(scores).index(chosen) if chosen in scores else -1
            cells = [f"**{c}**" if n == taken else c for n, c in enumerate(cells)]
            rows.append([TITLES[key], *cells, *["–"] * (most - len(cells))])
        parts += [f"{subject.name}:", markdown(["", *["score at rate"] * most], rows)]
    return "\n\n".join(parts)


def _short(runs: Runs) -> str:
    """Say against which methods exact selections win, tie and lose, a measure a column."""
    measures = compared_of(runs.subject)
    references = exact_of(runs, REFERENCES)
    rows = [
        [
            TITLES[other],
            *(
                ", ".join(verdict(runs, ours, other, measure) for ours in references)
                for measure in measures
            ),
        ]
        for other in runs.methods
        if other != START and family_of(other, runs.subject.form) != "exact"
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
        [TITLES[key], *(_shown(runs, measure, key) for measure in measures)] for key in runs.methods
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
    for reference in (*REFERENCES, PLAIN):
        others = [
            key
            for key in runs.methods
            if key not in (START, reference)
            and (reference != PLAIN or NAMED[key].family == "gradient")
        ]
        if reference in runs.methods and others:
            differences = [
                [TITLES[key], *(_shown(runs, m, key, less=reference) for m in compared)]
                for key in others
            ]
            parts += [
                f"Less *{TITLES[reference]}*, seed by seed:",
                markdown(["", *(measure.heading for measure in compared)], differences),
            ]
    return "\n\n".join(parts)


def _shown(runs: Runs, measure: Measure, method: str, *, less: str = "") -> str:
    """Show a mean or a difference, and of how many seeds it is where some lack it."""
    if less:
        interval, form = runs.difference(method, less, measure), ""
        seeds = runs.known(method, less, measure=measure)
    else:
        interval, form = runs.mean(method, measure), measure.form
        seeds = runs.known(method, measure=measure)
    text = _show(interval, form) if form else show_signed(interval)
    if seeds in (0, len(runs.seeds)):
        return text
    # Not bold: the seeds that have it are not as any others.
    return f"{text.strip('*')} ({seeds} of {len(runs.seeds)} seeds)"


def _show(interval: Interval, form: str) -> str:
    if math.isnan(interval.mean):
        return "–"
    if math.isnan(interval.half):
        return format(interval.mean, form)
    return f"{interval.mean:{form}} ± {interval.half:{form}}"
