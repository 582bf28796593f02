"""Rejection behind the hooks of training frameworks, a file each.

``metrics`` is what all of them report: one tensor with names. ``rules`` and ``decider`` are what
those for reinforcement learning share. Import the file of your framework; only that one needs it to
be installed.
"""

__all__ = [
    "assisted_generation",
    "decider",
    "groups",
    "hf_trainer",
    "metrics",
    "prime_rl",
    "rules",
    "slime",
    "trl",
    "verl",
]
