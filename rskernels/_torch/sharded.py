"""The operations on a DTensor: each rank takes its own rows, under their ids in the whole tensor.

An operator's sharding strategy could not do this: it says how tensors lie on the ranks, and every
rank would number its rows from the same ``row_offset``. So tensors are taken apart before the
operators and put together behind them.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

# What is cut as the rows are; other tensors are the same for every row.
_BY_ROW = frozenset(("targets", "density", "M", "temperature", "ids"))
_ORDINARY = frozenset((Tensor, torch.nn.Parameter, float, int, type(None)))
_REMEDY = "logits.redistribute(placements=[Shard(0)]) of torch.distributed.tensor shards by rows"


def are_ordinary(*values: Any) -> bool:
    """Say whether values are numbers, None and tensors of torch's own two classes."""
    return _ORDINARY.issuperset(map(type, values))


def is_sharded(*values: Any) -> bool:
    """Say whether a value is a DTensor; does not load its module."""
    if are_ordinary(*values):
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(value, module.DTensor) for value in values)


def refuse_transform(*values: Any) -> None:
    """Raise if a transform of torch.func holds a DTensor."""
    functorch = torch._C._functorch
    for value in values:
        while isinstance(value, Tensor) and functorch.is_functorch_wrapped_tensor(value):
            value = functorch.get_unwrapped(value)
        if is_sharded(value):
            raise NotImplementedError(
                "torch.func's transforms of a DTensor are not served; call them on what its "
                "to_local() returns, with a row_offset for each rank"
            )


