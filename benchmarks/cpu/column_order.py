"""What an order of the columns buys a lazy verify_mask on logits of a Zipf law.

    python -m benchmarks.cpu.column_order

writes ``benchmarks/results/column_order.md``: milliseconds, and the speed against the order of
storage, by where the vocabulary keeps its frequent tokens. Targets are drawn from the law of the
frequencies, so that the acceptance is the same for all.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

import rskernels
from benchmarks.common import affinity, machine
from benchmarks.common.results import RESULTS
from benchmarks.common.tables import table
from benchmarks.common.timing import alternate

N, V = 2048, 32000
EXPONENT = 1.1  # of the frequencies of tokens, by rank
NOISE = 1.0  # standard deviation of what a row's logits add to the law's
ACCEPTANCES = (0.001, 0.01, 0.1, 0.5)
SECONDS, ROUNDS = 4.0, (5, 60)


def places(where: str) -> Tensor:
    """Return the column of each rank."""
    if where == "first":
        return torch.arange(V)
    if where == "last":
        return torch.arange(V).flip(0)
    # In runs of a block: tokens added together lie together.
    blocks = torch.arange(V // 256).view(-1, 1)[torch.randperm(V // 256)]
    return (blocks * 256 + torch.arange(256)).flatten()


def measure(where: str, acceptance: float) -> list[str]:
    """Return a row of the table."""
    torch.manual_seed(0)
    law = torch.empty(V)
    law[places(where)] = torch.arange(1.0, V + 1).log().mul(-EXPONENT)
    logits = law + NOISE * torch.randn(N, V)
    targets = torch.multinomial(law.softmax(-1), N, replacement=True)
    log_prob = rskernels.target_log_prob(logits, targets)
    ratio = 2.0 * acceptance * torch.rand(N, dtype=torch.float64)
    q_hat = (log_prob.double().exp() / ratio).float()
    verify = functools.partial(rskernels.verify_mask, logits, q_hat, targets=targets)
    order = rskernels.ColumnOrder.by_weight(law.softmax(-1))
    calls = {"stored": verify, "by weight": functools.partial(verify, order=order)}
    affinity.bind_workers()
    times = {name: timing.median for name, timing in alternate(calls, SECONDS, ROUNDS).items()}
    stored, ordered = times["stored"], times["by weight"]
    cells = (f"{1e3 * stored:.2f}", f"{1e3 * ordered:.2f}", f"{stored / ordered:.2f}")
    return [where, f"{100 * acceptance:g} %", *cells]


def main() -> None:
    affinity.bind()
    rows = [
        measure(where, share) for where in ("first", "in runs", "last") for share in ACCEPTANCES
    ]
    headings = ("frequent tokens", "accepted", "ms as stored", "ms by weight", "× as stored")
    title = (
        f"# An order of columns\n\n`verify_mask`, float32 [{N}, {V}], frequencies rank^-{EXPONENT}."
    )
    about, versions = machine.cpu(), machine.versions()
    footer = (
        f"{about['processor']}, {about['threads']} threads, torch {versions['torch']}, "
        f"{machine.today()}. Medians of alternating rounds in one process; *as stored* reads up to "
        f"{4 * N * V / 1e6:.0f} MB."
    )
    text = f"{title}\n\n{table(headings, rows)}\n\n{footer}\n"
    print(text)
    (RESULTS / "column_order.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
