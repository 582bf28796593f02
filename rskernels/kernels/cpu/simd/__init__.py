"""Sixteen-lane vectors for Numba: every reduction states its order, so that bits are the same.

``vectors`` is the type and its operators, ``memory`` loads and stores it, ``functions`` are exp2
and log, ``uniforms`` the Philox words of sixteen rows or columns and what is made of them.
"""

__all__ = ["functions", "memory", "uniforms", "vectors"]
