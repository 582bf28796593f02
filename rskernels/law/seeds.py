"""Seeds, streams and row ids: what is accepted, and seeds drawn from a generator."""

from __future__ import annotations

import threading

import torch

from rskernels._python.integers import as_integer
from rskernels.law.streams import Stream

CPU = torch.device("cpu")
_SEEDS = 2**63 - 1  # how many seeds a generator is asked for


def check_seed(seed: int | torch.Tensor) -> int | torch.Tensor:
    """Return a seed that kernels accept: an int wrapped to int64, or a one-element int64 tensor.

    Raises
    ------
    TypeError
        If the seed is neither an int nor an int64 tensor.
    ValueError
        If the int does not fit 64 bits or the tensor has not exactly one element.
    """
    if type(seed) is not int:
        if isinstance(seed, torch.Tensor):
            return _check_seed_tensor(seed)
        seed = as_integer("seed", seed, "an int or an int64 tensor")
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"seed must fit 64 bits (-2**63 to 2**64 - 1), got {seed}")
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def _check_seed_tensor(seed: torch.Tensor) -> torch.Tensor:
    if seed.dtype != torch.int64:
        raise TypeError(f"a seed tensor must be int64, got {seed.dtype}")
    if seed.numel() != 1:
        raise ValueError(f"a seed tensor must have one element, got shape {list(seed.shape)}")
    return seed


def check_stream(stream: int) -> int:
    """Return an int in ``[0, 2**31)``, such as a ``Stream``."""
    if type(stream) is not int and type(stream) is not Stream:
        stream = as_integer("stream", stream)
    if not 0 <= stream < 1 << 31:
        raise ValueError(f"stream must be in [0, 2**31), got {stream}")
    return int(stream)  # Numba compiles an IntEnum apart


def check_row_offset(row_offset: int) -> int:
    """Return ``row_offset`` if it is an int of at least 0 that fits an int64."""
    if type(row_offset) is not int:
        row_offset = as_integer("row_offset", row_offset)
    if not 0 <= row_offset < 1 << 63:
        raise ValueError(f"row_offset must be in [0, 2**63), got {row_offset}")
    return row_offset


def draw_seed(
    generator: torch.Generator | None, device: torch.device, is_idle: bool = False
) -> int | torch.Tensor:
    """Draw a 63-bit seed from a generator, or from torch's default one of the device.

    On a CUDA device the seed is a tensor that stays there, so nothing waits and a CUDA graph draws
    afresh at every replay. ``is_idle`` says that nothing listens to torch's calls, so that a seed
    on the CPU may be drawn as a number, which takes half the time.

    Raises
    ------
    TypeError
        If ``generator`` is not a torch.Generator.
    ValueError
        If ``generator`` lives on another device.
    NotImplementedError
        If a graph is traced, which cannot hold a generator.
    """
    if generator is None:
        if is_idle and device == CPU:
            return _draw_number()
        return torch.randint(_SEEDS, (1,), device=device)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator.device.type != device.type:
        raise ValueError(f"generator is on {generator.device}, the draw is on {device}")
    if torch.compiler.is_compiling():
        raise NotImplementedError(
            "torch.compile and torch.export cannot trace a draw from a generator; "
            "draw an int64 tensor from it outside of the graph and give that as the seed"
        )
    return torch.randint(_SEEDS, (1,), device=device, generator=generator)


_thread = threading.local()


def _draw_number() -> int:
    """Draw into a tensor of this thread's own: half the time of making one."""
    try:
        number = _thread.number
    except AttributeError:
        with torch.inference_mode(False):
            number = _thread.number = torch.empty((), dtype=torch.int64, device="cpu")
    # What randint draws, so that a compiled or exported call decides as this one.
    seed: int = number.random_(_SEEDS).item()
    return seed
