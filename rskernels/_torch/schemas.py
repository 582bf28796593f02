"""The schemas of the torch operators, made of one list of fields for each operation.

Operators take checked arguments (see ``rskernels.ops``). What may be a tensor or a number has two
fields: a tensor or None, and the number that counts where there is no tensor. Each operation has
two operators: the one of its name, and ``dynamic_`` with the numbers in a tensor (see ``dynamic``).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", int, float)

_REQUIRED = object()
# Asked of a number, this is twice as fast as whether it is a tensor.
NUMBER = (float, int, torch.SymFloat, torch.SymInt)


class Field(NamedTuple):
    """One argument of an operator."""

    type: str
    name: str
    default: Any = _REQUIRED

    def __str__(self) -> str:
        default = "" if self.default is _REQUIRED else f"={self.default}"
        return f"{self.type} {self.name}{default}"


class Schema(NamedTuple):
    """The arguments and results of an operation."""

    fields: tuple[Field, ...]
    returns: str

    @property
    def number_places(self) -> tuple[int, ...]:
        """Places of the fields that a compiled graph may change without being compiled anew."""
        return tuple(at for at, field in enumerate(self.fields) if field.type == "float")


_ROWS = (Field("Tensor", "logits"), Field("Tensor?", "targets"))
# A trailing argument that equals its default is not converted to Python, which saves time.
_LAW = (
    Field("Tensor?", "density"),
    Field("float", "density_value", 1.0),
    Field("Tensor?", "M", None),
    Field("float", "M_value", 1.0),
    Field("Tensor?", "seed", None),
    Field("SymInt", "seed_value", 0),
    Field("SymInt", "row_offset", 0),
    Field("Tensor?", "temperature", None),
    Field("float", "temperature_value", 1.0),
    Field("bool", "log_space", False),
    Field("bool", "model_is_target", False),
    Field("int", "ignore_index", -100),
)
_READING = (Field("bool", "is_lazy", False), Field("Tensor?", "order", None))
_PRODUCT = (
    Field("Tensor", "hidden"),
    Field("Tensor", "weight"),
    Field("Tensor?", "bias"),
    Field("float", "scale"),
    Field("float", "softcap"),
    Field("Tensor?", "A"),
    Field("Tensor?", "B"),
    Field("float", "lora_scale"),
    Field("Tensor", "targets"),
)
_RATIOS = (
    Field("Tensor", "log_ratio"),
    Field("Tensor?", "M"),
    Field("float", "M_value"),
    Field("Tensor?", "seed"),
    Field("SymInt", "seed_value"),
    Field("SymInt", "row_offset"),
    Field("int", "stream"),
    Field("bool", "log_space"),
)
_IDS = Field("Tensor?", "ids", None)
_SEQUENCES = (*_RATIOS, Field("Tensor?", "mask"), Field("Tensor?", "cu_seqlens"))
_TARGETS = (Field("Tensor", "logits"), Field("Tensor", "targets"))
_SOFTMAX = (
    Field("Tensor?", "temperature", None),
    Field("float", "temperature_value", 1.0),
    Field("int", "ignore_index", -100),
)
_GRADIENT = (Field("Tensor", "upstream"), *_TARGETS, Field("Tensor", "totals"), *_SOFTMAX)
_LINEAR_GRADIENT = (
    Field("Tensor", "upstream"),
    *_PRODUCT,
    Field("Tensor", "totals"),
    Field("bool[]", "wanted"),
    *_SOFTMAX,
)
_SPECULATION = (
    Field("Tensor", "draft_tokens"),
    Field("Tensor?", "draft_logits"),
    Field("Tensor?", "lengths"),
    Field("Tensor?", "temperature"),
    Field("float", "temperature_value"),
    Field("Tensor?", "top_k"),
    Field("SymInt", "top_k_value"),
    Field("Tensor?", "top_p"),
    Field("float", "top_p_value"),
    Field("Tensor?", "seed"),
    Field("SymInt", "seed_value"),
    Field("Tensor?", "row_offset"),
    Field("SymInt", "row_offset_value"),
    Field("bool", "is_block"),
    Field("bool", "is_processed"),
)
_SPECULATED = "(Tensor, Tensor, Tensor, Tensor)"
_WITH_TOTALS = "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"

SCHEMAS = {
    "mask": Schema((*_ROWS, *_LAW, *_READING), "Tensor"),
    "decide": Schema((*_ROWS, *_LAW), "(Tensor, Tensor, Tensor, Tensor, Tensor)"),
    "decide_with_totals": Schema((*_TARGETS, *_LAW), _WITH_TOTALS),
    "linear_mask": Schema((*_PRODUCT, *_LAW, *_READING), "Tensor"),
    "linear_decide": Schema((*_PRODUCT, *_LAW), "(Tensor, Tensor, Tensor, Tensor, Tensor)"),
    "linear_decide_with_totals": Schema((*_PRODUCT, *_LAW), _WITH_TOTALS),
    "linear_target_log_prob": Schema((*_PRODUCT, *_SOFTMAX), "(Tensor, Tensor)"),
    "linear_target_log_prob_backward": Schema(_LINEAR_GRADIENT, "Tensor[]"),
    "bernoulli": Schema((*_RATIOS, _IDS), "Tensor"),
    "decide_ratios": Schema((*_RATIOS, _IDS), "(Tensor, Tensor, Tensor, Tensor)"),
    "decide_sequences": Schema(
        (*_SEQUENCES, Field("str", "statistic"), _IDS),
        "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    ),
    "accept_prefix": Schema((*_SEQUENCES, _IDS), "Tensor"),
    "speculate": Schema((Field("Tensor", "logits"), *_SPECULATION), _SPECULATED),
    "linear_speculate": Schema((*_PRODUCT[:-1], *_SPECULATION), _SPECULATED),
    "target_log_prob": Schema((*_TARGETS, *_SOFTMAX), "(Tensor, Tensor)"),
    "target_log_prob_backward": Schema(_GRADIENT, "Tensor"),
}

LIBRARY = torch.library.Library("rskernels", "DEF")

for _name, (_fields, _returns) in SCHEMAS.items():
    LIBRARY.define(f"{_name}({', '.join(map(str, _fields))}) -> {_returns}")
    # Without defaults, so that an implementation is given every argument.
    _bare = ", ".join(f"{field.type} {field.name}" for field in _fields)
    LIBRARY.define(f"dynamic_{_name}(Tensor numbers, {_bare}) -> {_returns}")


def operator(name: str) -> Any:
    """Return the torch operator of a name."""
    return getattr(torch.ops.rskernels, name).default


def split(value: Tensor | T, unused: T) -> tuple[Tensor | None, T]:
    """Return the two fields of what is a tensor or a number."""
    return (None, value) if isinstance(value, NUMBER) else (value, unused)
