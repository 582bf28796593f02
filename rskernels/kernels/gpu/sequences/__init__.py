"""Decisions about sequences of tokens in Triton: ``programs`` a sequence, and their ``launch``."""

from rskernels.kernels.gpu.sequences.launch import accept_prefix, decide_sequences

__all__ = ["accept_prefix", "decide_sequences"]
