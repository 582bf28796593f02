"""What logits are made of, as kernels take it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Lora(NamedTuple):
    """A low-rank change of the weight: s B A."""

    A: Tensor  # [r, D]
    B: Tensor  # [V, r]
    scale: float


class Product(NamedTuple):
    """Logits that are not stored: softcap tanh((scale (h W^T + s (h A^T) B^T) + bias) / softcap).

    Without a softcap (0.0), the argument of softcap tanh(x / softcap) is the logit itself.
    """

    hidden: Tensor  # [N, D]
    weight: Tensor  # [V, D]
    bias: Tensor | None  # [V]
    scale: float
    softcap: float
    lora: Lora | None
