"""The operations as records: their operator, its form in a graph and, of decisions, the kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor

from rskernels._torch import transforms
from rskernels._torch.autograd import (
    DECIDED_LOG_PROB,
    LINEAR_DECIDED_LOG_PROB,
    DifferentiableLogProb,
)
from rskernels._torch.devices import cpu_kernels
from rskernels._torch.dynamic import DYNAMIC, Dynamic
from rskernels._torch.fast_path import has_tangents, is_compiling, is_recorded, is_transforming
from rskernels._torch.schemas import NUMBER, SCHEMAS, operator, split
from rskernels._torch.sharded import Layout, decide_part
from rskernels.kernels.product import Product
from rskernels.law.decision import Decided, Law


class Call(NamedTuple):
    """What a decision is called with, once it is checked."""

    arguments: tuple[Any, ...]
    """Of the function of this decision in every backend."""
    is_direct: bool
    """Whether torch's dispatcher would only pass them on to the CPU kernels."""
    layout: Layout | None = None
    """Of a DTensor: which part this rank decides."""


@dataclass(frozen=True)
class Operation:
    """The torch operators of an operation, which take the same fields."""

    eager: Any
    traced: Dynamic


@dataclass(frozen=True)
class DecisionOperation(Operation):
    """An operation without gradient, which may run without torch's dispatcher."""

    kernel: Callable[[Any], Any]
    """Takes the function from a backend."""
    fields: Callable[..., tuple[Any, ...]]
    """Makes of the kernel's arguments those of the torch operators."""
    names: tuple[str, ...]
    """Of the operators' arguments."""
    linear: DecisionOperation | None = None
    """The same of logits that are not stored."""

    def __call__(self, call: Call) -> Any:
        """Call the CPU kernel where that is all that would happen, else the torch operator."""
        arguments, is_direct, layout = call
        if self.linear is not None and type(arguments[0]) is Product:
            return self.linear(call)
        # Where a graph breaks, a call that was bound outside of it may be traced.
        if is_compiling():
            operator = self.traced
        elif is_direct:
            return self.kernel(cpu_kernels())(*arguments)
        else:
            operator = self.eager
        fields = self.fields(*arguments)
        if layout is None:
            return operator(*fields)
        return decide_part(layout, operator, dict(zip(self.names, fields, strict=False)))


def decide(call: Call) -> Decided:
    """Decide rows or entries; log_prob of rows has a gradient where the logits' is recorded."""
    source, targets, *_ = call.arguments
    if targets is None:
        return DECIDE(call)
    is_linear = type(source) is Product
    if not is_transforming():
        parts = tensors_of(source) if is_linear else (source,)
        refuse_tangents(*parts)
        if not any(map(is_recorded, parts)):
            return DECIDE(call)
    if is_linear:
        of_rows = _live_fields(source.hidden, *call.arguments[1:])[1:]
        return _decide_live(LINEAR_DECIDED_LOG_PROB, *product_fields(source), *of_rows)
    fields = _live_fields(*call.arguments)
    if call.layout is None:
        return _decide_live(DECIDED_LOG_PROB, *fields)
    named = dict(zip(DECIDED_LOG_PROB.fields, fields, strict=True))
    return decide_part(call.layout, partial(_decide_live, DECIDED_LOG_PROB), named)


def call_log_prob(of: DifferentiableLogProb, *fields: Any) -> tuple[Tensor, ...]:
    """Call an operator whose first result is log_prob, which has a gradient."""
    if is_transforming():
        return transforms.apply(of, *fields)
    results: tuple[Tensor, ...] = (DYNAMIC[of.name] if is_compiling() else of.eager)(*fields)
    return results


def refuse_tangents(*parts: Tensor) -> None:
    """Raise if one of the tensors that logits are made of carries a tangent of forward mode."""
    if has_tangents() and not is_compiling():
        for part in parts:
            transforms.refuse_tangent(part)


def _row_fields(logits: Tensor, targets: Tensor | None, law: Law, *reading: Any) -> tuple[Any, ...]:
    return _live_fields(logits.detach() if logits.requires_grad else logits, targets, law, *reading)


def _live_fields(
    logits: Tensor, targets: Tensor | None, law: Law, *reading: Any
) -> tuple[Any, ...]:
    # `split` written out, which halves the time.
    density, M, seed, row_offset, temperature = law[:5]
    is_number, M_is_number = isinstance(density, NUMBER), isinstance(M, NUMBER)
    seed_is_number, T_is_number = isinstance(seed, NUMBER), isinstance(temperature, NUMBER)
    return (
        logits, targets,
        None if is_number else density, density if is_number else 1.0,
        None if M_is_number else M, M if M_is_number else 1.0,
        None if seed_is_number else seed, seed if seed_is_number else 0, row_offset,
        None if T_is_number else temperature, temperature if T_is_number else 1.0,
        *law[5:], *reading,
    )  # fmt: skip


def tensors_of(product: Product) -> tuple[Tensor, ...]:
    """Return the tensors that logits are made of."""
    return tuple(part for part in product_fields(product) if isinstance(part, Tensor))


def product_fields(product: Product) -> tuple[Any, ...]:
    """Return the fields of logits that are not stored."""
    *parts, lora = product
    return (*parts, *(lora or (None, None, 0.0)))


def _linear_fields(product: Product, targets: Tensor, law: Law, *reading: Any) -> tuple[Any, ...]:
    of_rows = _row_fields(product.hidden, targets, law, *reading)
    parts = product_fields(product)
    return (
        *(part.detach() if isinstance(part, Tensor) else part for part in parts),
        *of_rows[1:],
    )


def _ratio_fields(
    log_ratio: Tensor, M: Tensor | float, seed: Tensor | int, *rest: Any
) -> tuple[Any, ...]:
    return (log_ratio.detach(), *split(M, 1.0), *split(seed, 0), *rest)


def operation_of(
    name: str,
    fields: Callable[..., tuple[Any, ...]],
    kernel: str | None = None,
    linear: DecisionOperation | None = None,
) -> DecisionOperation:
    """Return the record of an operation; ``kernel`` names its function in a backend."""
    of_backend = attrgetter(kernel or name)
    return DecisionOperation(
        operator(name), DYNAMIC[name], of_backend, fields, _names(name), linear
    )


def _names(name: str) -> tuple[str, ...]:
    return tuple(field.name for field in SCHEMAS[name].fields)


def _decide_live(of: DifferentiableLogProb, *fields: Any) -> Decided:
    """Call the operator of a decision whose log_prob has a gradient."""
    log_prob, _, mask, log_ratio, counts, excess = call_log_prob(of, *fields)
    return mask, log_prob, log_ratio, counts, excess


_LINEAR_MASK = operation_of("linear_mask", _linear_fields, "linear.mask")
_LINEAR_DECIDE = operation_of("linear_decide", _linear_fields, "linear.decide")
MASK = operation_of("mask", _row_fields, linear=_LINEAR_MASK)
DECIDE = operation_of("decide", _row_fields, linear=_LINEAR_DECIDE)
BERNOULLI = operation_of("bernoulli", _ratio_fields)
DECIDE_RATIOS = operation_of("decide_ratios", _ratio_fields)
DECIDE_SEQUENCES = operation_of("decide_sequences", _ratio_fields)
ACCEPT_PREFIX = operation_of("accept_prefix", _ratio_fields)
