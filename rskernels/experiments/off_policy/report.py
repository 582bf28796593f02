"""The report of the study: tables, figures, and the figures themselves as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rskernels.experiments.comparison.intervals import Interval, t_interval
from rskernels.experiments.comparison.report import markdown, show_signed
from rskernels.experiments.off_policy.figures import draw_enumerated, draw_trained
from rskernels.experiments.off_policy.study import Size
from rskernels.experiments.resumable import Piece, rounded

LAST = 10
"""Steps whose mean is the return at the end."""
FEW = 0.05
"""Of envelopes with an M: figures of fewer say nothing."""

EXPLAINED = """\
The policy is a table of logits, one for each place, token before and token: {V} tokens, sequences
of {T}, so {S:,} sequences, whose laws and gradients are summed exactly. The current policy was
trained by {updates} exact gradient steps; rollouts come from what it was some updates before, or
from a copy with noise on its logits, as of an engine that computes otherwise. Rewards: *verifier*
is 1 where at least three of five tokens are 3 above the one before, modulo {V}, else 0; *smooth*
is the mean of (1 + cos(2π(d - 3)/{V}))/2 over these differences d. The gradient wanted is that of
the mean reward under the current policy; the baseline is the mean reward under the stale one. A
batch has {n} rollouts.

- *Kept*: the share of tokens that need a gradient.
- *Bias*: ‖E ĝ - g‖/‖g‖. *Cosine*: between E ĝ and g, for optimisers that ignore the scale.
- *Sd*: the root of the trace of ĝ's covariance, over ‖g‖. *At equal tokens*: times √kept, as if
  so many more rollouts were drawn that as many tokens need a gradient. *Error*: √(bias² + sd²), of
  this size of batch.
- *Reward*: bias and sd of the estimate of E[reward], the mean of rewards by the same weights.
- Rows without ± are exact, by enumeration. Rows with ± at every figure learn M: they are exact
  given M, over the M of {envelopes} envelopes that had each seen {pilot:,} rollouts, and ± is the
  standard error that comes of which M these are, by the jackknife. Rows with ± at the bias alone
  are of {batches:,} drawn batches: a bias that is 0 reads as at most some of its ±.
- Every row was also drawn, by this library's calls, in {drawn:,} batches: of {zs} exact means that
  need no learnt M, the one that is farthest off lies {z:.1f} standard errors from its draws. Rows
  of a table share their rollouts; no two tables do.
- Where nothing is accepted a batch's estimate is 0, which counts as bias. *No M*: the share of
  envelopes whose policy says that no finite M is known; they accept nothing, and the row is of the
  others, if they are at least a twentieth.
- *Fresh rollouts*: as many of the current policy, the aim.
"""
TRAINED = """\
A recurrent network of {V} tokens and sequences of {T} learns to write tokens that are 3 above the
one before, modulo {V}: the reward is the share of those. REINFORCE with Adam, learning rate {lr:g},
{steps} steps of {batch} rollouts each, none of it tuned for any row; {seeds} seeds. Envelopes
decide a batch by the M of earlier ones, with a half-life of {half:g} rollouts where they forget;
their first batch is a pilot, of which nothing is used. ± is the 95 % t-interval over seeds.
Differences are seed by seed, bold where the interval leaves out 0, uncorrected for their number.

- *At the end*: mean return of the last {last} steps. *Mean*: over all steps, which measures speed.
- *At {part:,} and {quarter:,} tokens*: the return when so many tokens have had a gradient, a 16th
  and a quarter of all. What keeps fewer tokens takes more steps for them, so the rows *at random*
  drop sequences whatever their ratios.
