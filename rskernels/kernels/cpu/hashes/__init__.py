"""XXH64 of many strings, pairs and lists at once; ``kernels.reference.hashes`` defines it."""

from rskernels.kernels.cpu.hashes.launch import fold, pairs, strings

__all__ = ["fold", "pairs", "strings"]
