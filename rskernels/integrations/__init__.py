"""Rejection behind the hooks of training frameworks, a file each.

``metrics`` is what all of them report: one tensor with names. Import the file of your framework;
only that one needs it to be installed.
"""

__all__ = ["assisted_generation", "hf_trainer", "metrics", "trl"]
