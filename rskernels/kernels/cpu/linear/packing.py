"""Rows packed in groups, as the product reads them: the words of a group's rows side by side."""

import torch
from numba import njit
from torch import Tensor

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.dtypes import F32, F64, Kernels
from rskernels.kernels.cpu.linear.micro import FEW, Factor
from rskernels.kernels.cpu.simd.memory import read_i32, read_i64, write_i32, write_i64
from rskernels.kernels.cpu.simd.vectors import named
from rskernels.kernels.cpu.threads import next_share, run_units

DTYPE = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}
PACK_WORK = 4  # a word costs what so many logits do, as it is seldom in a cache
SIDE = 16  # words of a row that are read together: a line of the cache, or two


def words_of(rows: Tensor, factor: Factor) -> int:
    """Return how many words a row has as it is multiplied."""
    return -(-rows.shape[1] // factor.features)


def pack(
    rows: Tensor, factor: Factor, numbers: Tensor | None = None, are_few: bool = False
) -> Tensor:
    """Return rows [n, D] packed in groups, [groups, words, rows of a group], with zeros after.

    ``numbers`` are those of the rows that are packed, int64 [n]; None stands for all of them. A
    few are a group of their own.
    """
    words, dtype = words_of(rows, factor), DTYPE[factor.name]
    width = words * factor.features
    if rows.dtype != dtype or rows.shape[1] != width or (rows.stride(1) != 1 and width > 1):
        whole = torch.zeros((len(rows), width), dtype=dtype, device="cpu")
        whole[:, : rows.shape[1]] = rows
        rows = whole
    count = len(rows) if numbers is None else len(numbers)
    group = FEW if are_few else factor.group
    groups = -(-count // group)
    word = torch.float64 if factor.size == 8 else torch.float32
    packed = torch.empty((groups, words, group), dtype=word, device="cpu")
    run_units(
        pack_kernels[F64 if factor.size == 8 else F32],
        (groups, group, count),
        PACK_WORK * packed.numel(),
        (rows.data_ptr(), rows.stride(0) * rows.element_size(), words),
        0 if numbers is None else numbers.data_ptr(),
        packed.data_ptr(),
    )
    return packed


def pack_rows_of(element):
    """Return the kernel that packs rows of words, a group a unit.

    ``rows`` is (address, bytes to the next row, words).
    """
    size = element.size
    read, write = (read_i64, write_i64) if size == 8 else (read_i32, write_i32)

    @cached
    @njit(nogil=True)
    @named(f"linear_pack_{element.name}")
    def pack_rows(share, arguments):
        counter, grab, units, group, N = share
        rows, numbers, packed = arguments
        address, stride, words = rows
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for unit in range(begin, min(begin + grab, units)):
                out = packed + unit * words * group * size
                for start in range(0, words, SIDE):
                    end = min(start + SIDE, words)
                    for lane in range(group):
                        at = unit * group + lane
                        if at < N:
                            n = read_i64(numbers, at) if numbers != 0 else at
                            row = address + n * stride
                            for word in range(start, end):
                                write(out, word * group + lane, read(row, word))
                        else:
                            for word in range(start, end):
                                write(out, word * group + lane, 0)
            begin = next_share(counter, begin, grab)
        return 0

    return pack_rows


pack_kernels = Kernels(pack_rows_of)
