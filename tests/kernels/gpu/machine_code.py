"""Count what the loops of compiled kernels cost, from their machine code; no GPU is needed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
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
    """One trip round the loop that reads most: how many instructions, and of which kinds."""

    instructions: int
    loads: int  # of global memory
    barriers: int
    exchanges: int  # between the threads of a warp
    doubles: int  # of float64 arithmetic


def main_loop(asm: dict) -> Loop | None:
    """Return the loop with the most loads of a compiled kernel, None where none loads."""
    code, ends = _nvidia(asm["cubin"]) if "cubin" in asm else _amd(asm["amdgcn"])
    # A block that the compiler has moved up makes a jump back to it look like a loop round others.
    innermost = [
        (begin, end) for begin, end in ends if not any(begin < head < end for head, _ in ends)
    ]
    loops = [_count(code[begin : end + 1]) for begin, end in innermost]
    reading = [loop for loop in loops if loop.loads]
    return max(reading, key=lambda loop: (loop.loads, loop.instructions), default=None)


def instructions(asm: dict) -> int:
    """Return the instructions of a whole kernel."""
    return len(_nvidia(asm["cubin"])[0] if "cubin" in asm else _amd(asm["amdgcn"])[0])


def _nvidia(cubin: bytes) -> tuple[list[str], list[tuple[int, int]]]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True)
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
        barriers=matching(r"BAR\b|s_barrier"),
        exchanges=matching(r"SHFL|ds_bpermute|ds_swizzle|v_permlane"),
        doubles=matching(r"D(ADD|MUL|FMA|SETP|MNMX)|v_\w+_f64"),
    )
