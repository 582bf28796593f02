"""Options of a run, each written once, as a field of a dataclass.

A field says its type, default and help, what is accepted of it, and which methods read it. The
dataclass checks itself by that, and `rskernels.cli.options` makes the command's options of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

LARGEST = torch.finfo(torch.float32).max  # what torch's optimisers take


class Accepted(NamedTuple):
    """The values that an option may have."""

    test: Callable[[Any], bool]
    text: str
    """What is accepted, as an error says it."""
    choices: tuple[str, ...] = ()
    """All of them, where they are few and have names."""


class Option(NamedTuple):
    """What a field says of itself besides its type and default."""

    help: str
    panel: str
    """The heading under which the command's help shows it."""
    accepted: Accepted | None
    read_by: tuple[str, tuple[str, ...]] | None
    """Another field and its values for which this one is read; None is all."""
    usual: Any
    """The value where it is read and not given."""
    shown: str | None
    """The default as the command's help says it; None is the usual value."""
    may_change: bool
    """Whether a run that is resumed may have another value."""


def option(
    usual: Any,
    help: str,
    panel: str,
    *,
    accepted: Accepted | None = None,
    read_by: tuple[str, Iterable[str]] | None = None,
    shown: str | None = None,
    may_change: bool = False,
) -> Any:
    """Return a field of a subclass of `Options`.

    Parameters
    ----------
    usual : Any
        The default. That of the field is None where only some methods read it, so that a value
        which was given can be told from one that was not; a flag is False in any case.
    help, panel : str
        For the command's help.
    accepted : Accepted, optional
        Values that it may have.
    read_by : (str, iterable of str), optional
        Another field and its values for which this one is read. For others it must not be given.
    shown : str, optional
        The default, in words.
    may_change : bool
        Whether a run that is resumed may have another value.
    """
    readers = None if read_by is None else (read_by[0], tuple(read_by[1]))
    default = usual if readers is None or isinstance(usual, bool) else None
    metadata = {"option": Option(help, panel, accepted, readers, usual, shown, may_change)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that check themselves, and take the usual value where none is given.

    Raises
    ------
    ValueError
        If a value is not accepted, or is given to a method that does not read it.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            option: Option = field.metadata["option"]
            value = getattr(self, field.name)
            if option.read_by is not None:
                selector, readers = option.read_by
                selected = getattr(self, selector)
                if selected not in readers:
                    if value != field.default:
                        raise ValueError(
                            f"{field.name}={value!r}: only {selector} {' or '.join(readers)} "
                            f"reads it, got {selector}={selected!r}"
                        )
                    continue
                if value is None:
                    value = option.usual
                    object.__setattr__(self, field.name, value)
            if value is not None and option.accepted and not option.accepted.test(value):
                raise ValueError(f"{field.name}={value!r}: {option.accepted.text}")


def one_of(names: Iterable[str]) -> Accepted:
    """Accept some names."""
    choices = tuple(names)
    return Accepted(lambda value: value in choices, f"accepted are {', '.join(choices)}", choices)


def whole(least: int, most: int = 2**31 - 1) -> Accepted:
    """Accept numbers from `least` to `most`."""
    return Accepted(lambda value: least <= value <= most, f"accepted is {least} to {most}")


POSITIVE = Accepted(
    lambda value: 0 < value <= LARGEST, f"a positive number up to {LARGEST:.2g} is needed"
)
BELOW_ONE = Accepted(lambda value: 0 <= value < 1, "accepted is [0, 1)")
INSIDE_ONE = Accepted(lambda value: 0 < value < 1, "accepted is (0, 1)")
SEED = Accepted(lambda value: 0 <= value < 1 << 63, "accepted is 0 to 2**63 - 1")
