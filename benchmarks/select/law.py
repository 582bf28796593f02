"""The law of what is kept of a million proposals, of every form, in every order and shards.

A policy of 200 answers, Zipf's law, whose rewards are N(0, 1), rounded to one decimal. ``outcomes``
has one group and, of the forms with a pilot, one that holds the policy's law itself: it proves the
forms, and the tilted law by them, but says nothing of what a pilot of a few answers costs. That is
``of_few``: a group and a pilot of its own for each prompt, against the law that follows from these
pilots by enumeration, beside the distance of that law from the tilted one. Rows have ids, and come
from Parquet.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from rskernels.pipeline import Columns, Engine, Rule, SelectConfig, select

OUTPUTS, ANSWERS = 200, 64
BETA, N_BEST, BOUND = 0.5, 4, 3.0
CHANCE = 5e-8

COUNTS = np.round(1000.0 / np.arange(1, OUTPUTS + 1)).astype(np.int64)
BASE = COUNTS / COUNTS.sum()
REWARDS = np.random.default_rng(16).normal(size=OUTPUTS).round(1)
RIGHT = (REWARDS > 0.4).astype(float)
RULES: dict[str, dict[str, Any]] = {
    "verifier": {"beta": BETA},
    "bounded": {"beta": BETA, "bound": BOUND},
    "quantile": {"beta": BETA},
    "best_of": {"n": N_BEST},
    "learnt": {"beta": BETA},
    "rso": {"beta": BETA, "num": 8},
}
ORDERS = ("as drawn", *(f"{how} in {n}" for how in ("sorted", "shuffled") for n in (1, 3, 8)))
"""Of the rows, and in how many files."""
WITH_PILOT, SIZES = ("quantile", "best_of", "learnt"), (8, 64)


class Outcome(NamedTuple):
    """What is kept, in one order."""

    kept: int
    p: float
    """Of a chi-squared test against the tilted law."""
    distance: float
    """Total variation from it."""
    ids: Any


def law_of(form: str) -> Any:
    """Return the tilted law, by enumeration of the answers."""
    less = (REWARDS[None] < REWARDS[:, None]) @ BASE
    equal = (REWARDS[None] == REWARDS[:, None]) @ BASE
    if form == "best_of":
        weights = BASE / equal * ((less + equal) ** N_BEST - less**N_BEST)
    else:
        scores = {"verifier": RIGHT, "quantile": less + equal / 2}.get(form, REWARDS)
        weights = BASE * np.exp(scores / BETA)
    return weights / weights.sum()


def p_value(kept: Any, law: Any) -> float:
    """Return the p-value of a chi-squared test; answers that are rare are one cell."""
    expected = len(kept) * law
    counts, is_rare = np.bincount(kept, minlength=OUTPUTS).astype(float), expected < 10
    observed = np.append(counts[~is_rare], counts[is_rare].sum())
    expected = np.append(expected[~is_rare], expected[is_rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    return float(stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


def rows_of(count: int, seed: int = 0) -> Any:
    """Return proposals, 64 to a prompt, with an id of 64 bits each."""
    draw = np.random.default_rng(seed)
    drawn = draw.choice(OUTPUTS, count, p=BASE)
    return pa.table(
        {
            "prompt": pa.array(np.arange(count) // ANSWERS).cast(pa.string()),
            "completion": pa.array(drawn).cast(pa.string()),
            "answer": drawn,
            "score": REWARDS[drawn],
            "right": RIGHT[drawn],
            "pool": np.zeros(count, np.int64),
            "id": draw.integers(-(2**63), 2**63 - 1, count),
        }
    )


def pilot_of(path: Path) -> Path:
    """Write a pilot that has the policy's law exactly."""
    scores = np.repeat(REWARDS, COUNTS)
    table = pa.table({"score": scores, "pool": np.zeros(len(scores), np.int64)})
    pq.write_table(table, path)
    return path


