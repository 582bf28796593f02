"""One state out of the states of all processes, gathered and reduced on every one of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from rskernels.envelope.policies import Options

Columns = dict[str, NDArray[Any]]

COUNTS = ("seen", "invalid", "decided", "violations", "observed", "accepted")
# In units of 2^exponent to this power, where `exponent_of` the largest ratio is the exponent.
SUMS = {"weight": 1, "square": 2, "decided_weight": 1, "excess": 1, "expected": 0}
TALLIES = ("max_log_ratio", *COUNTS, *SUMS)
LOG_LIMIT = 2.0**40


def exponent_of(max_log_ratio: Tensor) -> Tensor:
    """Return the exponent of the unit of a group's sums, as the C++ core has it."""
    exponent = (max_log_ratio.clamp(-LOG_LIMIT, LOG_LIMIT) * math.log2(math.e)).ceil()
    return torch.where(max_log_ratio == -math.inf, 0.0, exponent)


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2^exponent of whole exponents up to 1023, exact; 0 where that is no double."""
    return torch.ldexp(torch.ones_like(exponent), exponent.clamp(-1100.0, 1023.0))


def reduce_state(
    read: Callable[[], Columns], options: Options, group: dist.ProcessGroup | None
) -> tuple[Columns, list[Columns]]:
    """Return the tallies of all processes, and what else each of them holds, in rank order.

    Two collectives: one of fixed size, which tells options that differ before tensors of different
    sizes meet, and a rank that cannot read its state; and one that gathers the states, which are
    reduced where they arrive.

    Raises
    ------
    ValueError
        On every rank, if the options differ between them.
    RuntimeError
        If another rank cannot read its state; that rank raises what kept it from it.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ValueError("this process is not in the group that is to be reduced")
    device = _device(group)
    failure: Exception | None = None
    try:
        state = read()
    except Exception as error:  # the others wait for this rank, and are told
        failure = error
        state = {name: np.zeros(0) for name in TALLIES}
    groups = len(state["max_log_ratio"])
    rest = {name: state[name] for name in sorted(set(state) - set(TALLIES))}
    ours = np.concatenate([*(state[name] for name in TALLIES), *_laid_out(rest)])
    # 48 bits, which a double holds.
    told = float(int.from_bytes(hashlib.sha256(repr(options).encode()).digest()[:6], "little"))
    numbers = [told, -told, float(len(ours)), float(failure is not None)]
    head = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(head, dist.ReduceOp.MAX, group=group)
    most, least, size, failed = head.tolist()
    if failure is not None:
        raise failure
    if failed:
        raise RuntimeError(f"a rank could not read its envelope; that of rank {rank} stays")
    if most != -least:
        raise ValueError(f"the ranks hold envelopes of different options; rank {rank}: {options}")

    sent = torch.zeros(int(size), dtype=torch.float64)
    sent[: len(ours)] = torch.from_numpy(ours)
    gathered = torch.empty(ranks * len(sent), dtype=torch.float64, device=device)
    dist.all_gather_into_tensor(gathered, sent.to(device), group=group)
    tallies, others = gathered.view(ranks, -1).tensor_split([groups * len(TALLIES)], dim=1)
    columns = dict(
        zip(TALLIES, tallies.reshape(ranks, len(TALLIES), groups).unbind(1), strict=True)
    )

    exponents = exponent_of(columns["max_log_ratio"])
    top = columns["max_log_ratio"].amax(0)
    # Of a group without weight on a rank the exponent says nothing.
    raised = (exponents - exponent_of(top)).clamp(max=0.0)
    reduced = {name: columns[name].sum(0).long() for name in COUNTS}
    for name, power in SUMS.items():
        reduced[name] = (columns[name] * power_of_two(power * raised)).sum(0)
    reduced["max_log_ratio"] = top
    arrays: Columns = {name: column.cpu().numpy() for name, column in reduced.items()}
    return arrays, [_unpack(part, state) for part in others.cpu().numpy()]


def _laid_out(columns: Columns) -> list[Any]:
    """Return columns one after the other, each behind its length."""
    return [part for column in columns.values() for part in ([len(column)], column)]


def _unpack(packed: NDArray[np.float64], like: Columns) -> Columns:
    """Return the columns that `_laid_out` laid out; `like` has their names and dtypes."""
    columns: Columns = {}
    at = 0
    for name in sorted(set(like) - set(TALLIES)):
        end = at + 1 + int(packed[at])
        columns[name] = packed[at + 1 : end].astype(like[name].dtype)
        at = end
    return columns


def _device(group: dist.ProcessGroup | None) -> torch.device:
    """Return where the group reduces: on the GPU, unless it serves that through the CPU."""
    served = dict(entry.split(":") for entry in dist.get_backend_config(group).split(","))
    if torch.cuda.is_available() and served.get("cuda", "gloo") != "gloo":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
