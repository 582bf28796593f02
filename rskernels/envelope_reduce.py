"""One state out of the states of all processes: maxima and sums reduced, the rest gathered."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from rskernels.envelope_options import Options

Columns = dict[str, NDArray[Any]]

COUNTS = ("seen", "invalid", "decided", "violations", "observed", "accepted")
# In units of 2^exponent to this power, where `exponent_of` the largest ratio is the exponent.
SUMS = {"weight": 1, "square": 2, "decided_weight": 1, "excess": 1, "expected": 0}
LOG_LIMIT = 2.0**40


def exponent_of(max_log_ratio: Tensor) -> Tensor:
    """Return the exponent of the unit of a group's sums, as the C++ core has it."""
    exponent = (max_log_ratio.clamp(-LOG_LIMIT, LOG_LIMIT) * math.log2(math.e)).ceil()
    return torch.where(max_log_ratio == -math.inf, 0.0, exponent)


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2^exponent of whole exponents up to 1023, exact; 0 where that is no double."""
    return torch.ldexp(torch.ones_like(exponent), exponent.clamp(-1100.0, 1023.0))


def reduce_state(
    state: Columns, options: Options, group: dist.ProcessGroup | None
) -> tuple[Columns, list[Columns]]:
    """Return the tallies of all processes, and what else each of them holds, in rank order.

    Two collectives: the maxima, which give the units, then the sums. The second has a slot a rank
    for what no sum makes, such as histograms.

    Raises
    ------
    ValueError
        On every rank, if the options differ between them.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ValueError("this process is not in the group that is to be reduced")
    device = _device(group)
    rest = _pack({name: state[name] for name in sorted(set(state) - _TALLIES)})
    # Whole numbers below 2^52 are exact.
    told = float(int.from_bytes(hashlib.sha256(repr(options).encode()).digest()[:6], "little"))
    head = [told, -told, float(len(rest))]
    ours = torch.from_numpy(state["max_log_ratio"]).to(device)
    maxima = torch.cat((torch.tensor(head, dtype=torch.float64, device=device), ours))
    dist.all_reduce(maxima, dist.ReduceOp.MAX, group=group)
    most, least, slot = maxima[:3].tolist()
    if most != -least:
        raise ValueError(f"the ranks hold envelopes of different options; rank {rank}: {options}")

    top = maxima[3:]
    # Of a group without weight here the exponent says nothing.
    raised = (exponent_of(ours) - exponent_of(top)).clamp(max=0.0)
    rows = [torch.from_numpy(state[name]).to(device, torch.float64) for name in COUNTS]
    for name, power in SUMS.items():
        rows.append(torch.from_numpy(state[name]).to(device) * power_of_two(power * raised))
    slots = torch.zeros(ranks, int(slot), dtype=torch.float64)
    slots[rank, : len(rest)] = torch.from_numpy(rest)
    packed = torch.cat((*rows, slots.view(-1).to(device)))
    dist.all_reduce(packed, dist.ReduceOp.SUM, group=group)
    packed = packed.cpu()

    sums = packed.split([len(ours)] * len(rows) + [int(slot)] * ranks)
    tallies: Columns = {"max_log_ratio": top.cpu().numpy()}
    for name, column in zip((*COUNTS, *SUMS), sums[: len(rows)], strict=True):
        tallies[name] = (column.long() if name in COUNTS else column).numpy()
    return tallies, [_unpack(part.numpy(), state) for part in sums[len(rows) :]]


_TALLIES = {*COUNTS, *SUMS, "max_log_ratio"}


def _pack(columns: Columns) -> NDArray[np.float64]:
    """Lay columns out one after the other, each behind its length."""
    return np.concatenate([part for column in columns.values() for part in ([len(column)], column)])


def _unpack(packed: NDArray[np.float64], like: Columns) -> Columns:
    """Return the columns that `_pack` laid out; `like` has their names and dtypes."""
    columns: Columns = {}
    at = 0
    for name in sorted(set(like) - _TALLIES):
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
