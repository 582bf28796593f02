"""The differentiable log-probability of the targets."""

from __future__ import annotations

from torch import Tensor

from rskernels._torch import call_log_prob, product_fields, refuse_tangents
from rskernels._torch.autograd import LINEAR_TARGET_LOG_PROB, TARGET_LOG_PROB
from rskernels._torch.fast_path import is_recorded, is_transforming
from rskernels._torch.schemas import split
from rskernels._torch.sharded import own_part
from rskernels._torch.transforms import refuse_tangent
from rskernels.ops.arguments import (
    check_logits,
    check_targets,
    integer_argument,
    layout_argument,
    may_be_odd,
    temperature_argument,
)
from rskernels.ops.linear import LinearLogits, is_cut, of_targets, parts_of
from rskernels.ops.vocabulary import log_prob_cut


def target_log_prob(
    logits: Tensor | LinearLogits,
    targets: Tensor,
    *,
    temperature: Tensor | float = 1.0,
    ignore_index: int = -100,
) -> Tensor:
    """Return log softmax(logits/T) at the targets, differentiable with respect to the logits.

    One pass over the logits; the backward pass reads them again and writes their gradient, so
    that nothing of shape ``[..., V]`` is kept.

    Parameters
    ----------
    logits : Tensor or LinearLogits
        float32, float64, bfloat16 or float16 ``[..., V]``; may be a DTensor, as in
        ``accept_mask``. Of a ``LinearLogits`` each part that requires a gradient has one.
    targets : Tensor
        int64 or int32 ``logits.shape[:-1]``.
    temperature : Tensor or float
        T in [1e-30, 1e30]. A tensor broadcasts to ``targets`` and gets no gradient.
    ignore_index : int
        Rows with this target give 0 and no gradient.

    Returns
    -------
    Tensor
        ``logits.shape[:-1]``, at most 0; float64 for float64 logits, else float32. NaN where the
        row has a NaN or +inf logit or only -inf, or a temperature in a tensor that is NaN or out of
        range.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above.
    IndexError
        If a CPU target lies outside ``[0, V)`` and is not ``ignore_index``.
    NotImplementedError
        For a temperature that requires grad, while gradients are recorded; for a second or a
        forward-mode derivative, under torch.func.vmap, and for torch.func's transforms inside
        torch.compile, of a DTensor or of a ``LinearLogits`` with a group.
    """
    if isinstance(logits, LinearLogits):
        return _of_product(logits, targets, temperature, ignore_index)
    leading = check_logits(logits)[:-1]
    check_targets(targets, leading, logits.device, "a torch.Tensor")
    if type(temperature) is not float:
        refuse_gradient("target_log_prob", temperature)
    temperature = temperature_argument(temperature, logits.device, leading)
    ignore_index = integer_argument("ignore_index", ignore_index)
    layout = None
    if may_be_odd(logits, targets, temperature):
        others = {"targets": targets, "temperature": temperature}
        layout = layout_argument("logits", logits, leading, False, others)
    if layout is None:
        return _target_log_prob(logits, targets, temperature, ignore_index)
    if isinstance(temperature, Tensor):
        temperature = layout.cut(temperature)
    part = _target_log_prob(own_part(logits), layout.cut(targets), temperature, ignore_index)
    return layout.whole(part)


def _of_product(
    logits: LinearLogits, targets: Tensor, temperature: Tensor | float, ignore_index: int
) -> Tensor:
    """Return log q of the targets of logits that are not stored."""
    leading = logits.shape[:-1]
    check_targets(targets, leading, logits.device, "a torch.Tensor")
    refuse_gradient("target_log_prob", temperature)
    temperature = temperature_argument(temperature, logits.device, leading)
    ignore_index = integer_argument("ignore_index", ignore_index)
    if is_cut(logits):
        return log_prob_cut(logits, targets, temperature, ignore_index)
    product = of_targets(logits, targets)
    parts = parts_of(product)
    if may_be_odd(*parts, targets, temperature):
        others = {"targets": targets, "temperature": temperature}
        layout_argument("hidden", product.hidden, leading, False, others)
    if not is_transforming():
        refuse_tangents(*logits.tensors().values())
    fields = (*product_fields(product), targets, *split(temperature, 1.0), ignore_index)
    return call_log_prob(LINEAR_TARGET_LOG_PROB, *fields)[0]


def refuse_gradient(name: str, temperature: object) -> None:
    """Raise rather than leave out a gradient of ``name`` that is asked for."""
    if not isinstance(temperature, Tensor):
        return
    if is_recorded(temperature):
        raise NotImplementedError(
            f"{name} has no gradient with respect to temperature; give "
            "temperature.detach(), or use torch.log_softmax(logits / temperature[..., None], -1)"
            ".gather(...) for it"
        )
    refuse_tangent(temperature)


def _target_log_prob(
    logits: Tensor, targets: Tensor, temperature: Tensor | float, ignore_index: int
) -> Tensor:
    arguments = (
        (logits, targets, None, temperature, ignore_index)
        if type(temperature) is float
        else (logits, targets, *split(temperature, 1.0), ignore_index)
    )
    if not is_transforming():
        refuse_tangents(logits)
    return call_log_prob(TARGET_LOG_PROB, *arguments)[0]
