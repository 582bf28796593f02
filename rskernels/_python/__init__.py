"""Python's side: ``integers`` as arguments, ``forks``, ``text`` in any locale, ``extras``.

What every layer may need that is no law of decisions. Imports torch alone.
"""

from rskernels._python import extras, forks, integers, text

__all__ = ["extras", "forks", "integers", "text"]
