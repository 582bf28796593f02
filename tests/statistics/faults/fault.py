"""What a planted fault is: functions of each backend replaced, and the check that finds it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

Replacements = Mapping[str, Callable]
NONE: Replacements = MappingProxyType({})


class Fault(NamedTuple):
    """What is wrong, the check that finds it, and what it replaces in each backend.

    A key is a function of the package, ``kernels.cpu.law.ratios``; its value is the function that
    takes its place, and in which ``original`` is what it replaces.
    """

    name: str
    check: Callable[..., None]
    reference: Replacements = NONE
    cpu: Replacements = NONE
    gpu: Replacements = NONE
    nightly: tuple[str, ...] = ()
    """Backends in which it takes seconds, and that are spared it in an ordinary run."""