def shards_of(order: str, count: int, folder: Path) -> Path:
    """Return a folder with the rows as files, in an order; it is made once."""
    how, _, rest = order.partition(" in ")
    path = folder / f"law-{count}" / order.replace(" ", "-")
    if path.exists():
        return path
    rows = rows_of(count)
    if how == "sorted":
        rows = rows.take(pa.array(np.argsort(rows["score"].to_numpy(), kind="stable")))
    elif how == "shuffled":
        rows = rows.take(pa.array(np.random.default_rng(1).permutation(len(rows))))
    size = -(-len(rows) // int(rest or 1))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for number, start in enumerate(range(0, len(rows), size)):
            name = Path(place) / f"{number}.parquet"
            pq.write_table(rows.slice(start, size), name, row_group_size=1 << 16)
        shutil.copytree(place, path)
    return path


def outcomes(
    form: str,
    count: int,
    folder: Path,
    engine: Engine | None = None,
    orders: Sequence[str] = ORDERS,
) -> dict[str, Outcome]:
    """Return what a form keeps, by order."""
    rule = Rule(form, seed=5, **RULES[form])
    columns = Columns(
        reward="right" if form == "verifier" else "score",
        id="id",
        group=None if form == "rso" else "pool",
    )
    config = SelectConfig(rule, columns)
    pilot = [pilot_of(folder / "pilot.parquet")] if form in WITH_PILOT else None
    law, seen = law_of(form), {}
    for order in orders:
        data = shards_of(order, count, folder)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            out = Path(place) / "out"
            select([data], out, config, pilot=pilot, engine=engine, piece_size=1 << 18)
            kept = pq.read_table(out / "accepted.parquet", columns=["answer", "id"])
        answers = kept["answer"].to_numpy()
        distance = np.abs(np.bincount(answers, minlength=OUTPUTS) / len(answers) - law).sum() / 2
        seen[order] = Outcome(
            len(answers), p_value(answers, law), float(distance), np.sort(kept["id"].to_numpy())
        )
    return seen


def of_few(form: str, size: int, count: int, folder: Path) -> tuple[Outcome, float]:
    """Return what a form keeps by pilots of some answers, one a prompt.

    Returns
    -------
    Outcome
        Against the law of what is kept of all prompts together, given their pilots.
    float
        Total variation of that law from the tilted law.
    """
    prompts = count // ANSWERS
    drawn = np.random.default_rng(2).choice(OUTPUTS, (prompts, size), p=BASE)
    pilots, names = REWARDS[drawn], np.arange(prompts).repeat(size)
    held = {"score": pilots.ravel(), "prompt": pa.array(names).cast(pa.string())}
    given = law_given(form, pilots)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        data, pilot, out = (Path(place) / name for name in ("rows.parquet", "pilot.parquet", "out"))
        pq.write_table(rows_of(prompts * ANSWERS), data)
        pq.write_table(pa.table(held), pilot)
        rule = Rule(form, seed=5, **RULES[form])
        select([data], out, SelectConfig(rule, Columns(reward="score", id="id")), pilot=[pilot])
        kept = pq.read_table(out / "accepted.parquet", columns=["answer", "id"])
    answers = kept["answer"].to_numpy()
    shares = np.bincount(answers, minlength=OUTPUTS) / len(answers)
    distance = float(np.abs(shares - given).sum() / 2)
    outcome = Outcome(len(answers), p_value(answers, given), distance, kept["id"].to_numpy())
    return outcome, float(np.abs(given - law_of(form)).sum() / 2)


def law_given(form: str, pilots: Any) -> Any:
    """Return the law of what is kept of all prompts, by enumeration, given the pilot of each.

    An answer is kept with probability min(1, w/M), w and M by the pilot; ``pilots`` is
    ``[prompts, size]``.
    """
    if form == "learnt":
        chance = np.exp((REWARDS - pilots.max(1, keepdims=True)) / BETA).clip(max=1.0)
    else:
        less = (pilots[:, None] < REWARDS[:, None]).mean(2)
        up_to = (pilots[:, None] <= REWARDS[:, None]).mean(2)
        if form == "quantile":
            chance = np.exp(((less + up_to) / 2 - 1) / BETA)
        else:
            step = np.where(up_to > less, up_to - less, 1.0)
            of_ties = (up_to**N_BEST - less**N_BEST) / (N_BEST * step)
            chance = np.where(up_to > less, of_ties, up_to ** (N_BEST - 1))
    law = BASE * chance.sum(0)
    return law / law.sum()


def line_of_few(form: str, size: int, count: int, folder: Path) -> list[str]:
    """Return what is kept by small pilots, and how far from the tilted law it is by them."""
    outcome, bias = of_few(form, size, count, folder)
    return [f"`{form}`", f"{size}", f"{outcome.kept:,}", f"{outcome.p:.2g}", f"{bias:.3f}"]


def line(form: str, count: int, folder: Path, engine: Engine) -> list[str]:
    """Return what is kept of a form, how far from the tilted law, and where it is the same.

    It is selected in every order by this process, and by another engine.
    """
    here, there = (outcomes(form, count, folder, by) for by in (None, engine))
    first, seen = next(iter(here.values())), [*here.values(), *there.values()]
    in_every_order = all(np.array_equal(first.ids, other.ids) for other in seen)
    on_both = all(np.array_equal(here[order].ids, there[order].ids) for order in ORDERS)
    least = min(outcome.p for outcome in seen)
    distances = [outcome.distance for outcome in seen]
    return [
        f"`{form}`",
        f"{first.kept:,}",
        f"{least:.2g}" if least > 1e-300 else "0",
        " to ".join(dict.fromkeys(f"{d:.3f}" for d in (min(distances), max(distances)))),
        *("yes" if is_same else "**no**" for is_same in (in_every_order, on_both)),
    ]
