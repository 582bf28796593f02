"""Measure decisions about sequences [512, 2048] against one float64 sum of their tokens.

    python -m benchmarks.sequences.run

writes a table. The sums are what torch takes to add up every row, whatever is a token of it; eager
torch decides by the same law, but for what is counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import rskernels
from benchmarks.common import machine
from benchmarks.common.timing import alternate

B, T = 512, 2048
OUTPUT = Path(__file__).parents[1] / "results" / "sequences.md"
SUM, WIDE = "`log_ratio.double().sum(-1)`", "`log_ratio.sum(-1, dtype=torch.float64)`"
EAGER = "eager torch of the same decision, right-padded"


def eager(log_ratio: torch.Tensor, mask: torch.Tensor, seed: int) -> tuple[torch.Tensor, ...]:
    """Return the mask, and that of tokens."""
    ratios = torch.where(mask, log_ratio.double(), 0.0).sum(-1)
    u = rskernels.uniforms(len(ratios), seed=seed, stream=5)
    kept = (ratios >= u.log()) & mask.any(-1)
    return kept, mask & kept[:, None], mask.sum(-1)


def calls() -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    generator = torch.Generator().manual_seed(0)
    log_ratio = torch.randn(B, T, generator=generator) / 100
    lengths = torch.randint(200, T + 1, (B, 1), generator=generator)
    right = torch.arange(T) < lengths
    accept = partial(rskernels.accept_sequences, seed=3)
    full = torch.ones(B, T, dtype=torch.bool)
    holes = right & (torch.arange(T) // 100 % 4 != 3)  # a quarter, 100 tokens at a time
    scattered = torch.rand(B, T, generator=generator) < 0.7
    left, starts, wide = right.flip(-1), torch.arange(B + 1) * T, log_ratio.double()
    return {
        SUM: lambda: log_ratio.double().sum(-1),
        WIDE: lambda: log_ratio.sum(-1, dtype=torch.float64),
        EAGER: lambda: eager(log_ratio, right, 3),
        "padded, every entry a token": lambda: accept(log_ratio),
        "padded, a mask that is all true": lambda: accept(log_ratio, mask=full),
        "right-padded, 200 to 2,048 tokens": lambda: accept(log_ratio, mask=right),
        "left-padded": lambda: accept(log_ratio, mask=left),
        "right-padded, with holes of 100": lambda: accept(log_ratio, mask=holes),
        "30 % of the entries left out, scattered": lambda: accept(log_ratio, mask=scattered),
        "packed": lambda: accept(log_ratio.view(-1), cu_seqlens=starts),
        "a list of 512 tensors": partial(accept, list(log_ratio.unbind())),
        'every entry, `"mean_k2"`': lambda: accept(log_ratio, statistic="mean_k2"),
        'every entry, `"mean_k3"`': lambda: accept(log_ratio, statistic="mean_k3"),
        "bfloat16, every entry": partial(accept, log_ratio.bfloat16()),
        "float64, every entry": lambda: accept(wide),
        "`.sum(-1)` of float64": lambda: wide.sum(-1),
        "`accept_prefix`, every entry": lambda: rskernels.accept_prefix(log_ratio, seed=3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=25.0, help="for each number of threads")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    known, timed = machine.cpu(), {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        timed[threads] = alternate(calls(), arguments.seconds, (10, 200))
    lines = [
        f"Milliseconds for {B} sequences of {T:,} float32 log ratios, and times the first line's;",
        f"{known['processor']}, torch {torch.__version__}, medians of alternating calls.",
        "",
        "| |" + "".join(f" {n} thread{'s'[: n - 1]} | × sum |" for n in timed),
        "|---" + "|---|---" * len(timed) + "|",
    ]
    for name in timed[arguments.threads[0]]:
        cells = []
        for of in timed.values():
            cells += [f"{of[name].median * 1e3:.2f}", f"{of[name].median / of[SUM].median:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    OUTPUT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
