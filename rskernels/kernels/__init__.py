"""The arithmetic of every operation, three times: ``reference``, ``cpu`` and ``gpu``.

``cpu`` and ``gpu`` have the same functions; ``reference`` defines them, and leaves gradients to
autograd. ``layout`` has the strides of rows. Start with ``reference/rows.py``.
"""

__all__ = ["cpu", "gpu", "layout", "reference"]
