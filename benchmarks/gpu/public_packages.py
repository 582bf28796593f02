"""Public packages that offer log q of the target, where they are installed.

Liger's cross entropy computes it from logits; it returns the dtype of the logits, so that in
bfloat16 it is rounded to eight bits and no baseline. Cut cross-entropy computes it from hidden
states and the classifier's weights, without the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import rskernels

LogProb = Callable[..., Tensor]

# Of log q, from logits in float32; of hidden states, whose products may round to bfloat16.
TOLERANCE = 1e-3
HIDDEN_TOLERANCE = 0.1


class Package(NamedTuple):
    """A package's log q of the target, or why there is none."""

    name: str
    log_prob: LogProb | None
    missing: str = ""


def liger() -> Package:
    """Return Liger's, of ``(logits, targets)``."""
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy
    except ImportError as error:
        return Package("Liger", None, f"Liger left out: {error}; pip install liger-kernel")
    return Package("Liger", lambda logits, targets: -liger_cross_entropy(
        logits, targets, reduction="none"
    ))  # fmt: skip


def cut_cross_entropy() -> Package:
    """Return cut cross-entropy's, of ``(hidden, weight, targets)``."""
    name = "cut cross-entropy"
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError as error:
        return Package(name, None, f"{name} left out: {error}; pip install cut-cross-entropy")
    return Package(name, lambda hidden, weight, targets: -linear_cross_entropy(
        hidden, weight, targets, reduction="none"
    ))  # fmt: skip


def linear_log_prob(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the same by a matrix product and rskernels."""
    return rskernels.target_log_prob(hidden @ weight.T, targets)


def mask_form(package: Package) -> Callable[..., Tensor]:
    """Return verify_mask by a package, of ``(logits, q_hat, M, targets)``."""

    def form(logits: Tensor, q_hat: Tensor, M: float, targets: Tensor) -> Tensor:
        q_t = package.log_prob(logits, targets).float().exp()
        return torch.rand_like(q_t) <= q_t / (M * q_hat)

    return form


def fault(package: Package, *tensors: Tensor) -> str:
    """Return what keeps a package's form from being a baseline on these tensors, if anything."""
    copies = [tensor.clone() for tensor in tensors]
    try:
        got = package.log_prob(*copies)
    except Exception as error:  # whatever a package may raise is told, and ends no run
        first = str(error).strip().splitlines() or [type(error).__name__]
        return f"{package.name} left out: {first[0]}"
    if not all(map(torch.equal, copies, tensors)):
        return f"{package.name} left out: it writes over its input"
    *factors, targets = tensors
    logits = (
        factors[0].double() if len(factors) == 1 else factors[0].double() @ factors[1].T.double()
    )
    want = torch.log_softmax(logits, -1).gather(-1, targets[:, None]).squeeze(-1)
    error = (got.double() - want).abs().max().item()
    allowed = TOLERANCE if len(factors) == 1 else HIDDEN_TOLERANCE
    if not error <= allowed:
        dtype = str(factors[0].dtype).removeprefix("torch.")
        return f"{package.name} left out in {dtype}: log q is off by {error:.2g}"
    return ""
