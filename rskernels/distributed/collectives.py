"""Collectives as reductions need them: a few numbers at once, and rows of one length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def collective_device(group: dist.ProcessGroup | None) -> torch.device:
    """Return where the group communicates: on the GPU, unless it serves that through the CPU."""
    served = dict(entry.split(":") for entry in dist.get_backend_config(group).split(","))
    if torch.cuda.is_available() and served.get("cuda", "gloo") != "gloo":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def all_max(numbers: Sequence[float], group: dist.ProcessGroup | None) -> list[float]:
    """Return the largest of each number over the ranks; one collective."""
    values = torch.tensor(numbers, dtype=torch.float64, device=collective_device(group))
    dist.all_reduce(values, dist.ReduceOp.MAX, group=group)
    return values.tolist()


def all_gather(row: Tensor, length: int, group: dist.ProcessGroup | None) -> Tensor:
    """Return the rows of all ranks, ``[ranks, length]`` on the group's device; one collective.

    Parameters
    ----------
    row : Tensor
        One-dimensional, at most ``length`` long; filled up with zeros.
    length : int
        The same on every rank.
    """
    device, ranks = collective_device(group), dist.get_world_size(group)
    sent = row.new_zeros(length)
    sent[: len(row)] = row
    gathered = torch.empty(ranks * length, dtype=row.dtype, device=device)
    dist.all_gather_into_tensor(gathered, sent.to(device), group=group)
    return gathered.view(ranks, length)
