"""One state out of the states of all processes, gathered and reduced on every one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from rskernels.distributed.collectives import all_gather, all_max
from rskernels.envelope.options import Options
from rskernels.envelope.units import TALLY, merge_tallies

Columns = dict[str, NDArray[Any]]


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
    failure: Exception | None = None
    try:
        state = read()
    except Exception as error:  # the others wait for this rank, and raise as well
        failure = error
        state = {name: np.zeros(0) for name in TALLY}
    groups = len(state["max_log_ratio"])
    rest = {name: state[name] for name in sorted(set(state) - set(TALLY))}
    ours = np.concatenate([*(state[name] for name in TALLY), *_with_lengths(rest)])
    digest = _digest(options)
    most, least, length, failed = all_max(
        [digest, -digest, float(len(ours)), float(failure is not None)], group
    )
    if failure is not None:
        raise failure
    if failed:
        raise RuntimeError(f"a rank could not read its envelope; that of rank {rank} stays")
    if most != -least:
        raise ValueError(f"the ranks hold envelopes of different options; rank {rank}: {options}")

    gathered = all_gather(torch.from_numpy(ours), int(length), group)
    tallies, others = gathered.tensor_split([groups * len(TALLY)], dim=1)
    columns = tallies.reshape(ranks, len(TALLY), groups).unbind(1)
    merged = merge_tallies(dict(zip(TALLY, columns, strict=True)))
    arrays: Columns = {name: column.cpu().numpy() for name, column in merged.items()}
    return arrays, [_unpack(part, rest) for part in others.cpu().numpy()]


def _digest(options: Options) -> float:
    """Return 48 bits of a hash, which a double holds."""
    bits = hashlib.sha256(repr(options).encode()).digest()[:6]
    return float(int.from_bytes(bits, "little"))


def _with_lengths(columns: Columns) -> list[Any]:
    """Return columns one after the other, each behind its length."""
    return [part for column in columns.values() for part in ([len(column)], column)]


def _unpack(packed: NDArray[np.float64], ours: Columns) -> Columns:
    """Return the columns that `_with_lengths` packed, of the names and dtypes of our own."""
    columns: Columns = {}
    start = 0
    for name, column in ours.items():
        end = start + 1 + int(packed[start])
        columns[name] = packed[start + 1 : end].astype(column.dtype)
        start = end
    return columns