"""


def write_report(pieces: Sequence[Piece], size: Size, folder: Path, *, is_quick: bool) -> Path:
    """Write ``off_policy.md``, its figures and ``off_policy.json`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    enumerated = [p for p in pieces if p["kind"] == "enumerated"]
    trained = [p for p in pieces if p["kind"] == "trained"]
    draw_enumerated(enumerated, folder / "off_policy-enumerated.png")
    draw_trained(trained, folder / "off_policy-trained.png")
    seconds = sum(p["seconds"] for p in pieces)
    parts = [
        "# Rejection off-policy",
        f"Made by `python -m rskernels.experiments.off_policy{' --quick' if is_quick else ''}` in "
        f"{seconds / 60:.1f} minutes of one CPU core, torch {torch.__version__.partition('+')[0]}. "
        "What follows from it stands in [the guide](../guides/off_policy.md).",
        *(["It is too short to conclude anything."] if is_quick else []),
        "## Every sequence known",
        _explained(enumerated, size),
        "![Bias, standard deviation and error of the gradient against the divergence of the "
        "policies](off_policy-enumerated.png)",
        *(_pair_section(p) for p in enumerated),
        "## A policy in training",
        _trained_explained(size),
        "![Return against steps and against gradient tokens](off_policy-trained.png)",
        *_age_sections(trained, size),
    ]
    page = folder / "off_policy.md"
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    compact = [*enumerated, *(_compact(p) for p in trained)]
    lines = ",\n".join(json.dumps(rounded(piece, 6)) for piece in compact)
    text = f'{{"size": {json.dumps(size._asdict())},\n"pieces": [\n{lines}\n]}}\n'
    (folder / "off_policy.json").write_text(text, encoding="utf-8")
    return page


def _explained(pieces: Sequence[Piece], size: Size) -> str:
    from rskernels.experiments.off_policy import policy

    z = [abs(r[k]) for p in pieces for r in p["rows"] for k in ("z_gradient", "z_reward") if k in r]
    return EXPLAINED.format(
        V=policy.VOCABULARY,
        T=policy.LENGTH,
        S=policy.VOCABULARY**policy.LENGTH,
        updates=policy.UPDATES,
        n=size.n,
        pilot=size.pilot,
        envelopes=size.envelopes,
        batches=4 * size.batches,
        drawn=size.batches,
        z=max(z),
        zs=len(z),
    )


def _pair_section(piece: Piece) -> str:
    title = (
        f"### {piece['reward']}, {piece['pair']}\n\n"
        f"KL {piece['divergence']:.3g}, largest ratio {piece['largest']:.3g} (of a token "
        f"{piece['largest_token']:.3g}), effective share {piece['ess']:.2f}; mean reward "
        f"{piece['value']:.3f}, of the stale {piece['stale_value']:.3f}."
    )
    headings = [
        "", "kept", "bias", "cosine", "sd", "sd at equal tokens", "error", "reward bias",
        "reward sd",
    ]  # fmt: skip
    rows = [_figures({"name": "fresh rollouts", **piece["fresh"]})]
    rows += [_figures(row) for row in piece["rows"]]
    return f"{title}\n\n{markdown(headings, rows)}"


def _figures(row: Piece) -> list[str]:
    """Return a row of a table."""
    name = row["name"]
    if row.get("without_M"):
        name += f" (no M: {math.floor(100.0 * row['without_M'])}%)"
    if "bias" not in row or row.get("without_M", 0.0) > 1.0 - FEW:
        return [name, *["–"] * 8]
    drawn = {"bias": row["bias_error"]} if "bias_error" in row else {}
    errors = row.get("errors", drawn)

    def show(measure: str, form: str) -> str:
        error = f" ± {errors[measure]:{form.lstrip('+')}}" if measure in errors else ""
        # The sign of a 0 is that of its rounding.
        return f"{row[measure]:{form}}".replace("-0.000", "+0.000") + error

    return [
        name,
        show("kept", ".3f"),
        *(show(measure, ".2f") for measure in ("bias", "cosine", "sd", "sd_equal_tokens", "rmse")),
        show("reward_bias", "+.3f"),
        show("reward_sd", ".3f"),
    ]


def _trained_explained(size: Size) -> str:
    from rskernels.experiments.off_policy import network, train

    return TRAINED.format(
        V=network.VOCABULARY,
        T=network.LENGTH,
        lr=train.LEARNING_RATE,
        steps=size.steps,
        batch=train.BATCH,
        seeds=size.seeds,
        half=train.HALF_LIFE,
        last=LAST,
        part=_tokens(size) // 16,
        quarter=_tokens(size) // 4,
    )


def _tokens(size: Size) -> int:
    from rskernels.experiments.off_policy import network, train

    return size.steps * train.BATCH * network.LENGTH


def _age_sections(pieces: Sequence[Piece], size: Size) -> list[str]:
    [fresh] = [p for p in pieces if p["age"] == 0]
    sections = []
    for age in size.train_ages:
        here = [p for p in pieces if p["age"] == age]
        base = next(p for p in here if p["name"] == "no correction")
        headings = [
            "", "kept", "at the end", "against no correction", "mean", "against no correction",
            *(f"at {_tokens(size) // part:,} tokens" for part in (16, 4)),
        ]  # fmt: skip
        rows = [_course({**fresh, "name": "fresh rollouts"}, base, size)]
        rows += [_course(p, base, size) for p in here]
        sections.append(f"### {age} updates old\n\n{markdown(headings, rows)}")
    return sections


def _course(piece: Piece, base: Piece, size: Size) -> list[str]:
    ours, theirs = np.array(piece["returns"]), np.array(base["returns"])
    cells = [piece["name"], f"{np.mean(piece['kept']):.2f}"]
    for part in (slice(-LAST, None), slice(None)):
        mean, other = ours[:, part].mean(1), theirs[:, part].mean(1)
        difference = "" if piece is base else show_signed(t_interval(mean - other))
        cells += [_show(t_interval(mean)), difference]
    spent = (_at_tokens(piece, _tokens(size) // part) for part in (16, 4))
    return [*cells, *(_show(t_interval(values)) for values in spent)]


def _at_tokens(piece: Piece, tokens: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return each seed's mean return of the steps about that which passes a number of tokens.

    NaN for all where a seed never does.
    """
    values = []
    for returns, spent in zip(piece["returns"], piece["tokens"], strict=True):
        step = int(np.searchsorted(spent, tokens))
        near = returns[max(step - LAST // 2, 0) : step + LAST // 2]
        values.append(np.mean(near) if step < len(returns) else np.nan)
    return np.array(values) if not np.isnan(values).any() else np.full(len(values), np.nan)


def _show(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return "–"
    half = "" if math.isnan(interval.half) else f" ± {interval.half:.3f}"
    return f"{interval.mean:.3f}{half}"


def _compact(piece: Piece) -> Piece:
    """Return a run as it is committed: means over ten steps, of each seed."""

    def means(name: str, digits: int) -> list[list[float]]:
        values = np.array(piece[name], dtype=float)
        parts = [values[:, i : i + LAST].mean(1) for i in range(0, values.shape[1], LAST)]
        rounded: list[list[float]] = np.stack(parts, 1).round(digits).tolist()
        return rounded

    return {**piece, "returns": means("returns", 4), "tokens": means("tokens", 0),
            "kept": means("kept", 4)}  # fmt: skip
