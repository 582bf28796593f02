"""Rejection behind the hooks of training frameworks, a file each.

``metrics`` is what all of them report: one tensor with names. Those for reinforcement learning
share ``rules``, ``decider`` and ``deciders``; ``extras`` has small helpers. Import the file of your
framework: that one alone needs the framework to be installed.
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
