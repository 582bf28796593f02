"""Rejection sampling behind the hooks of other frameworks, a file each.

A file imports its framework only when it is used. ``rules`` and ``decider`` are what those for
reinforcement learning share.
"""

__all__ = ["decider", "groups", "prime_rl", "rules", "slime", "verl"]
