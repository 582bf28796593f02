"""Hashes of NumPy arrays. int64 stands for 64 bits; lengths are checked, contents are not."""

import numpy as np
from numpy.typing import NDArray

from rskernels.kernels.cpu.hashes.loops import hash_lists, hash_pairs, hash_strings


def strings(data: NDArray[np.uint8], offsets: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return XXH64 of N strings, int64 ``[N]``.

    Parameters
    ----------
    data : array
        uint8, the bytes of all of them.
    offsets : array
        int32 or int64 ``[N + 1]``, rising, none past the end of the data.
    """
    if offsets.dtype not in (np.int32, np.int64):
        raise TypeError(f"offsets must be int32 or int64, got {offsets.dtype}")
    data, offsets = np.ascontiguousarray(data), np.ascontiguousarray(offsets)
    count = max(0, len(offsets) - 1)
    if count and not 0 <= offsets[0] <= offsets[-1] <= len(data):
        raise ValueError(f"offsets must rise from 0 to at most {len(data)}, the bytes there are")
    hashes = np.empty(count, np.int64)
    is_large = bool(offsets.dtype == np.int64)
    hash_strings(data.ctypes.data, offsets.ctypes.data, is_large, hashes.ctypes.data, count)
    return hashes


def pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return XXH64 of the sixteen bytes of each pair of numbers, int64 ``[N]``."""
    first, second = (np.ascontiguousarray(each, np.int64) for each in (first, second))
    if first.shape != second.shape:
        raise ValueError(f"pairs must be of as many, got {len(first)} and {len(second)}")
    hashes = np.empty(len(first), np.int64)
    hash_pairs(first.ctypes.data, second.ctypes.data, hashes.ctypes.data, len(first))
    return hashes


def fold(
    numbers: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the hash of each list of numbers, those from its start to its end, int64 ``[N]``."""
    numbers, starts, ends = (np.ascontiguousarray(a, np.int64) for a in (numbers, starts, ends))
    if starts.shape != ends.shape:
        raise ValueError(f"lists need as many starts as ends, got {len(starts)} and {len(ends)}")
    if len(starts) and not (starts.min() >= 0 and ends.max() <= len(numbers)):
        raise ValueError(f"lists must lie within the {len(numbers)} numbers")
    hashes = np.empty(len(starts), np.int64)
    hash_lists(
        numbers.ctypes.data, starts.ctypes.data, ends.ctypes.data, hashes.ctypes.data, len(starts)
    )
    return hashes
