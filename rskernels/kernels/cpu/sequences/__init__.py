"""Decisions about sequences of tokens in Numba: ``loops`` over them, and their ``launch``."""

from rskernels.kernels.cpu.sequences.launch import accept_prefix, decide_sequences

__all__ = ["accept_prefix", "decide_sequences"]
