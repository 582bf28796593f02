"""Log-probabilities under a vocabulary that is cut over ranks, with their gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from rskernels._torch.autograd import LINEAR_TARGET_LOG_PROB, PARTS
from rskernels._torch.schemas import operator, split
from rskernels._torch.sharded import check_part, chunk, is_sharded
from rskernels.distributed.vocabulary import Part, combine
from rskernels.kernels.layout import wide_dtype

OTHER, IGNORED = -2, -1  # targets that are not this rank's columns
_gradient = operator(LINEAR_TARGET_LOG_PROB.gradient)


class CutLogProb(torch.autograd.Function):
    """log_prob of targets, from this rank's columns and what the other ranks know.

    Takes the fields of a product, targets among this rank's columns, int64 ``[N]``, temperature, a
    seed and a process group. Returns log_prob ``[N]`` as it is returned and, without gradient,
    float64; whether a target is a column of any rank; and the first rank's seed.
    """

    @staticmethod
    def forward(ctx: Any, *fields: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take the softmax of this rank's columns, and put it together with the others'."""
        *product, targets, temperature, seed, group = fields
        is_own = targets >= 0
        # Any column will do where the target is another's; ignored rows are not read.
        known = targets.masked_fill(targets == OTHER, 0)
        softmax = split(temperature, 1.0)
        hidden, weight, bias, scale, softcap, A, B, lora_scale = product
        if len(weight):
            log_prob, totals = LINEAR_TARGET_LOG_PROB.eager(*product, known, *softmax, IGNORED)
        else:
            log_prob, totals = _nothing(hidden)
        whole = combine(Part(log_prob, totals, is_own), temperature, seed, group)
        ctx.numbers, ctx.group = (scale, softcap, lora_scale), group
        ctx.save_for_backward(targets, whole.totals, *softmax[:1], hidden, weight, bias, A, B)
        ctx.temperature = softmax[1]
        exact = whole.log_prob
        ctx.mark_non_differentiable(exact, whole.is_own, whole.seed)
        return exact.to(wide_dtype(hidden), copy=True), exact, whole.is_own, whole.seed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        """Return the gradients of the product's fields; those that all ranks share are summed."""
        targets, totals, temperature, hidden, weight, bias, A, B = ctx.saved_tensors
        scale, softcap, lora_scale = ctx.numbers
        product = hidden, weight, bias, scale, softcap, A, B, lora_scale
        names = LINEAR_TARGET_LOG_PROB.fields
        wanted = [ctx.needs_input_grad[names.index(part)] for part in PARTS]
        softmax = temperature, ctx.temperature, IGNORED
        if len(weight):
            found = iter(_gradient(upstream, *product, targets, totals, wanted, *softmax))
        else:
            parts = hidden, weight, bias, A, B
            found = (
                torch.zeros_like(part) for part, want in zip(parts, wanted, strict=True) if want
            )
        gradients = {part: next(found) for part, want in zip(PARTS, wanted, strict=True) if want}
        for part in ("hidden", "A"):
            if part in gradients:
                gradients[part] = _sum(gradients[part], ctx.group)
        return tuple(gradients.get(name) for name in names[: len(product)]) + (None,) * 4


class Held(NamedTuple):
    """What a rank holds of logits whose parts are DTensors."""

    parts: dict[str, Tensor]
    """Plain tensors, through which gradients reach the DTensors."""
    group: dist.ProcessGroup | None
    """The ranks over which the vocabulary is cut."""
    offset: int
    """The column that the first of the weight's rows here is."""


def held(parts: dict[str, Tensor]) -> Held:
    """Return what this rank holds of a product's parts, some of which are DTensors.

    Raises
    ------
    TypeError, ValueError
        Unless the weight is cut by rows on at most one dimension of its mesh, what has a row for
        each column is cut as it is, and every rank has the whole of the rest.
    """
    from torch.distributed.tensor import Replicate

    weight = parts["weight"]
    if not is_sharded(weight):
        for name in ("bias", "B"):
            if is_sharded(parts.get(name)):
                raise TypeError(f"{name} is a DTensor, weight is not; give both as DTensors")
    cut_dim = _cut_dim(weight) if is_sharded(weight) else None
    group, offset, size = None, 0, len(weight)
    if cut_dim is not None:
        mesh = weight.device_mesh  # type: ignore[attr-defined]
        group, at = mesh.get_group(cut_dim), mesh.get_local_rank(cut_dim)
        offset, size = chunk(len(weight), mesh.size(cut_dim), at)
    own = {}
    for name, part in parts.items():
        has_columns = name in ("weight", "bias", "B")
        if not is_sharded(part):
            if has_columns and cut_dim is not None:
                raise TypeError(
                    f"{name} is a plain tensor, weight is a DTensor; make it one as well, placed "
                    "as weight is"
                )
            own[name] = part
            continue
        mesh, placements = part.device_mesh, part.placements  # type: ignore[attr-defined]
        if is_sharded(weight) and mesh != weight.device_mesh:  # type: ignore[attr-defined]
            raise ValueError(f"{name} and weight are DTensors of different meshes")
        places = [place for dim, place in enumerate(placements) if mesh.size(dim) > 1]
        wanted = [Replicate()] * len(places)
        if has_columns:
            of_weight = weight.placements  # type: ignore[attr-defined]
            wanted = [place for dim, place in enumerate(of_weight) if mesh.size(dim) > 1]
        if places != wanted:
            raise ValueError(_wrong_placement(name, list(placements), wanted))
        check_part(name, part, [size, *part.shape[1:]] if has_columns else list(part.shape))
        # The record outlives a no_grad that it may be made in, as plain parts would.
        with torch.enable_grad():
            own[name] = part.to_local()  # type: ignore[attr-defined]
    return Held(own, group, offset)


def _cut_dim(weight: Any) -> int | None:
    """Return the dimension of a mesh over which the weight's rows are cut, if one."""
    from torch.distributed.tensor import Replicate, Shard

    mesh = weight.device_mesh
    if mesh.get_coordinate() is None:
        raise ValueError(f"this rank is not in the mesh of weight, {mesh}")
    cut = [
        dim
        for dim, place in enumerate(weight.placements)
        if mesh.size(dim) > 1 and place != Replicate()
    ]
    by_rows = (
        type(weight.placements[dim]) is Shard and weight.placements[dim].dim == 0 for dim in cut
    )
    if len(cut) > 1 or not all(by_rows):
        raise ValueError(
            "weight must be sharded over its rows, Shard(0), on at most one dimension of its mesh, "
            f"and replicated on the others, got {list(weight.placements)}; weight.redistribute "
            "does it"
        )
    return cut[0] if cut else None


def _wrong_placement(name: str, given: list[Any], wanted: list[Any]) -> str:
    if name == "hidden":
        return (
            f"hidden must be replicated on every rank, got {given}; where ranks have rows of "
            "their own give hidden.to_local(), with a row_offset for each rank, and a weight that "
            "is whole on each"
        )
    where = "placed as weight is, " if name in ("bias", "B") else ""
    return f"{name} must be {where}{wanted}, got {given}; {name}.redistribute does it"


def _nothing(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a rank without columns knows of rows."""
    N = len(hidden)
    log_prob = torch.zeros(N, dtype=wide_dtype(hidden), device=hidden.device)
    totals = torch.tensor([-torch.inf, 0.0], dtype=torch.float64, device=hidden.device)
    return log_prob, totals.expand(N, 2)


def _sum(value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total = value.to(wide_dtype(value), copy=True)
    dist.all_reduce(total, group=group)
    return total.to(value.dtype)
