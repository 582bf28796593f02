"""The report of a comparison: tables, figures, and in words where rejection wins and where not."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from rskernels.experiments.comparison.figures import draw_accuracy, draw_envelopes
from rskernels.experiments.comparison.intervals import (
    BEFORE,
    Interval,
    Result,
    at_equal_cost,
    best_at_equal_cost,
    best_baseline,
    finished,
    mean_of,
    paired,
    t_interval,
)
from rskernels.experiments.suite import FROZEN, Experiment

# Heading, measure, format.
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("balanced accuracy", "balanced_accuracy", "{:.3f}".format),
    ("worst class", "worst_accuracy", "{:.3f}".format),
    ("calibration error", "calibration_error", "{:.3f}".format),
    ("gradient samples", "gradient_samples", "{:,.0f}".format),
    ("effective samples", "gradient_ess", "{:,.0f}".format),
    ("acceptance", "acceptance", "{:.2f}".format),
    ("seconds", "seconds", "{:.2f}".format),
)
VERDICTS = ("wins", "ties", "loses", "is not told apart", "cannot be compared")

Compared = Sequence[tuple[Experiment, Sequence[Result]]]

EXPLAINED = """\
± and brackets are 95 % t-intervals over the seeds, whose splits are of the same rows, so they say
nothing of other data; bands of the figures are one standard error. A seed decides split, pool,
which classes are rare and initial weights, the same for every case of an experiment (but that the
new head of *transfer* starts elsewhere by models than by densities), so differences are taken seed
by seed: a case **wins** or **loses** where the interval of its difference in balanced accuracy
leaves out 0, else it **ties**. The best baseline is the one of the highest mean on these same
seeds, which favours it a little; each interval is for its own comparison, uncorrected for their
number.

- *Worst class*: the least accuracy of a class. *Calibration error*: the expected calibration error
  over 15 bins of equal width (Guo et al., 2017).
- *Gradient samples*: rows that a gradient was computed for, repeats counted. *Effective samples*:
  (Σv)²/Σv² over them, v the share that each had in the gradient of its step.
- *At equal gradient samples* both courses are read where the one that used fewer ends.
- *Seconds*: of training steps and pilot pass on one thread, without evaluation and without what
  comes before the fine-tuning; the first run of a kind, which compiles, is not timed.
- Learning rate and batch are the same for all cases of an experiment and tuned for none; so are
  epochs, but that undersampling, whose epochs are shorter, gets more: five times as many of several
  modalities, as do the two cases of *accept* that say so, none under drift, and else so many that
  it uses as many gradient samples. *Target rows alone* are a tenth of the rows, and so of the
  gradient samples.
- *accept* and *control* decide by p̂/(M·q), p̂ the balance aimed at and q the model's
  probability of the label; what follows M is the policy by which M is learnt. Under drift they, and
  the weights, know the priors of each epoch; the samplers count its labels.
