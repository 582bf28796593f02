"""The envelope constant M of a model's logits, estimated in one pass over them."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels import _core
from rskernels._torch.fast_path import refuse_in_graph
from rskernels.envelope.policies import make_policy
from rskernels.envelope.rows import DTYPES, check_values, refuse_sharded
from rskernels.kernels.layout import RowLayout, as_rows
from rskernels.ops import accept
from rskernels.ops.arguments import (
    check_logits,
    check_targets,
    density_argument,
    integer_argument,
    temperature_argument,
)
from rskernels.ops.linear import LinearLogits, of_targets

# Another backend moves the log ratio of a target by less than this, relative and absolute.
BACKEND_MARGIN = 2.0**-20


class Estimate(NamedTuple):
    """What the ratios say."""

    log_M: float  # before the margin
    valid: int
    invalid: int
    ignored: int


def estimate_M(
    logits: Tensor | LinearLogits,
    p_hat: Tensor | float,
    *,
    targets: Tensor | None = None,
    method: str = "max",
    level: float | None = None,
    temperature: Tensor | float = 1.0,
    log_space: bool = False,
    ignore_index: int = -100,
) -> float:
    """Estimate the envelope constant M of p_hat over softmax(logits / temperature).

    M is the maximum, or a quantile, of ``p_hat / q`` over the valid rows (with ``targets``) or
    entries (without), where ``log q = z / T - logsumexp(z / T)``. CPU tensors are read once, with
    ``torch.get_num_threads()`` threads and, but for entries at a temperature of each row, no
    temporary of the size of the logits; the result does not depend on the number of threads.

    The maximum over a sample is the empirical supremum of Caffo, Booth & Davison (2002): a fresh
    ratio of the same continuous law exceeds the largest of n with probability 1 / (n + 1). Do not
    decide with M the rows it was estimated from: that biases what is accepted.

    Parameters
    ----------
    logits : Tensor or LinearLogits
        ``[..., V]``, float32, float64, bfloat16 or float16, on a CPU or CUDA device, any strides.
        A layout whose leading dimensions need more than two strides is copied. With targets, a
        ``LinearLogits`` is multiplied block by block.
    p_hat : Tensor or float
        Target density, or its natural logarithm with ``log_space``. Broadcasts to ``targets``, or
        to ``logits`` without targets. 0 is a valid density.
    targets : Tensor, optional
        int64 or int32 ``[...]``, in ``[0, V)`` or ``ignore_index``.
    method : {"max", "quantile"}
        "quantile" takes the ``level`` quantile of the ratios, rounded up to a multiple of 1/256 in
        log M, so at most 0.4 % above the ratio of that rank. A share ``1 - level`` of the ratios
        then violates the envelope.
    level : float, optional
        In (0, 1]; required by, and only for, "quantile".
    temperature : Tensor or float
        T in [1e-30, 1e30]. A tensor broadcasts to ``logits.shape[:-1]``; a row whose temperature is
        NaN or out of range is invalid.
    log_space : bool
        ``p_hat`` and the result are natural logarithms.
    ignore_index : int
        Rows with this target are left out.

    Returns
    -------
    float
        M, or log M with ``log_space``. log M is raised by ``2**-20 * max(1, abs(log M))``: with
        ``targets`` and "max", the rows M came from are then no violations on another backend
        either. In the dense form the entries of float32 and narrower logits are decided in
        float32, whose rounding of a small q may exceed that: about ``2**-22 * abs(log q)``.

    Raises
    ------
    NotImplementedError
        While torch.compile, torch.export or torch.jit.trace traces a graph.
    TypeError
        If a dtype or type is not as above.
    ValueError
        If a shape, device or number is not as above; if a tensor has no storage to read (meta,
        fake and zero tensors, and those of a torch.func transform); if there is no valid ratio (a
        row with NaN, +inf or only -inf logits, or p_hat NaN, negative or +inf, or q = 0 < p_hat,
        is invalid) or all of them are 0; if M is no finite positive float64.
    IndexError
        If a target of a CPU tensor is outside ``[0, V)`` and not ``ignore_index``. On CUDA such a
        row is invalid.

    Notes
    -----
    On CUDA this waits for the device, since it returns a float.

    References
    ----------
    Caffo, Booth & Davison, "Empirical supremum rejection sampling", Biometrika 89, 2002.
    """
    refuse_in_graph("estimate_M, which returns a float")
    if method not in ("max", "quantile"):
        raise ValueError(f"method must be 'max' or 'quantile', got {method!r}")
    level = make_policy(method, level=level).numbers.get("level")
    parts = logits.tensors() if isinstance(logits, LinearLogits) else {"logits": logits}
    given = {**parts, "targets": targets, "p_hat": p_hat, "temperature": temperature}
    for name, rows in given.items():
        refuse_sharded(name, rows, "M of all ranks is their largest, by all_reduce with MAX")
    leading = logits.shape[:-1] if isinstance(logits, LinearLogits) else check_logits(logits)[:-1]
    for name, part in parts.items():
        check_values("logits hold" if name == "logits" else f"{name} holds", part)
    if targets is not None:
        check_targets(targets, leading, logits.device)
        check_values("targets hold", targets)
    if isinstance(logits, LinearLogits):
        of_targets(logits, targets)
    shape = logits.shape if targets is None else targets.shape
    density = density_argument("p_hat", p_hat, logits.device, shape, log_space)
    if not isinstance(density, Tensor):
        density = torch.tensor(density, dtype=torch.float64, device=logits.device)
    check_values("p_hat holds", density)
    temperature = temperature_argument(temperature, logits.device, leading)
    if isinstance(temperature, Tensor):
        check_values("temperature holds", temperature)
    log_space = bool(log_space)
    ignore_index = integer_argument("ignore_index", ignore_index)
    density = density.resolve_neg()
    if isinstance(logits, Tensor):
        logits = logits.detach().resolve_neg()
    if (
        isinstance(logits, Tensor)
        and logits.is_cpu
        and targets is None
        and not isinstance(temperature, Tensor)
    ):
        # Twice as fast as decisions, which draw for every entry.
        estimate = _estimate_dense_on_cpu(logits, density, level, temperature, log_space)
    else:
        estimate = _estimate_by_deciding(
            logits, density, targets, level, temperature, log_space, ignore_index
        )
    log_M, valid, invalid, ignored = estimate
    counts = f"{valid} valid, {invalid} invalid, {ignored} ignored"
    if valid == 0:
        raise ValueError(f"there is no valid ratio p_hat / q to take M from ({counts})")
    if log_M == -math.inf:
        raise ValueError(f"M must be positive, but the {method} of p_hat / q is 0 ({counts})")
    log_M = min(log_M + BACKEND_MARGIN * max(1.0, abs(log_M)), sys.float_info.max)
    if log_space:
        return log_M
    if not -708.0 < log_M < 709.0:
        raise ValueError(f"log M = {log_M} has no float64 M; pass p_hat with log_space=True")
    return math.exp(log_M)


def _estimate_dense_on_cpu(
    logits: Tensor, p_hat: Tensor, level: float | None, temperature: float, log_space: bool
) -> Estimate:
    rows, densities = as_rows(logits), as_rows(p_hat.expand(logits.shape))
    summary = _core.dense_log_ratios(
        _view(rows),
        _view(densities),
        temperature=temperature,
        log_space=log_space,
        with_histogram=level is not None,
        threads=torch.get_num_threads(),
    )
    log_M = summary.max_log_ratio if level is None else summary.quantile(level)
    return Estimate(log_M, summary.valid, summary.invalid, 0)


def _view(rows: RowLayout) -> _core.MatrixView:
    """Describe rows ``[N, V]``; the caller keeps their tensor alive while the view is in use."""
    (matrix,) = rows.tensors
    strides = (rows.outer_strides[0], rows.inner_strides[0], matrix.stride(-1))
    columns = matrix.shape[-1]
    layout = (rows.inner, *strides)
    return _core.MatrixView(matrix.data_ptr(), DTYPES[matrix.dtype], rows.length, columns, layout)


def _estimate_by_deciding(
    logits: Tensor | LinearLogits,
    p_hat: Tensor,
    targets: Tensor | None,
    level: float | None,
    temperature: Tensor | float,
    log_space: bool,
    ignore_index: int,
) -> Estimate:
    """Take the ratios that decisions see; waits for their device."""
    # A fixed seed leaves the generators as they were; the mask is not used.
    with torch.no_grad():
        result = accept(
            logits,
            p_hat,
            M=None,
            targets=targets,
            temperature=temperature,
            log_space=log_space,
            seed=0,
            ignore_index=ignore_index,
        )
    ratios = result.log_ratio.reshape(-1)
    invalid, ignored = result.counts.tolist()[2:]
    valid = len(ratios) - invalid - ignored
    if valid == 0:
        return Estimate(math.nan, valid, invalid, ignored)
    if valid < len(ratios):
        ratios = ratios[~ratios.isnan()]
    if level is None:
        log_M = ratios.amax().item()
    else:
        rank = max(1, math.ceil(level * valid))
        log_M = _core.upper_edge(ratios.kthvalue(rank).values.item())
    return Estimate(log_M, valid, invalid, ignored)
