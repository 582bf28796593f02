"""The operations on logits that are not stored: made of their parts in float64, then as others."""

from __future__ import annotations

import torch

from rskernels.kernels.product import Product
from rskernels.kernels.reference import rows
from rskernels.law.decision import Decided, Law


def logits_of(product: Product) -> torch.Tensor:
    """Return the logits in float64, [N, V]."""
    hidden = product.hidden.double()
    z = hidden @ product.weight.double().mT
    if product.lora is not None:
        A, B, scale = product.lora
        z = z + scale * ((hidden @ A.double().mT) @ B.double().mT)
    z *= product.scale
    if product.bias is not None:
        z = z + product.bias.double()
    if product.softcap:
        z = product.softcap * torch.tanh(z / product.softcap)
    return z


def decide(product: Product, targets: torch.Tensor, law: Law) -> Decided:
    """Decide every row as ``rows.decide`` does; ``targets`` [...] are N in all."""
    return rows.decide(_logits_as(targets, product), targets, law)


def mask(
    product: Product,
    targets: torch.Tensor,
    law: Law,
    is_lazy: bool = False,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Decide every row, and return only the mask; see ``rows.mask``."""
    return decide(product, targets, law)[0]


def target_log_prob(
    product: Product,
    targets: torch.Tensor,
    temperature: torch.Tensor | float,
    ignore_index: int,
) -> torch.Tensor:
    """Return log q of the target, [...]: 0 where ignored, NaN where undefined."""
    return rows.target_log_prob(_logits_as(targets, product), targets, temperature, ignore_index)


def _logits_as(targets: torch.Tensor, product: Product) -> torch.Tensor:
    """Return the logits in the shape of the targets, [..., V]."""
    return logits_of(product).view(*targets.shape, len(product.weight))