class Layout(NamedTuple):
    """Which part of the decisions this rank holds."""

    mesh: Any
    placements: tuple[Any, ...]
    """Of the decisions, one for each dimension of the mesh."""
    shape: tuple[int, ...]
    """Of all decisions."""
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    """Of this rank's part, along each dimension of the decisions."""
    rows: int
    """How many of them count rows: all, but for the classes of a dense decision."""
    cut_rows: int
    """How many of them reach to the last one that is cut."""

    def of_rows(self) -> Layout:
        """Return how rows lie: as the decisions, but for the classes of a dense one."""
        kept = slice(self.rows)
        return self._replace(
            shape=self.shape[kept], starts=self.starts[kept], sizes=self.sizes[kept]
        )

    def aligned(self, value: Tensor) -> Iterator[tuple[int, int]]:
        """Return the dimensions of the decisions that a value has, and its own for each."""
        missing = len(self.shape) - value.dim()
        for axis, size in enumerate(value.shape):
            if size == self.shape[missing + axis]:
                yield missing + axis, axis

    def wanted(self, value: Tensor) -> tuple[Any, ...]:
        """Return the placements of a value that is cut as the decisions are."""
        from torch.distributed.tensor import Replicate, Shard

        missing = len(self.shape) - value.dim()
        wanted: list[Any] = []
        for place in self.placements:
            axis = place.dim - missing if isinstance(place, Shard) else -1
            if axis < 0 or value.shape[axis] != self.shape[place.dim]:
                wanted.append(Replicate())
            else:
                wanted.append(Shard(axis) if missing else place)
        return tuple(wanted)

    def cut(self, value: Tensor) -> Tensor:
        """Return this rank's part of a value that broadcasts to the decisions."""
        if not is_sharded(value):
            return value
        part: Tensor = value.to_local()  # type: ignore[attr-defined]
        if _is_replicated(value):
            for dim, axis in self.aligned(value):
                part = part.narrow(axis, self.starts[dim], self.sizes[dim])
        return part

    def blocks(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Return the parts whose rows have successive ids: their index, and the first row's place.

        It is one part where only the first dimension is cut.
        """
        if math.prod(self.sizes) == 0:
            yield (), 0
            return
        strides = _strides(self.shape[: self.rows])
        outer = max(self.cut_rows - 1, 0)
        for index in itertools.product(*map(range, self.sizes[:outer])):
            steps = itertools.zip_longest(index, self.starts[: self.cut_rows], fillvalue=0)
            places = (step + start for step, start in steps)
            yield index, sum(at * stride for at, stride in zip(places, strides, strict=False))

    def whole(self, part: Tensor) -> Tensor:
        """Return the DTensor of which every rank has a part."""
        return _from_local(part, self.mesh, self.placements, self.shape, _strides(self.shape))

    def total(self, counts: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of counts and of excess over the ranks; one collective."""
        from torch.distributed.tensor import Partial, Replicate

        # Half-done sums would be read as the whole ones: a rank's `item` of them is its own part.
        half = [Replicate() if place == Replicate() else Partial() for place in self.placements]
        both = torch.cat([counts.double(), excess])  # exact below 2**53
        summed = _from_local(both, self.mesh, half).redistribute(
            placements=[Replicate()] * len(half)
        )
        return summed[:4].long(), summed[4:]


def check_sharded(
    name: str, rows: Tensor, decisions: torch.Size, is_drawn: bool, others: dict[str, Any]
) -> Layout:
    """Return how decisions lie on the ranks.

    Parameters
    ----------
    name : str
        What errors call ``rows``: logits or log_ratio.
    decisions : torch.Size
        Their shape, of all ranks.
    is_drawn : bool
        Whether each rank draws a seed of its own.
    others : dict
        The other arguments by name, of which those that are no tensors are passed over.

    Raises
    ------
    TypeError, ValueError
        If plain tensors and DTensors are mixed, or not every rank has whole rows and what they
        need.
    """
    if not is_sharded(rows):
        given = next(other for other, value in others.items() if is_sharded(value))
        if name == "hidden":
            raise TypeError(f"{given} is a DTensor; beside LinearLogits give its full_tensor()")
        raise TypeError(f"{given} is a DTensor, {name} is not; give both as DTensors or neither")
    layout = _layout(name, rows, decisions)
    for other, value in others.items():
        if isinstance(value, Tensor):
            of = layout.of_rows() if other == "temperature" else layout
            _check_other(other, value, name, of, other in ("seed", "order"))
    if is_drawn and any(_is_copied(layout.mesh, layout.placements)):
        raise ValueError(
            f"{name} is replicated over ranks, each of which would draw a seed of its own and "
            "decide differently; give the same seed on every rank"
        )
    return layout


def decide_part(layout: Layout, operator: Callable[..., Any], fields: dict[str, Any]) -> Any:
    """Call the operator of a decision on this rank's rows, and put the results together."""
    rows = next(iter(fields))
    by_row = {
        key: layout.of_rows() if key == "temperature" else layout
        for key in _BY_ROW & fields.keys()
        if isinstance(fields[key], Tensor)
    }
    local = {
        key: by_row[key].cut(value) if key in by_row else own_part(value)
        for key, value in fields.items()
    }
    results = []
    for index, place in layout.blocks():
        part = dict(local, row_offset=local["row_offset"] + place)
        if index:
            for key, of in by_row.items():
                part[key] = part[key].expand(of.sizes)[index]
            part[rows] = part[rows][index]
        results.append(operator(*part.values()))
    if isinstance(results[0], Tensor):
        return layout.whole(_join(results, layout.sizes))
    *decisions, counts, excess = zip(*results, strict=True)
    return (
        *(layout.whole(_join(parts, layout.sizes)) for parts in decisions),
        *layout.total(sum(counts), sum(excess)),
    )


def own_part(value: Any) -> Any:
    """Return what this rank holds of a DTensor, else the value."""
    return value.to_local() if is_sharded(value) else value


def replicated(value: Tensor) -> Tensor:
    """Return a DTensor of which every rank holds the whole, else the value."""
    if not is_sharded(value):
        return value
    from torch.distributed.tensor import Replicate

    whole: Tensor = value.redistribute(placements=[Replicate()] * value.device_mesh.ndim)  # type: ignore[attr-defined]
    return whole


def largest_of(value: Tensor) -> Tensor:
    """Return the largest element over all ranks, 0 of none: torch's fails on a rank without any."""
    part = own_part(value)
    largest: Tensor = part.amax() if part.numel() else part.new_zeros(())
    if not is_sharded(value):
        return largest
    from torch.distributed.tensor import Partial, Replicate

    placements = value.placements  # type: ignore[attr-defined]
    half = [Replicate() if place == Replicate() else Partial("max") for place in placements]
    return replicated(_from_local(largest, value.device_mesh, half))  # type: ignore[attr-defined]


def _layout(name: str, rows: Tensor, decisions: torch.Size) -> Layout:
    from torch.distributed.tensor import Replicate, Shard

    mesh, placements = rows.device_mesh, []  # type: ignore[attr-defined]
    row_dims = len(rows.shape) - (name == "logits")
    starts, sizes = [0] * len(rows.shape), list(rows.shape)
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise ValueError(f"this rank is not in the mesh of {name}, {mesh}")
    for mesh_dim, place in enumerate(rows.placements):  # type: ignore[attr-defined]
        ranks = mesh.size(mesh_dim)
        dim = place.dim if type(place) is Shard else None
        if dim is not None and dim < row_dims:
            start, sizes[dim] = chunk(sizes[dim], ranks, coordinate[mesh_dim])
            starts[dim] += start
            placements.append(place)
        elif ranks == 1 or place == Replicate():
            placements.append(Replicate())
        elif dim is not None:
            raise ValueError(
                f"{name} is sharded over its classes, {place} on dimension {mesh_dim} of the mesh, "
                f"but a decision needs its whole row; {_REMEDY}"
            )
        else:
            raise ValueError(
                f"{name} must be sharded by rows or replicated, got {place} on dimension "
                f"{mesh_dim} of the mesh; {_REMEDY.replace('logits', name)}"
            )
    check_part(name, rows, sizes)
    kept = len(decisions)
    cut = [0] + [place.dim + 1 for place in placements if isinstance(place, Shard)]
    return Layout(
        mesh, tuple(placements), tuple(decisions), tuple(starts[:kept]), tuple(sizes[:kept]),
        min(kept, row_dims), max(cut),
    )  # fmt: skip


def _check_other(name: str, value: Tensor, rows: str, layout: Layout, is_whole: bool) -> None:
    if not is_sharded(value):
        # A plain tensor could hold all rows or this rank's.
        if not is_whole and (name == "targets" or value.numel() != 1):
            raise TypeError(
                f"{name} is a plain tensor of shape {list(value.shape)}, {rows} is a DTensor; make "
                "it one as well, by distribute_tensor or DTensor.from_local"
            )
        return
    if value.device_mesh != layout.mesh:  # type: ignore[attr-defined]
        raise ValueError(f"{name} and {rows} are DTensors of different meshes")
    placements = value.placements  # type: ignore[attr-defined]
    if _is_replicated(value):
        check_part(name, value, list(value.shape))
        return
    wanted = layout.wanted(value)
    if is_whole or any(
        has != wants and layout.mesh.size(mesh_dim) > 1
        for mesh_dim, (has, wants) in enumerate(zip(placements, wanted, strict=True))
    ):
        accepted = "" if is_whole else f"{list(wanted)}, as {rows}, or "
        raise ValueError(
            f"{name} must be placed {accepted}replicated on every rank, got {list(placements)}; "
            f"{name}.redistribute does it"
        )
    sizes = list(value.shape)
    for dim, axis in layout.aligned(value):
        sizes[axis] = layout.sizes[dim]
    check_part(name, value, sizes)


def chunk(length: int, ranks: int, at: int) -> tuple[int, int]:
    """Return start and size of a rank's part, as torch.chunk cuts."""
    size = -(-length // ranks)
    start = min(size * at, length)
    return start, min(size, length - start)


def check_part(name: str, value: Tensor, sizes: list[int]) -> None:
    """Raise unless a rank holds what the placements say: its row ids follow from them."""
    held = list(own_part(value).shape)
    if held != sizes:
        raise ValueError(
            f"{name} is a DTensor of shape {list(value.shape)}, of which this rank should hold "
            f"{sizes}, but it holds {held}; DTensor.from_local of uneven parts needs the shape "
            "and stride of the whole"
        )


def _is_copied(mesh: Any, placements: Any) -> list[bool]:
    """Say of each dimension of a mesh whether its ranks hold the same."""
    from torch.distributed.tensor import Replicate

    return [place == Replicate() and mesh.size(at) > 1 for at, place in enumerate(placements)]


def _is_replicated(value: Any) -> bool:
    mesh = value.device_mesh
    copied = _is_copied(mesh, value.placements)
    return all(is_copied or mesh.size(at) == 1 for at, is_copied in enumerate(copied))


def _from_local(part: Tensor, mesh: Any, placements: Any, *whole: tuple[int, ...]) -> Any:
    from torch.distributed.tensor import DTensor

    shape, stride = (torch.Size(whole[0]), whole[1]) if whole else (None, None)
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=shape, stride=stride)


def _join(parts: Any, sizes: tuple[int, ...]) -> Tensor:
    whole: Tensor = parts[0]
    return whole if whole.shape == sizes else torch.stack(parts).view(sizes)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
