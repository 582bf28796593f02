"""Speed of rejection_sample, N(0, 1) from Laplace(0, 1), against sbi's and against torch alone.

    pip install sbi
    python -m benchmarks.sampling.run [--threads N ...] [--seconds S] [--out FOLDER]

torch alone draws proposals and evaluates both densities: what no sampler can do without.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributions import Independent, Laplace, Normal

from benchmarks.common import machine, tables
from benchmarks.common.results import RESULTS
from benchmarks.common.thresholds import SBI_TIMES, TORCH_SHARE
from benchmarks.common.timing import Timing, alternate
from rskernels import rejection_sample

DRAWS = (1_000, 10_000, 100_000, 1_000_000)
# Torch alone: proposals in all, and batches of which the fastest counts.
PROPOSALS = 1 << 20
BATCHES = (1 << 14, 1 << 17, 1 << 20)
M = math.sqrt(2 * math.e / math.pi)
LOG_M = math.log(M) + 1e-6  # float32 densities round by less than this

TARGET, PROPOSAL = Normal(0.0, 1.0), Laplace(0.0, 1.0)


def torch_alone(batch: int) -> None:
    for _ in range(PROPOSALS // batch):
        x = PROPOSAL.sample((batch,))
        TARGET.log_prob(x) - PROPOSAL.log_prob(x)


def calls() -> dict[str, Callable[[], Any]]:
    """Return every call by name, ``WHOSE HOW, DRAWS``."""
    from sbi.samplers.rejection import rejection_sample as sbi_sample

    target = Independent(Normal(torch.zeros(1), 1.0), 1)
    proposal = Independent(Laplace(torch.zeros(1), 1.0), 1)
    ours = functools.partial(rejection_sample, TARGET, PROPOSAL)
    sbi = functools.partial(sbi_sample, target.log_prob, proposal)
    forms: dict[str, Callable[[int], Any]] = {
        "rskernels": functools.partial(ours, log_M=LOG_M),
        "rskernels, M learnt": ours,
        "sbi": lambda n: sbi(num_samples=n),
        # With all that makes it faster: no search for M, no room in it, one batch.
        "sbi, M known": lambda n: sbi(
            num_samples=n, max_sampling_batch_size=n, m=1.0, num_iter_to_find_max=1
        ),
    }
    bound: dict[str, Callable[[], Any]] = {
        f"{name}: {n:,}": functools.partial(form, n) for n in DRAWS for name, form in forms.items()
    }
    for batch in BATCHES:
        bound[f"torch alone, batches of {batch:,}"] = functools.partial(torch_alone, batch)
    return bound


def requirements(timings: dict[str, Timing]) -> dict[str, tuple[float, float]]:
    """Return what was measured and the least that is required, by name."""
    required = {}
    for n in DRAWS:
        ratio = timings[f"sbi: {n:,}"].median / timings[f"rskernels: {n:,}"].median
        required[f"draws a second, times sbi's, of {n:,} draws"] = (ratio, SBI_TIMES)
    alone = _torch_seconds(timings) / PROPOSALS
    each = timings[f"rskernels: {DRAWS[-1]:,}"].median / DRAWS[-1]
    required["proposals a second, of torch's fastest"] = (alone * M / each, TORCH_SHARE)
    required["accepted draws a second, of torch's fastest proposals"] = (alone / each, TORCH_SHARE)
    return required


def table(timings: dict[str, Timing]) -> str:
    lines = ["| draws | whose | ms | quartiles | million a second | × sbi |"]
    lines += ["|--:|---|--:|--:|--:|--:|"]
    for name, timing in timings.items():
        whose, _, count = name.partition(": ")
        ms = f"{1e3 * timing.median:.2f} | {1e3 * timing.low:.2f}–{1e3 * timing.high:.2f}"
        if count:
            rate = int(count.replace(",", "")) / timing.median / 1e6
            times = timings[f"sbi: {count}"].median / timing.median
            lines.append(f"| {count} | {whose} | {ms} | {rate:.2f} | {times:.1f} |")
        else:
            rate = PROPOSALS / timing.median / 1e6
            lines.append(f"| {PROPOSALS:,} proposals | {whose} | {ms} | {rate:.1f} | |")
    return "\n".join(lines)


def floor(timings: dict[str, Timing]) -> str:
    """Say how much faster than sbi a sampler could be that decides in no time."""
    seconds = _torch_seconds(timings) * DRAWS[-1] * M / PROPOSALS
    times = timings[f"sbi: {DRAWS[-1]:,}"].median / seconds
    return (
        f"Drawing and evaluating the proposals of {DRAWS[-1]:,} draws takes torch "
        f"{1e3 * seconds:.1f} ms alone, so that no sampler could be more than {times:.1f} times as "
        "fast as sbi there; its search for M is what the smaller numbers save."
    )


def _torch_seconds(timings: dict[str, Timing]) -> float:
    return min(timings[name].median for name in timings if name.startswith("torch"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = sorted({1, torch.get_num_threads()})
    parser.add_argument("--threads", type=int, nargs="+", default=default)
    parser.add_argument("--seconds", type=float, default=25.0, help="for each number of threads")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    about, versions = machine.cpu(), machine.versions()
    parts = ["# Draws of N(0, 1) from Laplace(0, 1)"]
    for threads in options.threads:
        torch.set_num_threads(threads)
        timings = alternate(calls(), options.seconds, (5, 40))
        parts.append(f"## torch.set_num_threads({threads})")
        parts += [table(timings), tables.requirements(requirements(timings)), floor(timings)]
    parts.append(
        f"{about['processor']}, torch {versions['torch']}, "
        f"sbi {importlib.metadata.version('sbi')}, "
        f"{machine.today()}. Medians of alternating rounds in one process. torch alone draws the "
        "proposals and evaluates both densities, and decides nothing."
    )
    text = "\n\n".join(parts) + "\n"
    (options.out / "sampling.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
