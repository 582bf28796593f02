"""The operations as records: their operator, its form in a graph and, of decisions, the kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor

from rskernels._torch import transforms
from rskernels._torch.autograd import DECIDED_LOG_PROB
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
    logits, targets, *_ = call.arguments
    if targets is None or type(logits) is Product:
        return DECIDE(call)
    if not is_transforming():
        if has_tangents() and not is_compiling():
            transforms.refuse_tangent(logits)
        if not is_recorded(logits):
            return DECIDE(call)
    fields = _live_fields(*call.arguments)
    if call.layout is None:
        return _decide_live(*fields)
    named = dict(zip(_names(DECIDED_LOG_PROB.name), fields, strict=True))
    return decide_part(call.layout, _decide_live, named)


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


def product_fields(product: Product) -> tuple[Any, ...]:
    """Return the fields of logits that are not stored."""
    *parts, lora = product
    return (*parts, *(lora or (None, None, 0.0)))


def _linear_fields(product: Product, targets: Tensor, law: Law, *reading: Any) -> tuple[Any, ...]:
    of_rows = _row_fields(product.hidden, targets, law, *reading)
    return (*product_fields(product), *of_rows[1:])


def _ratio_fields(
    log_ratio: Tensor, M: Tensor | float, seed: Tensor | int, *rest: Any
) -> tuple[Any, ...]:
    return (log_ratio.detach(), *split(M, 1.0), *split(seed, 0), *rest)


def _operation(
    name: str,
    fields: Callable[..., tuple[Any, ...]],
    kernel: str | None = None,
    linear: DecisionOperation | None = None,
) -> DecisionOperation:
    of_backend = attrgetter(kernel or name)
    return DecisionOperation(
        operator(name), DYNAMIC[name], of_backend, fields, _names(name), linear
    )


def _names(name: str) -> tuple[str, ...]:
    return tuple(field.name for field in SCHEMAS[name].fields)


def _decide_live(*fields: Any) -> Decided:
    """Call the operator whose log_prob has a gradient."""
    if is_transforming():
        results = transforms.apply(DECIDED_LOG_PROB, *fields)
    elif is_compiling():
        results = DYNAMIC[DECIDED_LOG_PROB.name](*fields)
    else:
        results = operator(DECIDED_LOG_PROB.name)(*fields)
    log_prob, _, mask, log_ratio, counts, excess = results
    return mask, log_prob, log_ratio, counts, excess


_LINEAR_MASK = _operation("linear_mask", _linear_fields, "linear.mask")
_LINEAR_DECIDE = _operation("linear_decide", _linear_fields, "linear.decide")
MASK = _operation("mask", _row_fields, linear=_LINEAR_MASK)
DECIDE = _operation("decide", _row_fields, linear=_LINEAR_DECIDE)
BERNOULLI = _operation("bernoulli", _ratio_fields)
DECIDE_RATIOS = _operation("decide_ratios", _ratio_fields)
LOG_PROB, LINEAR_LOG_PROB = (
    Operation(operator(name), DYNAMIC[name])
    for name in ("target_log_prob", "linear_target_log_prob")
)
