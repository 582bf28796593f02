"""The pieces of the study, each kept in a file so that an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rskernels.experiments.resumable import Piece, make_pieces
from rskernels.experiments.seconds.costs import Rounds, measure
from rskernels.experiments.seconds.methods import METHODS
from rskernels.experiments.seconds.network import NETWORKS, WIDTH
from rskernels.experiments.seconds.train import Training, compare_scores, train


class Size(NamedTuple):
    """How much is computed."""

    training: Training
    seeds: int
    networks: tuple[str, ...]
    """Of ``NETWORKS``, whose steps are timed; the first is the one that is trained."""
    rounds: Rounds


FULL = Size(
    Training(
        width=WIDTH,
        largest=1000,
        imbalance=10.0,
        noise=0.02,
        test=600,
        batch=128,
        lr=2e-4,
        steps=144,
        every=8,
    ),
    seeds=10,
    networks=tuple(NETWORKS),
    rounds=Rounds(number=7, seconds=10.0),
)
QUICK = Size(
    Training(
        width=48,
        largest=120,
        imbalance=4.0,
        noise=0.02,
        test=100,
        batch=32,
        lr=2e-3,
        steps=24,
        every=4,
    ),
    seeds=2,
    networks=("MLP, 48 wide", "MLP, 136 wide"),
    rounds=Rounds(number=3, seconds=1.0),
)


def run_study(size: Size, folder: Path, say: Callable[[str], None], only: str = "") -> list[Piece]:
    """Make the pieces that ``folder`` lacks, and return all.

    Parameters
    ----------
    size : Size
        How much.
    folder : Path
        Of the pieces.
    say : callable
        Told of each piece that was made.
    only : str
        The beginning of the pieces' names that are made; others are neither made nor returned.
    """
    made = [*_costs(size), *_scores(size), *_trained(size)]
    return make_pieces(made, folder, say, only=only)


def _costs(size: Size) -> list[tuple[str, Callable[[], Piece]]]:
    return [
        (f"costs-{name.replace(', ', '-').replace(' ', '-')}", partial(_measure, size, name))
        for name in size.networks
    ]


def _measure(size: Size, name: str) -> Piece:
    return {"kind": "costs", "network": name, **measure(NETWORKS[name], size.rounds)}


def _scores(size: Size) -> list[tuple[str, Callable[[], Piece]]]:
    return [("scores", partial(_compare, size))]


def _compare(size: Size) -> Piece:
    # A seed that no run has.
    return {"kind": "scores", **compare_scores(size.training, size.seeds)}


def _trained(size: Size) -> list[tuple[str, Callable[[], Piece]]]:
    return [
        (f"trained-{seed}-{method}", partial(_run, size, method, seed))
        for seed in range(size.seeds)
        for method in METHODS
    ]


def _run(size: Size, method: str, seed: int) -> Piece:
    course = train(method, size.training, seed)
    return {"kind": "trained", "method": method, "seed": seed, **course}