"""


def write_report(compared: Compared, folder: Path, *, is_quick: bool = False) -> Path:
    """Write ``report.md``, its figures, and ``results.json`` with every number of every seed.

    Returns
    -------
    Path
        The report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        e.name: {r.name: {m: listed(v) for m, v in r.measures.items()} for r in results}
        for e, results in compared
    }
    (folder / "results.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    sections = []
    for experiment, results in compared:
        draw_accuracy(results, folder / f"{experiment.name}-accuracy.png")
        rejecting = [r for r in results if r.rejects and r.courses]
        if rejecting:
            draw_envelopes(rejecting, folder / f"{experiment.name}-envelope.png")
        sections.append(section(experiment, results))
    seeds = len(compared[0][1][0].measures["seconds"])
    origin = (
        f"Made by `rskernels`, {seeds} seeds, on {os.cpu_count()} CPU cores, torch "
        f"{torch.__version__.partition('+')[0]}."
    )
    if is_quick:
        origin += " A trial of the machinery: too few seeds and epochs to conclude anything."
    text = "\n\n".join(
        [
            "# Rejection against its alternatives",
            origin,
            *failed(compared),
            overview(compared),
            EXPLAINED.rstrip(),
            *sections,
        ]
    )
    path = folder / "report.md"
    # The name of a folder in a reason may hold bytes that are no text.
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return path


def failed(compared: Compared) -> list[str]:
    """Say which runs failed and why, and of what the figures then are."""
    cases = [r for _, results in compared for r in results if r.name != BEFORE]
    failures = [failure for r in cases for failure in r.failures]
    if not failures:
        return []
    total = sum(len(r.measures["seconds"]) for r in cases)
    return [
        f"**{len(failures)} of {total} runs failed.** Means and intervals of their cases are of "
        "the seeds that are left, as the tables say, and differences of those that both cases "
        "have: that favours a case which fails where it would have done badly.",
        "\n".join(
            f"- *{f.run.case}* of {f.run.experiment}, seed {f.run.config.seed}: {f.reason}"
            for f in failures
        ),
    ]


def section(experiment: Experiment, results: Sequence[Result]) -> str:
    """Return the part of the report that an experiment has."""
    first = results[0].title
    rows, name = [], experiment.name
    for r in results[1:]:
        cells = [show_signed(paired(r, results[0], m)) for _, m, _ in COLUMNS[:3]]
        equal = at_equal_cost(r, results[0])
        rows.append([r.title, *cells, "–" if equal is None else show_signed(equal)])
    headings = [heading for heading, _, _ in COLUMNS[:3]]
    parts = [
        f"## {experiment.title}",
        "\n".join(f"- {sentence}" for sentence in [*sentences(results), *frozen(results)]),
        markdown(*table(results)),
        f"Less *{first}*, seed by seed; the last column at equal gradient samples:",
        markdown(["", *headings, "balanced accuracy, equal cost"], rows),
        f"![Accuracy against gradient samples]({name}-accuracy.png)",
    ]
    rejecting = [r for r in results if r.rejects and r.courses]
    if rejecting:
        parts += [
            "From the first epoch to the last; δ̂ estimates how far, at most, the accepted law is "
            "from the one aimed at:",
            markdown(["", "M", "acceptance", "δ̂", "violations"], envelope_rows(rejecting)),
            f"![Acceptance, M and excess mass over time]({name}-envelope.png)",
        ]
    return "\n\n".join(parts)


def sentences(results: Sequence[Result]) -> list[str]:
    """Say of each case that rejects how it does against the best baseline."""
    lines = []
    for r in results:
        if r.is_baseline:
            continue
        best, difference = best_baseline(r, results)
        if math.isnan(difference.mean):
            lines.append(f"`{r.title}` **{difference.verdict}** with *{best.title}*.")
            continue
        common = finished(r, best)
        spent, seconds = (
            [float(mean_of(x.measures[name][common])) for x in (r, best)]
            for name in ("gradient_samples", "seconds")
        )
        text = (
            f"`{r.title}` **{difference.verdict}** against the best baseline, *{best.title}*: "
            f"{show_range(difference)}, with {show(spent[0])} gradient samples for "
            f"{show(spent[1])} and {seconds[0]:.2f} s for {seconds[1]:.2f} s."
        )
        equal = best_at_equal_cost(r, results)
        if equal is not None:
            text += (
                f" At equal gradient samples it **{equal[1].verdict}** against the best there, "
                f"*{equal[0].title}*: {show_range(equal[1])}."
            )
        lines.append(text)
    return lines


def frozen(results: Sequence[Result]) -> list[str]:
    """Say how an M that the pilot has fixed does against the same that goes on learning."""
    by_name = {r.name: r for r in results}
    lines = []
    for r in results:
        moving = by_name.get(r.name.removesuffix(FROZEN))
        if moving is None or moving is r or not (moving.courses and r.courses):
            continue
        difference = paired(r, moving, "balanced_accuracy")
        start = f"`{r.title}` **{difference.verdict}**"
        if math.isnan(difference.mean):
            lines.append(f"{start} with the M that goes on learning.")
            continue
        common = finished(r, moving)
        late = [x.courses["delta"].shape[1] // 2 for x in (r, moving)]
        M, acceptance, delta = (
            [
                float(mean_of(x.courses[name][common, at:]).mean())
                for x, at in zip((r, moving), late, strict=True)
            ]
            for name in ("M", "acceptance", "delta")
        )
        lines.append(
            f"{start} against the M that goes on learning: "
            f"{show_range(difference)}. Over the second half M is {M[0]:.3g} for {M[1]:.3g}, "
            f"acceptance {acceptance[0]:.2f} for {acceptance[1]:.2f}, δ̂ {delta[0]:.3f} for "
            f"{delta[1]:.3f}."
        )
    return lines


def overview(compared: Compared) -> str:
    """Count how often rejection wins, ties and loses, and show it case by case."""
    rows, ends, equals = [], Counter[str](), Counter[str]()
    for experiment, results in compared:
        for r in results:
            if r.is_baseline:
                continue
            best, difference = best_baseline(r, results)
            equal = best_at_equal_cost(r, results)
            ends[difference.verdict] += 1
            cells = ["–", "–"]
            if equal is not None:
                equals[equal[1].verdict] += 1
                cells = [equal[1].verdict, equal[0].title]
            case = f"{experiment.name}: {r.title}"
            rows.append([case, difference.verdict, best.title, *cells])
    if not rows:
        return "No case of rejection was among those chosen."
    at_end, at_equal = (
        ", ".join(f"{verdict} {count[verdict]}" for verdict in VERDICTS if count[verdict])
        for count in (ends, equals)
    )
    text = f"Of {len(rows)} cases of rejection against the best baseline: {at_end}."
    if at_equal:
        text += f" At equal gradient samples: {at_equal}."
    headings = ["", "at the end", "best baseline", "at equal gradient samples", "best there"]
    return f"{text}\n\n{markdown(headings, rows, numbers=False)}"


def table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: mean ± 95 % interval of each measure, a case a row."""
    rows = []
    for r in results:
        cells = []
        for _, measure, form in COLUMNS:
            mean, half = t_interval(r.measures[measure])
            spread = "" if math.isnan(half) else f" ± {form(half)}"
            cells.append("–" if math.isnan(mean) else form(mean) + spread)
        rows.append([r.title, *cells])
    return ["", *(heading for heading, _, _ in COLUMNS)], rows


def envelope_rows(results: Sequence[Result]) -> list[list[str]]:
    """Return what M, acceptance and δ̂ were in the first epoch and the last, a case a row."""
    rows = []
    for r in results:
        first, last = ({k: mean_of(v[:, e]) for k, v in r.courses.items()} for e in (0, -1))
        rows.append(
            [
                r.title,
                f"{first['M']:.3g} → {last['M']:.3g}",
                f"{first['acceptance']:.2f} → {last['acceptance']:.2f}",
                f"{first['delta']:.3f} → {last['delta']:.3f}",
                f"{mean_of(r.measures['violations_share']):.1%}",
            ]
        )
    return rows


def markdown(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> str:
    """Return a Markdown table whose columns, but for the first, are numbers."""
    rule = ["---", *["---:" if numbers else "---"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def show(value: float) -> str:
    """Show a count."""
    return f"{value:,.0f}"


def show_signed(interval: Interval) -> str:
    """Show a difference and its interval, in bold where that leaves out 0."""
    if math.isnan(interval.mean):
        return "–"
    if math.isnan(interval.half):
        return f"{interval.mean:+.3f}"
    text = f"{interval.mean:+.3f} ± {interval.half:.3f}"
    return text if interval.verdict == "ties" else f"**{text}**"


def show_range(interval: Interval) -> str:
    """Show a difference with the ends of its interval."""
    mean, half = interval
    if math.isnan(half):
        return f"{mean:+.3f}, of one seed"
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def listed(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON takes them; None stands for NaN."""
    return [None if math.isnan(v) else v for v in values.tolist()]
