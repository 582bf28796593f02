"""The torch forms that rskernels is compared with: the same answer from the same inputs.

Every form is a function of ``(logits, density, M, targets)`` and draws its uniforms from torch's
default generator. A form is exact where it computes in float32; the native bfloat16 forms round q
to eight bits, and are timed but are no baseline.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import rskernels
from benchmarks.common.cases import Case

Function = Callable[..., Any]


class Form(NamedTuple):
    """A torch form of an operation."""

    function: Function
    is_exact: bool = True


def _at(values: Tensor, targets: Tensor) -> Tensor:
    return values.gather(-1, targets[:, None]).squeeze(-1)


# The model's probability of the targets, [N].
def q_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    return _at(logits.softmax(-1, dtype=torch.float32), targets)


def q_log_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    return _at(logits.log_softmax(-1, dtype=torch.float32), targets).exp()


def q_logsumexp(logits: Tensor, targets: Tensor) -> Tensor:
    return (_at(logits, targets).float() - logits.float().logsumexp(-1)).exp()


def q_softmax_native(logits: Tensor, targets: Tensor) -> Tensor:
    return _at(logits.softmax(-1), targets).float()


def q_log_softmax_native(logits: Tensor, targets: Tensor) -> Tensor:
    return _at(logits.log_softmax(-1), targets).float().exp()


def q_logsumexp_native(logits: Tensor, targets: Tensor) -> Tensor:
    return (_at(logits, targets) - logits.logsumexp(-1)).float().exp()


Q_FORMS = {
    "softmax": q_softmax,
    "log_softmax": q_log_softmax,
    "logsumexp": q_logsumexp,
}
# softmax compiles to the same passes over the logits as these, or to slower ones.
COMPILED = ("log_softmax", "logsumexp")
Q_FORMS_NATIVE = {
    "bf16 softmax": q_softmax_native,
    "bf16 log_softmax": q_log_softmax_native,
    "bf16 logsumexp": q_logsumexp_native,
}


# What each operation makes of q.
def accept_mask(q: Function) -> Function:
    def form(logits: Tensor, p_hat: Tensor, M: float, targets: Tensor) -> Tensor:
        q_t = q(logits, targets)
        return torch.rand_like(q_t) <= p_hat / (M * q_t)

    return form


def verify_mask(q: Function) -> Function:
    def form(logits: Tensor, q_hat: Tensor, M: float, targets: Tensor) -> Tensor:
        q_t = q(logits, targets)
        return torch.rand_like(q_t) <= q_t / (M * q_hat)

    return form


def accept(q: Function) -> Function:
    def form(logits: Tensor, p_hat: Tensor, M: float, targets: Tensor) -> tuple[Tensor, ...]:
        q_t = q(logits, targets)
        ratio = p_hat / q_t
        r = ratio / M
        mask = torch.rand_like(q_t) <= r
        invalid, ignored = ratio.isnan(), targets == -100
        counts = torch.stack([mask.sum(), (r > 1).sum(), invalid.sum(), ignored.sum()])
        excess = torch.stack([(r - 1).clamp(min=0).sum(), r.sum()])
        return mask, q_t.log(), ratio.log(), counts, excess

    return form


def estimate_M(q: Function) -> Function:
    def form(logits: Tensor, p_hat: Tensor, M: float, targets: Tensor) -> Tensor:
        return (p_hat / q(logits, targets)).max()

    return form


def dense_softmax(logits: Tensor, p_hat: Tensor, M: float, targets: Tensor) -> Tensor:
    q = logits.softmax(-1, dtype=torch.float32)
    return torch.rand_like(q).mul_(q) <= p_hat / M


def dense_log_softmax(logits: Tensor, p_hat: Tensor, M: float, targets: Tensor) -> Tensor:
    log_q = logits.log_softmax(-1, dtype=torch.float32)
    return torch.rand_like(log_q).log_().add_(log_q) <= (p_hat / M).log()


def gradient(log_prob: Function) -> Function:
    """Return the gradient of the log-probabilities' sum, as one optimisation step needs it."""

    def form(logits: Tensor, density: Tensor, M: float, targets: Tensor) -> Tensor:
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(log_prob(leaf, targets).sum(), leaf)[0]

    return form


def log_prob_log_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    return _at(logits.log_softmax(-1, dtype=torch.float32), targets)


def log_prob_logsumexp(logits: Tensor, targets: Tensor) -> Tensor:
    return _at(logits, targets).float() - logits.float().logsumexp(-1)


def log_prob_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -functional.cross_entropy(logits.float(), targets, reduction="none")


LOG_PROB_FORMS = {
    "log_softmax": log_prob_log_softmax,
    "logsumexp": log_prob_logsumexp,
    "cross_entropy": log_prob_cross_entropy,
}
PER_TARGET = {
    "accept_mask": accept_mask,
    "verify_mask": verify_mask,
    "accept": accept,
    "estimate_M": estimate_M,
}


def ours(case: Case) -> Function:
    """Return rskernels' call of a case."""
    if case.operation == "accept_mask dense":
        return lambda logits, p_hat, M, _: rskernels.accept_mask(logits, p_hat, M)
    if case.operation == "target_log_prob":
        return gradient(rskernels.target_log_prob)
    if case.operation == "estimate_M":
        return lambda logits, p_hat, _, targets: rskernels.estimate_M(
            logits, p_hat, targets=targets
        )
    call = getattr(rskernels, case.operation)
    return lambda logits, density, M, targets: call(logits, density, M, targets=targets)


def full(case: Case) -> Function:
    """Return the call of a mask that reads every row to its end."""
    is_target = case.operation == "verify_mask"

    def form(logits: Tensor, density: Tensor, M: float, targets: Tensor) -> Tensor:
        seed = torch.randint(2**62, (), device="cpu").item()
        return torch.ops.rskernels.mask(
            logits, targets, density, M_value=M, seed_value=seed, model_is_target=is_target
        )

    return form


def eager(case: Case) -> dict[str, Form]:
    """Return the eager forms of a case by name."""
    if case.operation == "accept_mask dense":
        return {"softmax": Form(dense_softmax), "log_softmax": Form(dense_log_softmax)}
    if case.operation == "target_log_prob":
        return {name: Form(gradient(form)) for name, form in LOG_PROB_FORMS.items()}
    make = PER_TARGET[case.operation]
    forms = {name: Form(make(q)) for name, q in Q_FORMS.items()}
    if case.dtype != "float32":
        forms |= {name: Form(make(q), is_exact=False) for name, q in Q_FORMS_NATIVE.items()}
    return forms


def compiled(case: Case, name: str) -> Function:
    """Return torch.compile of a form, for this case's shapes only."""
    if case.operation == "target_log_prob":
        # torch.autograd.grad cannot be traced; its forward and backward passes can.
        return gradient(torch.compile(_fresh(LOG_PROB_FORMS[name]), dynamic=False))
    return torch.compile(_fresh(eager(case)[name].function), dynamic=False)


def _fresh(function: Function) -> Function:
    """Copy a function, since torch stops compiling one for new shapes after the eighth."""
    return types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
