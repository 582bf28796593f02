"""The arithmetic of every operation, three times: ``reference``, ``cpu`` and ``gpu``.

All three have the same function names and arguments. Start with ``reference/rows.py``.
"""

__all__ = ["cpu", "gpu", "layout", "reference"]
