"""Count what the loops of compiled kernels cost, from their machine code; no GPU is needed."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import triton

NVIDIA_LABEL = re.compile(r"\s*(\.L_x_\d+):")
NVIDIA_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(.*?);")
NVIDIA_BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")
AMD_LABEL = re.compile(r"(\.LBB\d+_\d+):")
AMD_INSTRUCTION = re.compile(r"\s+([sv]_\w+|ds_\w+|global_\w+|buffer_\w+|flat_\w+)\b(.*)")
AMD_BRANCH = re.compile(r"s_c?branch\w*\s+(\.LBB\d+_\d+)")


class Loop(NamedTuple):
    """One trip round a loop: how many instructions, and of which kinds."""

    instructions: int
    loads: int  # of global memory
    stores: int
    barriers: int
    doubles: int  # of float64 arithmetic


def main_loop(asm: dict) -> Loop | None:
    """Return the loop with the most loads of a compiled kernel, None where none loads."""
    return _with_most_loads(loop for loop in _loops(asm) if loop.loads)


def reading_loop(asm: dict) -> Loop | None:
    """Return the loop with the most loads of those that write nothing."""
    return _with_most_loads(loop for loop in _loops(asm) if loop.loads and not loop.stores)


def writing_loop(asm: dict) -> Loop | None:
    """Return the shortest loop that reads and writes: longer ones serve rows that need care."""
    return min((loop for loop in _loops(asm) if loop.loads and loop.stores), default=None)


def _with_most_loads(loops: Iterable[Loop]) -> Loop | None:
    return max(loops, key=lambda loop: (loop.loads, loop.instructions), default=None)


def _loops(asm: dict) -> list[Loop]:
    """Return the innermost loops of a compiled kernel."""
    return _nvidia_loops(asm["cubin"]) if "cubin" in asm else _innermost(*_amd(asm["amdgcn"]))


# A kernel is asked for its loops of several kinds, and is that of several launches.
@functools.cache
def _nvidia_loops(cubin: bytes) -> list[Loop]:
    return _innermost(*_nvidia(cubin))


def _innermost(code: list[str], ends: list[tuple[int, int]]) -> list[Loop]:
    # A block that the compiler has moved up makes a jump back to it look like a loop round others.
    innermost = [
        (begin, end) for begin, end in ends if not any(begin < head < end for head, _ in ends)
    ]
    return [_count(code[begin : end + 1]) for begin, end in innermost]


def _nvidia(cubin: bytes) -> tuple[list[str], list[tuple[int, int]]]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        command = [tool, "-c", file]
        done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    return _parse(done.stdout, NVIDIA_LABEL, NVIDIA_INSTRUCTION, NVIDIA_BRANCH)


def _amd(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    return _parse(text, AMD_LABEL, AMD_INSTRUCTION, AMD_BRANCH)


def _parse(text, label, instruction, branch):
    """Return the instructions, and where each backward branch goes and stands."""
    code: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if found := label.match(line):
            labels[found[1]] = len(code)
        elif found := instruction.match(line):
            code.append(" ".join(found.groups()).strip())
    jumps = [(at, branch.search(one)) for at, one in enumerate(code)]
    # A program ends in a branch to itself.
    loops = [(labels[to[1]], at) for at, to in jumps if to and labels[to[1]] < at]
    return code, loops


def _count(body: list[str]) -> Loop:
    names = Counter(re.sub(r"^@!?U?P\d+\s+", "", one).split()[0] for one in body)

    def matching(pattern: str) -> int:
        return sum(count for name, count in names.items() if re.match(pattern, name))

    return Loop(
        instructions=len(body),
        loads=matching(r"LDG|global_load|buffer_load"),
        stores=matching(r"STG|global_store|buffer_store"),
        barriers=matching(r"BAR\b|s_barrier"),
        doubles=matching(r"D(ADD|MUL|FMA|SETP|MNMX)|v_\w+_f64"),
    )
