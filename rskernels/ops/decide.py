"""The public tensor operations: check the arguments, call the torch operator.

The law, with q the model's softmax of logits/T, p_hat or q_hat the other density, M the envelope
constant and u the uniform of ``(seed, row id, column)`` (see ``random.uniforms``):
``accept_mask`` takes the model as proposal, r = p_hat / (M q); ``verify_mask`` takes it as target,
r = q / (M q_hat). An entry is accepted exactly when log r >= log u, hence with probability
min(1, r) (von Neumann, "Various techniques used in connection with random digits", 1951).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from rskernels._torch import dynamic, library, transforms
from rskernels._torch.fast_path import is_idle, is_plain
from rskernels.law.decision import Law
from rskernels.law.philox import check_row_offset, check_stream
from rskernels.ops.arguments import (
    M_argument,
    check_floating,
    check_logits,
    check_targets,
    density_argument,
    integer_argument,
    order_argument,
    seed_argument,
    temperature_argument,
)
from rskernels.ops.columns import ColumnOrder


class Acceptance(NamedTuple):
    """What was decided and seen; nothing in it carries a gradient (see ``target_log_prob``).

    ``...`` is the shape of the decisions: ``logits.shape[:-1]`` with targets, else
    ``logits.shape``.
    """

    mask: Tensor
    """bool ``[...]``: which were accepted."""
    log_prob: Tensor
    """``[...]``: log q of the model, at most 0; NaN where the row has no softmax or is ignored.
    float64 for float64 logits, else float32."""
    log_ratio: Tensor
    """``[...]``: log p - log q, before M; NaN where invalid or ignored. dtype as ``log_prob``, to
    which log M is rounded too before the two are compared."""
    counts: Tensor
    """int64 ``[4]``: how many were accepted, violated M (log ratio > log M), were invalid, were
    ignored."""
    excess: Tensor
    """float64 ``[2]``: the sums of (w/M - 1)+ and of w/M with w = p/q. Their quotient estimates
    the excess mass, which bounds the total variation between p and the accepted law."""


def accept_mask(
    logits: Tensor,
    p_hat: Tensor | float,
    M: Tensor | float | None,
    *,
    targets: Tensor | None = None,
    temperature: float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ignore_index: int = -100,
    assume_finite: bool = False,
    order: ColumnOrder | None = None,
) -> Tensor:
    """Accept with probability min(1, p_hat / (M softmax(logits/T))): the model is the proposal.

    Parameters
    ----------
    logits : Tensor
        float32, float64, bfloat16 or float16 ``[..., V]``, any strides, CPU or CUDA.
    p_hat : Tensor or float
        Target density: the probability that is wanted of each decision, at least 0, normalised or
        not. Broadcasts to the decisions.
    M : Tensor, float or None
        Envelope constant, above 0; broadcasts to the decisions. None is 1.
    targets : Tensor, optional
        int64 or int32 ``logits.shape[:-1]``: decide that entry of each row. None, the dense form,
        decides every entry.
    temperature : float
        T in [1e-30, 1e30].
    log_space : bool
        Whether ``p_hat`` and ``M`` are natural logarithms.
    seed : int or Tensor, optional
        64 bits, or an int64 tensor of one element on the logits' device. The same seed gives the
        same mask. None draws one from ``generator``, or from torch's default generator.
    generator : torch.Generator, optional
        Where a seed is drawn from; on the logits' device.
    row_offset : int
        Id of the first row. Rows count the leading dimensions in row-major order, and a decision
        depends on its row's inputs, the seed and the row's id alone.
    ignore_index : int
        Rows with this target are rejected, and counted apart.
    assume_finite : bool
        A promise that no logit is NaN or +inf, and that logits / T differ by what a float64 holds.
        With targets, a row is then accepted as soon as that is certain. Without the promise every
        accepted row is read to its end, since a NaN further on would have to reject it. Decisions
        on rows that keep the promise are the same.
    order : ColumnOrder, optional
        With targets: the order in which a row is read.

    Returns
    -------
    Tensor
        bool of the decisions' shape, without gradient: ``logits.shape[:-1]`` with targets, else
        ``logits.shape``. A row is rejected that has a NaN or +inf logit or only -inf, a density
        that is NaN, negative or infinite, an M that is NaN or not above 0, a target of model
        probability 0 where p_hat > 0, or (on CUDA) a target outside ``[0, V)``.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above.
    IndexError
        If a CPU target lies outside ``[0, V)`` and is not ``ignore_index``.
    """
    mask: Tensor = _run(
        _mask, "p_hat", logits, p_hat, M, targets, temperature, log_space, seed, generator,
        row_offset, ignore_index, False, bool(assume_finite), order,
    )  # fmt: skip
    return mask


def verify_mask(
    logits: Tensor,
    q_hat: Tensor | float,
    M: Tensor | float | None = None,
    *,
    targets: Tensor | None,
    temperature: float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ignore_index: int = -100,
    order: ColumnOrder | None = None,
) -> Tensor:
    """Accept with probability min(1, softmax(logits/T) / (M q_hat)): the model is the target.

    With M = 1 this verifies tokens that a draft model drew with probability ``q_hat`` (Leviathan et
    al., "Fast inference from transformers via speculative decoding", 2023). ``q_hat`` must be above
    0: a proposal draws nothing where its density is 0. All else is as in ``accept_mask``.

    Early exit: the softmax's denominator can only grow while a row is read. With targets, the row
    is left as soon as that makes its rejection certain. The decision is that of a full pass.
    """
    mask: Tensor = _run(
        _mask, "q_hat", logits, q_hat, M, targets, temperature, log_space, seed, generator,
        row_offset, ignore_index, True, True, order,
    )  # fmt: skip
    return mask


def accept(
    logits: Tensor,
    p_hat: Tensor | float,
    M: Tensor | float | None,
    *,
    targets: Tensor | None = None,
    temperature: float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ignore_index: int = -100,
) -> Acceptance:
    """Decide as ``accept_mask`` does, and return what the same pass saw as well.

    That is each row's log-probability and log ratio, counts of violations and of invalid rows, and
    the sums that estimate the bias. Parameters and errors are those of ``accept_mask``.
    """
    parts = _run(
        _decide, "p_hat", logits, p_hat, M, targets, temperature, log_space, seed, generator,
        row_offset, ignore_index, False,
    )  # fmt: skip
    return Acceptance(*parts)


def verify(
    logits: Tensor,
    q_hat: Tensor | float,
    M: Tensor | float | None = None,
    *,
    targets: Tensor | None,
    temperature: float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ignore_index: int = -100,
) -> Acceptance:
    """Decide as ``verify_mask`` does, and return what the same pass saw as well.

    Parameters and errors are those of ``verify_mask``; the result is explained by ``Acceptance``.
    """
    parts = _run(
        _decide, "q_hat", logits, q_hat, M, targets, temperature, log_space, seed, generator,
        row_offset, ignore_index, True,
    )  # fmt: skip
    return Acceptance(*parts)


def bernoulli_mask(
    log_ratio: Tensor,
    M: Tensor | float | None = None,
    *,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    stream: int = 0,
) -> Tensor:
    """Accept with probability min(1, exp(log_ratio) / M).

    Parameters
    ----------
    log_ratio : Tensor
        log p - log q, floating ``[...]``; NaN and +inf are rejected, -inf is a ratio of 0.
    M : Tensor, float or None
        Envelope constant, above 0; broadcasts to ``log_ratio``. None is 1.
    log_space : bool
        Whether ``M`` is a natural logarithm.
    seed, generator, row_offset
        As in ``accept_mask``; element n in row-major order has row id ``row_offset + n``.
    stream : int
        Which use of randomness, in ``[0, 2**32)``; stream 0 is what the masks use.

    Returns
    -------
    Tensor
        bool ``[...]``, without gradient.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above.
    """
    check_floating("log_ratio", log_ratio)
    M_tensor, M_value = M_argument(M, log_ratio.device, log_ratio.shape, log_space)
    seed_tensor, seed_value = seed_argument(seed, generator, log_ratio.device)
    mask: Tensor = (dynamic.bernoulli if _is_compiling() else _bernoulli)(
        log_ratio.detach(), M_tensor, seed_tensor, M_value, seed_value,
        check_row_offset(row_offset), check_stream(stream), bool(log_space),
    )  # fmt: skip
    return mask


def target_log_prob(
    logits: Tensor, targets: Tensor, *, temperature: float = 1.0, ignore_index: int = -100
) -> Tensor:
    """Return log softmax(logits/T) at the targets, differentiable with respect to the logits.

    One pass over the logits; the backward pass reads them again and writes their gradient, so
    that nothing of shape ``[..., V]`` is kept.

    Parameters
    ----------
    logits : Tensor
        float32, float64, bfloat16 or float16 ``[..., V]``.
    targets : Tensor
        int64 or int32 ``logits.shape[:-1]``.
    temperature : float
        T in [1e-30, 1e30].
    ignore_index : int
        Rows with this target give 0 and no gradient.

    Returns
    -------
    Tensor
        ``logits.shape[:-1]``, at most 0; float64 for float64 logits, else float32. NaN where the
        row has a NaN or +inf logit or only -inf.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above.
    IndexError
        If a CPU target lies outside ``[0, V)`` and is not ``ignore_index``.
    NotImplementedError
        For a second or a forward-mode derivative, under torch.func.vmap, and for torch.func's
        transforms inside torch.compile.
    """
    check_targets(targets, logits, check_logits(logits)[:-1], "a torch.Tensor")
    temperature = temperature_argument(temperature)
    ignore_index = integer_argument("ignore_index", ignore_index)
    if torch._C._are_functorch_transforms_active():
        return transforms.target_log_prob(logits, targets, temperature, ignore_index)
    if _is_compiling():
        return dynamic.target_log_prob(logits, targets, temperature, ignore_index)[0]
    if unpack_dual(logits).tangent is not None:
        transforms.no_forward_derivative()
    return _target_log_prob(logits, targets, temperature, ignore_index)[0]


# Looked up once; a call decides in microseconds.
_is_compiling = torch.compiler.is_compiling
_mask = torch.ops.rskernels.mask.default
_decide = torch.ops.rskernels.decide.default
_bernoulli = torch.ops.rskernels.bernoulli.default
_target_log_prob = torch.ops.rskernels.target_log_prob.default


def _run(
    operator: Any,
    name: str,
    logits: Tensor,
    density: Tensor | float,
    M: Tensor | float | None,
    targets: Tensor | None,
    temperature: float,
    log_space: bool,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    row_offset: int,
    ignore_index: int,
    model_is_target: bool,
    is_lazy: bool = False,
    order: ColumnOrder | None = None,
) -> Any:
    """Check the arguments and call an operator with them, or the CPU kernels where that is all."""
    shape = check_logits(logits)
    if targets is not None:
        shape = shape[:-1]
        check_targets(targets, logits, shape)
    device = logits.device
    density_tensor, density_value = density_argument(name, density, device, shape, log_space)
    M_tensor, M_value = M_argument(M, device, shape, log_space)
    idle = is_idle()
    seed_tensor, seed_value = seed_argument(seed, generator, device, idle)
    law = Law(
        density_value if density_tensor is None else density_tensor,
        M_value if M_tensor is None else M_tensor,
        seed_value if seed_tensor is None else seed_tensor,
        check_row_offset(row_offset), temperature_argument(temperature), bool(log_space),
        model_is_target, integer_argument("ignore_index", ignore_index),
    )  # fmt: skip
    blocks = order_argument(order, logits, targets)
    reading = (is_lazy, blocks) if is_lazy or blocks is not None else ()
    if idle and is_plain(logits, targets, density_tensor, M_tensor, seed_tensor, blocks):
        kernels = library.cpu_kernels()
        return (kernels.mask if operator is _mask else kernels.decide)(
            logits, targets, law, *reading
        )
    if _is_compiling():
        operator = dynamic.mask if operator is _mask else dynamic.decide
    if logits.requires_grad:
        logits = logits.detach()
    return operator(
        logits, targets, density_tensor, M_value, seed_tensor, seed_value, M_tensor, density_value,
        *law[3:], *reading,
    )  # fmt: skip
