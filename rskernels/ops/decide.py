"""Decisions about rows or entries of logits: bind the arguments, then call.

The law, with q the model's softmax of logits/T, p_hat or q_hat the other density, M the envelope
constant and u the uniform of ``(seed, row id, column)`` (see ``rskernels.uniforms``):
``accept_mask`` takes the model as proposal, r = p_hat / (M q); ``verify_mask`` takes it as target,
r = q / (M q_hat). An entry is accepted exactly when log r >= log u, hence with probability
min(1, r) (von Neumann, "Various techniques used in connection with random digits", 1951).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rskernels._torch import MASK, Call, decide
from rskernels._torch.fast_path import is_recorded
from rskernels.ops.acceptance import Acceptance
from rskernels.ops.bind import bind, plain_mask
from rskernels.ops.columns import ColumnOrder
from rskernels.ops.linear import LinearLogits, is_cut
from rskernels.ops.log_prob import refuse_gradient
from rskernels.ops.ratios import check_row_ids, decide_by_ids
from rskernels.ops.vocabulary import decide_cut


def accept_mask(
    logits: Tensor | LinearLogits,
    p_hat: Tensor | float,
    M: Tensor | float | None,
    *,
    targets: Tensor | None = None,
    temperature: Tensor | float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ids: Tensor | None = None,
    ignore_index: int = -100,
    assume_finite: bool = False,
    order: ColumnOrder | None = None,
) -> Tensor:
    """Accept with probability min(1, p_hat / (M softmax(logits/T))): the model is the proposal.

    Parameters
    ----------
    logits : Tensor or LinearLogits
        float32, float64, bfloat16 or float16 ``[..., V]``, any strides, CPU or CUDA. Or, with
        targets, a ``LinearLogits``: the hidden states and the weight that make them. Or a DTensor
        that is sharded by rows or replicated: then tensors of more than one element beside it are
        DTensors too, and results are placed as the logits.
    p_hat : Tensor or float
        Target density: the probability that is wanted of each decision, at least 0, normalised or
        not. Broadcasts to the decisions.
    M : Tensor, float or None
        Envelope constant, above 0; broadcasts to the decisions. None is 1.
    targets : Tensor, optional
        int64 or int32 ``logits.shape[:-1]``: decide that entry of each row. None, the dense form,
        decides every entry.
    temperature : Tensor or float
        T in [1e-30, 1e30]. A tensor broadcasts to ``logits.shape[:-1]``: each row has its own.
    log_space : bool
        Whether ``p_hat`` and ``M`` are natural logarithms.
    seed : int or Tensor, optional
        64 bits, or an int64 tensor of one element on the logits' device. The same seed gives the
        same mask. None draws one from ``generator``, or from torch's default generator. Ranks that
        share a seed, or draw it from generators of the same state, must differ in ``row_offset``:
        else they decide by the same uniforms.
    generator : torch.Generator, optional
        Where a seed is drawn from; on the logits' device.
    row_offset : int
        Id of the first row. Rows count the leading dimensions in row-major order, and a decision
        depends on its row's inputs, the seed and the row's id alone. With data-parallel ranks it is
        ``rank * rows``, where no rank has more rows; for a DTensor, the whole tensor's first row.
    ids : Tensor, optional
        With targets: int64, int32 being refused, of the decisions' shape: the id of each row, any
        64 bits, in place of those from ``row_offset``, as in ``bernoulli_mask``. Every row is then
        read to its end: ``order`` and ``assume_finite`` are checked and change nothing.
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
        that is NaN, negative or infinite, an M that is NaN or not above 0, a tensor's temperature
        that is NaN or out of range, a target of model probability 0 where p_hat > 0, or (on CUDA) a
        target outside ``[0, V)``.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape, device or Python number is not as above.
    IndexError
        If a CPU target lies outside ``[0, V)`` and is not ``ignore_index``.
    """
    is_lazy = bool(assume_finite)
    if targets is ids is None and order is None and generator is None and ignore_index == -100:
        plain = plain_mask(logits, p_hat, M, seed, row_offset, temperature, log_space, False)
        if plain is not None:
            return plain
    call = bind(
        "p_hat", logits, p_hat, M, targets=targets, temperature=temperature, log_space=log_space,
        seed=seed, generator=generator, row_offset=row_offset, ignore_index=ignore_index,
        model_is_target=False, is_lazy=is_lazy, order=order,
    )  # fmt: skip
    if ids is not None or is_cut(logits):
        return _decide(logits, call, ids, is_live=False).mask
    mask: Tensor = MASK(call)
    return mask


def verify_mask(
    logits: Tensor | LinearLogits,
    q_hat: Tensor | float,
    M: Tensor | float | None = None,
    *,
    targets: Tensor | None,
    temperature: Tensor | float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ids: Tensor | None = None,
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
    if targets is ids is None and order is None and generator is None and ignore_index == -100:
        plain = plain_mask(logits, q_hat, M, seed, row_offset, temperature, log_space, True)
        if plain is not None:
            return plain
    call = bind(
        "q_hat", logits, q_hat, M, targets=targets, temperature=temperature, log_space=log_space,
        seed=seed, generator=generator, row_offset=row_offset, ignore_index=ignore_index,
        model_is_target=True, is_lazy=True, order=order,
    )  # fmt: skip
    if ids is not None or is_cut(logits):
        return _decide(logits, call, ids, is_live=False).mask
    mask: Tensor = MASK(call)
    return mask


def accept(
    logits: Tensor | LinearLogits,
    p_hat: Tensor | float,
    M: Tensor | float | None,
    *,
    targets: Tensor | None = None,
    temperature: Tensor | float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ids: Tensor | None = None,
    ignore_index: int = -100,
) -> Acceptance:
    """Decide as ``accept_mask`` does, and return what the same pass saw as well.

    That is each row's log-probability and log ratio, counts of violations and of invalid rows, and
    the sums that estimate the bias. For a DTensor the counts and sums are those of all ranks, which
    takes a collective.

    With targets, ``log_prob`` carries the gradient of ``target_log_prob`` where gradients with
    respect to the logits are recorded, so that a training step reads its logits once:

    >>> seen = rskernels.accept(logits, p_hat, M, targets=targets)
    >>> loss = -seen.log_prob[seen.mask].mean()

    The logits are then kept for the backward pass; under ``torch.no_grad()``, or of
    ``logits.detach()``, nothing is. In the dense form no result carries a gradient.

    Parameters and errors are those of ``accept_mask``. Where ``log_prob`` carries a gradient, or
    a logit a tangent, the NotImplementedErrors of ``target_log_prob`` are raised as well.
    """
    _check_temperature(logits, targets, temperature)
    call = bind(
        "p_hat", logits, p_hat, M, targets=targets, temperature=temperature, log_space=log_space,
        seed=seed, generator=generator, row_offset=row_offset, ignore_index=ignore_index,
        model_is_target=False,
    )  # fmt: skip
    return _decide(logits, call, ids)


def verify(
    logits: Tensor | LinearLogits,
    q_hat: Tensor | float,
    M: Tensor | float | None = None,
    *,
    targets: Tensor | None,
    temperature: Tensor | float = 1.0,
    log_space: bool = False,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    row_offset: int = 0,
    ids: Tensor | None = None,
    ignore_index: int = -100,
) -> Acceptance:
    """Decide as ``verify_mask`` does, and return what the same pass saw as well.

    Parameters are those of ``verify_mask``; the result is explained by ``Acceptance``. As in
    ``accept``, with targets ``log_prob`` carries a gradient; errors are those of both.
    """
    _check_temperature(logits, targets, temperature)
    call = bind(
        "q_hat", logits, q_hat, M, targets=targets, temperature=temperature, log_space=log_space,
        seed=seed, generator=generator, row_offset=row_offset, ignore_index=ignore_index,
        model_is_target=True,
    )  # fmt: skip
    return _decide(logits, call, ids)


def _check_temperature(
    logits: Tensor | LinearLogits, targets: Tensor | None, temperature: Tensor | float
) -> None:
    """Refuse a temperature whose gradient the log_prob would leave out."""
    if type(temperature) is float or targets is None:
        return
    parts = logits.tensors().values() if isinstance(logits, LinearLogits) else (logits,)
    if any(map(is_recorded, parts)):
        refuse_gradient("log_prob", temperature)


def _decide(
    logits: Tensor | LinearLogits, call: Call, ids: Tensor | None, is_live: bool = True
) -> Acceptance:
    """Run a call, and return all that it saw; log_prob may have a gradient if it ``is_live``."""
    if ids is not None:
        check_row_ids(ids, call)
    if is_cut(logits):
        return decide_cut(logits, call, ids, is_live)
    if ids is None:
        return Acceptance(*decide(call))
    with torch.set_grad_enabled(is_live and torch.is_grad_enabled()):
        return decide_by_ids(call, ids)
