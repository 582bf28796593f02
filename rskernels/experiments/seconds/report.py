"""The report of the study: tables, figures, and the figures themselves as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from rskernels.experiments.comparison.report import markdown, show_signed
from rskernels.experiments.resumable import Piece, rounded
from rskernels.experiments.seconds.analysis import LEVELS, Outcome, Ratio, outcomes, ratio_of
from rskernels.experiments.seconds.costs import Costs, costs_of
from rskernels.experiments.seconds.figures import draw_courses, draw_model, draw_speed
from rskernels.experiments.seconds.methods import BUDGETS, HALF_LIFE, METHODS
from rskernels.experiments.seconds.model import (
    WANTED,
    Ideal,
    smallest_row,
    speed_up,
    step_cost,
)
from rskernels.experiments.seconds.study import Size
from rskernels.experiments.seconds.texts import COSTS, COUNTED, LAWS, MODEL, TASK

Networks = dict[str, tuple[int, int, Costs]]


def write_report(pieces: Sequence[Piece], size: Size, folder: Path, *, is_quick: bool) -> Path:
    """Write ``seconds.md``, its figures and ``seconds.json`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    timed = [p for p in pieces if p["kind"] == "costs"]
    trained = [p for p in pieces if p["kind"] == "trained"]
    networks: Networks = {p["network"]: (p["parameters"], p["batch"], costs_of(p)) for p in timed}
    costs = networks[size.networks[0]][2]
    every = size.training.every
    results = outcomes(trained, every, costs)
    draw_courses(trained, every, costs, folder / "seconds-courses.png")
    draw_speed(results, folder / "seconds-speed.png")
    draw_model(results, networks, folder / "seconds-model.png")
    seconds = sum(p["seconds"] for p in pieces)
    parts = [
        "# When rejection pays in seconds",
        f"Made by `python -m rskernels.experiments.seconds{' --quick' if is_quick else ''}` in "
        f"{seconds / 60:.0f} minutes of one CPU core, torch {torch.__version__.partition('+')[0]}. "
        "What follows from it stands in [the guide](../guides/seconds.md).",
        *(["It is too short to conclude anything."] if is_quick else []),
        _verdict(results),
        "## What is trained",
        _task(pieces, networks[size.networks[0]][0], size),
        LAWS,
        "## Seconds to the accuracy of plain training",
        COUNTED.format(
            every=every, seeds=size.seeds, levels=", ".join(f"{level:.0%}" for level in LEVELS)
        ),
        _speeds(results, size),
        "![Each form's speed-up over plain training](seconds-speed.png)",
        "### Steps, laws, and the accuracy at the end",
        _steps(results),
        "![Accuracy against steps and against seconds](seconds-courses.png)",
        "## What the parts cost",
        COSTS.format(rounds=_range([p["rounds"] for p in timed])),
        _costs(networks),
        "## The cost model",
        MODEL.format(wanted=WANTED),
        _needed(results, networks),
        "![The R that is needed and the R measured; speed-up over size](seconds-model.png)",
        _sizes(results, networks),
    ]
    page = folder / "seconds.md"
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    record = {"size": size._asdict(), "pieces": [rounded(p, 4) for p in pieces]}
    text = json.dumps(record, separators=(",", ":"))
    (folder / "seconds.json").write_text(text + "\n", encoding="utf-8")
    return page


def _verdict(results: Sequence[Outcome]) -> str:
    last = LEVELS[-1]
    ours = [r for r in results if r.method.startswith("accept")]
    others = [r for r in results if r not in ours and r.method != "plain"]
    texts = []
    for group, what in ((ours, "forms of rejection"), (others, "other methods")):
        fast = [r for r in group if r.speed_up[last].mean >= WANTED]
        names = "; ".join(f"{r.name}: {_show(r.speed_up[last])}" for r in fast)
        texts.append(
            f"Of {len(group)} {what} {len(fast) or 'none'} reach{'es' if len(fast) < 2 else ''} "
            f"the accuracy of plain training at least {WANTED} times as fast"
            + (f" ({names})." if fast else ".")
        )
    best, rival = (max(group, key=lambda r: r.speed_up[last].mean) for group in (ours, others))
    ahead = ratio_of([b / a for a, b in zip(best.seconds, rival.seconds, strict=True)])
    texts.append(
        f"The fastest of the former, {best.name}, is {_show(ahead)} times as fast as the fastest "
        f"of the latter, {rival.name}, seed by seed."
    )
    return " ".join(texts)


def _task(pieces: Sequence[Piece], parameters: int, size: Size) -> str:
    chosen = size.training
    [scores] = [p for p in pieces if p["kind"] == "scores"]
    rows = next(p["rows"] for p in pieces if p["kind"] == "trained")
    return TASK.format(
        **chosen._asdict(),
        parameters=parameters,
        rows=rows,
        asked=scores["asked"],
        differing=scores["differing"],
        rarest=round(chosen.largest / chosen.imbalance),
        copies=chosen.largest / 120,
        passes=chosen.steps * chosen.batch / rows,
        seeds=size.seeds,
        half=HALF_LIFE,
    )


def _speeds(results: Sequence[Outcome], size: Size) -> str:
    headings = ["", "reached", "scored", "accepted", "seconds"]
    headings += [f"× as fast, to {level:.0%}" for level in LEVELS[::-1]]
    rows = [
        [
            r.name,
            f"{r.reached[LEVELS[-1]]} of {size.seeds}",
            f"{r.scored:.2f}",
            "–" if math.isnan(r.accepted) else f"{r.accepted:.2f}",
            f"{sum(r.seconds) / len(r.seconds):.2f}",
            *("1" if r.method == "plain" else _show(r.speed_up[x]) for x in LEVELS[::-1]),
        ]
        for r in results
    ]
    return markdown(headings, rows)


def _steps(results: Sequence[Outcome]) -> str:
    headings = ["", "R", "accuracy at the end", "against plain", "law"]
    rows = [
        [
            METHODS[r.method].forms[r.form].removesuffix(", fresh"),
            "1" if r.method == "plain" else _show(r.steps[LEVELS[-1]]),
            f"{r.end.mean:.3f} ± {r.end.half:.3f}",
            "" if r.method == "plain" else show_signed(r.gain),
            METHODS[r.method].law,
        ]
        for r in results
        if r.form != "kept"
    ]
    return markdown(headings, rows)


def _costs(networks: Networks) -> str:
    headings = ["", "parameters", "batch", "f, ms", "step", "update", "bf16", "keep", "resume"]
    headings += ["decide", "recall"]
    rows = []
    for name, (parameters, batch, costs) in networks.items():
        many = 3 * batch
        f = costs["score"].of(1, many) / many
        over = [costs["step"].of(1, batch) / batch, costs["step"].fixed / batch]
        over += [costs[part].of(1, many) / many for part in ("bf16", "keep")]
        over += [costs["resume"].of(1, batch) / batch, costs["decide"].of(1, many) / many]
        over += [costs["recall"].row]
        cells = [f"{value / f:.2f}" for value in over[:5]]
        cells += [f"{value / f:.3f}" for value in over[5:]]
        rows.append([name, f"{parameters:,}", str(batch), f"{1000 * f:.4f}", *cells])
    return markdown(headings, rows)


def _needed(results: Sequence[Outcome], networks: Networks) -> str:
    ideal = Ideal()
    headings = ["", "R measured", "needed, ω = 0, β = 1/2", *(f"needed, {n}" for n in networks)]
    rows = []
    for r in results:
        if not r.method.startswith("accept") or r.method.endswith("back"):
            continue
        rate = float(r.method.split("-")[1])
        needed = [WANTED / speed_up(r.form, rate, 1.0, b, c) for _, b, c in networks.values()]
        cells = [f"{value:.2f}" for value in (ideal.needed(r.form, rate), *needed)]
        rows.append([r.name, _show(r.steps[LEVELS[-1]]), *cells])
    return markdown(headings, rows)


def _sizes(results: Sequence[Outcome], networks: Networks) -> str:
    """Say from which size on each form pays, at the R measured."""
    last, lines, ideal = LEVELS[-1], [], Ideal()
    smallest, batch, small = min(networks.values(), key=lambda network: network[0])
    row = step_cost("step", 1.0, batch, small) / batch
    named = {(r.method, r.form): r for r in results}
    for rate in BUDGETS:
        cached = named[f"accept-{rate}-cached", "step"].steps[last].mean
        least = smallest_row(rate, cached, networks[next(iter(networks))][2])
        at = f"where a plain step takes {1e6 * least:.1f} µs a row or more"
        fresh = named[f"accept-{rate}-fresh", "fresh"].steps[last].mean
        afford = ideal.affordable(rate, fresh)
        ups = [ideal.speed_up(form, rate, fresh) for form in ("fresh", "bf16", "kept")]
        lines.append(
            f"- a = {rate}. *Cached*, R = {cached:.2f}: at least {WANTED} times as fast "
            + (at if math.isfinite(least) else "at no size")
            + f". *Fresh*, R = {fresh:.2f}: a score may cost "
            + (f"at most {afford:.2f} of a forward pass" if afford > 0 else "nothing at all")
            + f". However large the network, one in full makes it {ups[0]:.2f} times as fast, one "
            f"at half the cost {ups[1]:.2f}, and one that is kept {ups[2]:.2f}."
        )
    return (
        "At the R measured here, which is of this task and not of the network's size:\n\n"
        + "\n".join(lines)
        + f"\n\nA plain step of the smallest network timed, of {smallest:,} parameters, takes "
        f"{1e6 * row:.1f} µs a row. A decision does not grow with the network, a forward pass does."
    )


def _show(ratio: Ratio) -> str:
    if math.isnan(ratio.low):
        return f"{ratio.mean:.2f}"
    text = f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"**{text}**" if ratio.low > 1 or ratio.high < 1 else text


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
