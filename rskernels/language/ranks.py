"""The processes of a run: which of them this is, and what they tell each other.

Work is cut into blocks that follow from the configuration alone; a rank takes every so many-th. So
a block is computed by the same operations whichever rank has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process, or those of a process group; in one process every call is free.

    Attributes
    ----------
    rank, count : int
        This process, and how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def gathered(self, mine: list[T]) -> list[T]:
        """Return the lists of all ranks, one behind the other."""
        if self.count == 1:
            return mine
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, mine)
        return [one for part in parts for one in part]

    def of_first(self, value: T | None) -> T:
        """Return what the first rank has."""
        if self.count == 1:
            return value  # type: ignore[return-value]
        held: list[Any] = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[no-any-return]

    def total(self, value: float, device: torch.device) -> float:
        """Return the sum over the ranks."""
        if self.count == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=device)
        dist.all_reduce(held)
        return float(held)

    def wait(self) -> None:
        """Return when every rank is here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did; leave them at the end.

    A process group that is there already is used, and left as it is.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Ranks()
        return
    # Without a GPU gloo alone; with GPUs it also carries what lies on the CPU.
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def device_of(name: str) -> torch.device:
    """Return the device of this process: of several GPUs the one that torchrun counts."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device='cuda': torch sees no GPU here; accepted is cpu or auto")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device
