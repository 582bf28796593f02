"""Python's side: ``integers`` as arguments, locks over ``forks``, ``text`` in any locale.

What every layer may need that is no law of decisions. Imports torch alone.
"""

from rskernels._python import forks, integers, text

__all__ = ["forks", "integers", "text"]
