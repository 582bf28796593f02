"""The processes of a run: who they are, what they tell each other, and the model that they train.

Work is cut into blocks that follow from the configuration alone, and ranks take blocks in turns. So
a block is computed by the same operations whichever rank has it. Each rank has a copy of the model
(DDP) or a shard of it (FSDP2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from rskernels.language.policy import Policy

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; if there is only one, no call communicates.

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
        """Return the lists of all ranks, joined."""
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
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
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


def wrapped(policy: Policy, how: str, ranks: Ranks) -> nn.Module:
    """Return the module whose gradients are those of all processes.

    Parameters
    ----------
    policy : Policy
        Its scorer is wrapped, or with "fsdp" sharded in place.
    how : {"ddp", "fsdp"}
        A copy each; or parameters, gradients and optimiser cut over the processes.
    ranks : Ranks
        Of one process the scorer itself is returned.
    """
    if ranks.count == 1:
        return policy.scorer
    if how == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(policy.scorer)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(policy.device.type, (ranks.count,))
    units = set(getattr(policy.causal, "_no_split_modules", None) or ())
    for part in policy.scorer.modules():
        if type(part).__name__ in units:
            fully_shard(part, mesh=mesh)
    fully_shard(policy.scorer, mesh=mesh)
    return policy.scorer


@contextmanager
def accumulating(module: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Hold back the exchange of gradients until the last micro-batch of a step."""
    if is_sharded(module):
        module.set_requires_gradient_sync(is_last)  # type: ignore[operator]
        yield
    elif hasattr(module, "no_sync") and not is_last:
        with module.no_sync():  # type: ignore[operator]
            yield
    else:
        yield


def is_sharded(module: nn.Module) -> bool:
    """Say whether FSDP2 has cut a module."""
    return hasattr(module, "set_requires_gradient_sync")


def as_number(value: Any) -> float:
    """Return a number; of a DTensor, that of all processes."""
    return float(value.full_tensor() if hasattr(value, "full_tensor") else value)


def state_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of a model and its optimiser, whole on the first process, on the CPU.

    It does not depend on how many processes there are, nor on how they hold the model. Parameters
    that are not trained are left out.
    """
    from torch.distributed.checkpoint import state_dict as states

    options = states.StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=True
    )
    model: dict[str, Any] = dict(states.get_model_state_dict(module, options=options))
    # Asking an optimiser without steps would take one.
    of_optimizer: dict[str, Any] = {}
    if optimizer.state:
        of_optimizer = dict(states.get_optimizer_state_dict(module, optimizer, options=options))
    return {"model": model, "optimizer": of_optimizer}


def whole_model(module: nn.Module, *, on_first: bool) -> dict[str, Any]:
    """Return all parameters of a module: on the CPU of the first process, or on all devices."""
    from torch.distributed.checkpoint import state_dict as states

    options = states.StateDictOptions(full_state_dict=True, cpu_offload=on_first)
    state = states.get_model_state_dict(module, options=options)
    return dict(state)


def load_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue from what `state_of` returned, which every process has."""
    from torch.distributed.checkpoint import state_dict as states

    options = states.StateDictOptions(full_state_dict=True, strict=False)
    states.set_model_state_dict(module, state["model"], options=options)
    if state["optimizer"]:
        states.set_optimizer_state_dict(module, optimizer, state["optimizer"], options=options)
