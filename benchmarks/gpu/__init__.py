"""Masks on a GPU, beside torch, and what the compiler makes of the kernels without one."""
