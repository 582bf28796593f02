"""What must not grow: memory, objects, threads, files, shared memory, children."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import statistics
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import torch

PROCESS = Path("/proc/self")
MIB = 1 << 20


class Sample(NamedTuple):
    """The process at one moment, at which none of its threads makes a call."""

    rss: int
    """Bytes of resident memory, without the pages of files."""
    malloc: int
    """Bytes that malloc has given out: tensors, arrays and objects of C++. 0 where unknown."""
    blocks: int
    """Small objects of Python's."""
    objects: int
    """Objects that Python's collector knows of."""
    tensors: int
    threads: int
    """Of Python."""
    tasks: int
    """Threads of the kernel: also those of OpenMP, and of the C++ core."""
    files: int
    """Open descriptors."""
    shm: int
    """Mappings of /dev/shm, and files of this process's there."""
    children: int


# How much each may grow after the warm-up, however long that is. What malloc has given out hardly
# moves: a leak of 10 bytes a call is 8 MiB in two hours. Resident memory also holds what is free
# between two things in use, and tells of leaks past malloc alone.
LIMITS = Sample(
    rss=32 * MIB, malloc=8 * MIB, blocks=20_000, objects=5_000, tensors=50,
    threads=0, tasks=3, files=0, shm=0, children=0,
)  # fmt: skip
ENOUGH = 9  # samples, to tell growth from noise
# These are as good as exact at every moment: the last must not be above the first ones' largest.
COUNTED = ("threads", "tasks", "files", "shm", "children")


class MallocInfo(ctypes.Structure):
    """The struct mallinfo2 of glibc."""

    _names = (
        *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
        *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
    )
    _fields_ = list(zip(_names, (ctypes.c_size_t,) * len(_names), strict=True))


def steady_memory() -> None:
    """Keep free memory from piling up in pieces: it would look like a leak."""
    libc = ctypes.CDLL(None)
    libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: no huge pages, which are never given back
    if hasattr(libc, "mallopt"):
        libc.mallopt(-8, 2)  # M_ARENA_MAX
        libc.mallopt(-3, 1 << 17)  # M_MMAP_THRESHOLD: large blocks are given back when freed


def take_sample() -> Sample:
    """Collect garbage, give free memory back, and measure."""
    gc.collect()
    libc = ctypes.CDLL(None)
    malloc = 0
    if hasattr(libc, "mallinfo2"):
        libc.malloc_trim(0)
        libc.mallinfo2.restype = MallocInfo
        info = libc.mallinfo2()
        malloc = info.uordblks + info.hblkhd
    objects = gc.get_objects()
    return Sample(
        rss=_resident(),
        malloc=malloc,
        blocks=sys.getallocatedblocks(),
        objects=len(objects),
        tensors=sum(type(one) is torch.Tensor for one in objects),
        threads=threading.active_count(),
        tasks=len(list((PROCESS / "task").iterdir())),
        files=len(os.listdir(PROCESS / "fd")),
        shm=_shared_memory(),
        children=len(children()),
    )


def children() -> list[int]:
    """Return the children of this process, also those that have ended and are not waited for."""
    files = (PROCESS / "task").glob("*/children")
    return [int(child) for file in files for child in file.read_text(encoding="utf-8").split()]


def _resident():
    (line,) = (
        line
        for line in (PROCESS / "status").read_text(encoding="utf-8").splitlines()
        if "RssAnon" in line
    )
    return int(line.split()[1]) << 10


def _shared_memory():
    maps = (PROCESS / "maps").read_text(encoding="utf-8").splitlines()
    mine = [name for name in os.listdir("/dev/shm") if f"_{os.getpid()}_" in name]
    return sum("/dev/shm/" in line for line in maps) + len(mine)


def growths(samples: list[Sample]) -> dict[str, float]:
    """Return how much each has grown after the warm-up, the first third of the samples.

    Of a noisy one that is the median slope of all pairs times the time (Theil 1950, Sen 1968); of
    what is counted it is the least of the last three against the largest before.
    """
    warm = len(samples) // 3
    first, rest = samples[: warm + 1], samples[warm:]
    grown = {}
    for name in Sample._fields:
        early, values = ([getattr(sample, name) for sample in part] for part in (first, rest))
        if name in COUNTED:
            grown[name] = min(values[-3:]) - max(early)
        else:
            pairs = itertools.combinations(enumerate(values), 2)
            slope = statistics.median((late - soon) / (j - i) for (i, soon), (j, late) in pairs)
            grown[name] = slope * (len(values) - 1)
    return grown


def leaks(samples: list[Sample]) -> list[str]:
    """Return what has grown by more than it may, a sentence each; few samples tell nothing."""
    if len(samples) < ENOUGH:
        return []
    return [
        f"{name} grew by {grown:,.0f}, more than {getattr(LIMITS, name):,}: "
        f"{[getattr(sample, name) for sample in samples[:: max(1, len(samples) // 12)]]}"
        for name, grown in growths(samples).items()
        if grown > getattr(LIMITS, name)
    ]
