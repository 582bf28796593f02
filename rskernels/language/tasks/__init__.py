"""Tasks with verifiers that need no download.

``arithmetic`` has many right answers, ``parity`` a closed form of what rounds do, and ``graph``
laws that are known by enumeration.
"""

from rskernels.language.tasks.named import NAMES, demonstrations_of, task_of

__all__ = ["NAMES", "demonstrations_of", "task_of"]
