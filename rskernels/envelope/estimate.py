"""The envelope constant M of a model's logits, estimated in one pass over them."""

from __future__ import annotations

import math
import sys
from numbers import Real
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels.kernels.layout import Rows, as_rows
from rskernels.ops.arguments import (
    check_logits,
    check_targets,
    density_argument,
    integer_argument,
    temperature_argument,
)

DTYPES: dict[torch.dtype, _core._DType] = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}

# Another backend moves the log ratio of a target by less than this, relative and absolute.
MARGIN = 2.0**-20


def estimate_M(
    logits: Tensor,
    p_hat: Tensor | float,
    *,
    targets: Tensor | None = None,
    method: str = "max",
    level: float | None = None,
    temperature: float = 1.0,
    log_space: bool = False,
    ignore_index: int = -100,
) -> float:
    """Estimate the envelope constant M of p_hat over softmax(logits / temperature).

    M is the maximum, or a quantile, of ``p_hat / q`` over the valid rows (with ``targets``) or
    entries (without), where ``log q = z / T - logsumexp(z / T)``. CPU tensors are read once, with
    ``torch.get_num_threads()`` threads and no temporary of the size of the logits; the result does
    not depend on the number of threads.

    The maximum over a sample is the empirical supremum of Caffo, Booth & Davison (2002): a fresh
    ratio of the same continuous law exceeds the largest of n with probability 1 / (n + 1). Do not
    decide with M the rows it was estimated from: that biases what is accepted.

    Parameters
    ----------
    logits : Tensor
        ``[..., V]``, float32, float64, bfloat16 or float16, on a CPU or CUDA device, any strides.
        A layout whose leading dimensions need more than two strides is copied.
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
    temperature : float
        T in [1e-30, 1e30].
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
    if method not in ("max", "quantile"):
        raise ValueError(f"method must be 'max' or 'quantile', got {method!r}")
    level = check_level(method, level)
    shape = check_logits(logits)
    check_values("logits hold", logits)
    if targets is not None:
        check_targets(targets, shape[:-1], logits.device)
        check_values("targets hold", targets)
    shape = logits.shape if targets is None else targets.shape
    density = density_argument("p_hat", p_hat, logits.device, shape, log_space)
    if not isinstance(density, Tensor):
        density = torch.tensor(density, dtype=torch.float64, device=logits.device)
    check_values("p_hat holds", density)
    estimate = _estimate_on_cpu if logits.is_cpu else _estimate_on_cuda
    log_M, valid, invalid, ignored = estimate(
        logits.detach().resolve_neg(), density.resolve_neg(), targets, method, level,
        temperature_argument(temperature), bool(log_space),
        integer_argument("ignore_index", ignore_index),
    )  # fmt: skip
    counts = f"{valid} valid, {invalid} invalid, {ignored} ignored"
    if valid == 0:
        raise ValueError(f"there is no valid ratio p_hat / q to take M from ({counts})")
    if log_M == -math.inf:
        raise ValueError(f"M must be positive, but the {method} of p_hat / q is 0 ({counts})")
    log_M = min(log_M + MARGIN * max(1.0, abs(log_M)), sys.float_info.max)
    if log_space:
        return log_M
    if not -708.0 < log_M < 709.0:
        raise ValueError(f"log M = {log_M} has no float64 M; pass p_hat with log_space=True")
    return math.exp(log_M)


def check_ids(name: str, ids: Tensor) -> None:
    """Raise TypeError if ``ids`` is no int64 or int32 tensor."""
    if not isinstance(ids, Tensor):
        raise TypeError(f"{name} must be an int64 or int32 tensor, got {type(ids).__name__}")
    if ids.layout != torch.strided or ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be a strided int64 or int32 tensor, got {ids.dtype}")


def flat(tensor: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """Return a tensor of any device and layout as a contiguous one-dimensional array."""
    array: NDArray[Any] = (
        tensor.detach().to("cpu", dtype).reshape(-1).contiguous().resolve_neg().numpy()
    )
    return array


def check_level(policy: str, level: float | None) -> float:
    """Return the level of the policy "max" or "quantile", 1 for "max"."""
    if policy == "max":
        if level is not None:
            raise ValueError(f"level is for 'quantile' only, got level={level} with 'max'")
        return 1.0
    if level is None:
        raise ValueError("'quantile' needs a level in (0, 1], got none")
    if isinstance(level, bool) or not isinstance(level, Real):
        raise TypeError(f"level must be a float in (0, 1], got {type(level).__name__}")
    if not 0.0 < level <= 1.0:
        raise ValueError(f"level must be in (0, 1], got {level}")
    return float(level)


def check_values(what: str, tensor: Tensor) -> None:
    """Raise ValueError if a tensor has elements but no memory that holds them."""
    try:
        address = tensor.data_ptr()
    except (RuntimeError, Warning):  # a wrapper; fake tensors warn, which a filter may raise
        address = 0
    if address == 0 and tensor.numel() > 0:
        raise ValueError(
            f"{what} no values to take M from: {type(tensor).__name__} on "
            f"{tensor.device}, without storage"
        )


def _view(rows: Rows) -> _core.MatrixView:
    """Describe rows ``[N, V]``; the caller keeps their tensor alive while the view is in use."""
    (matrix,) = rows.tensors
    strides = (rows.outer_strides[0], rows.inner_strides[0], matrix.stride(-1))
    columns = matrix.shape[-1]
    layout = (rows.inner, *strides)
    return _core.MatrixView(matrix.data_ptr(), DTYPES[matrix.dtype], rows.length, columns, layout)


def _estimate_on_cpu(
    logits: Tensor,
    p_hat: Tensor,
    targets: Tensor | None,
    method: str,
    level: float,
    temperature: float,
    log_space: bool,
    ignore_index: int,
) -> tuple[float, int, int, int]:
    """Return (log M before the margin, valid, invalid, ignored)."""
    rows = as_rows(logits)
    threads = torch.get_num_threads()
    quantile = method == "quantile"
    if targets is None:
        densities = as_rows(p_hat.expand(logits.shape))
        summary = _core.dense_log_ratios(
            _view(rows),
            _view(densities),
            temperature=temperature,
            log_space=log_space,
            with_histogram=quantile,
            threads=threads,
        )
    else:
        summary = _core.target_log_ratios(
            _view(rows),
            flat(targets, torch.int64),
            flat(p_hat.double().expand(targets.shape), torch.float64),
            ignore_index=ignore_index,
            temperature=temperature,
            log_space=log_space,
            with_histogram=quantile,
            threads=threads,
        )
    log_M = summary.quantile(level) if quantile else summary.max_log_ratio
    return log_M, summary.valid, summary.invalid, summary.ignored


def _estimate_on_cuda(
    logits: Tensor,
    p_hat: Tensor,
    targets: Tensor | None,
    method: str,
    level: float,
    temperature: float,
    log_space: bool,
    ignore_index: int,
) -> tuple[float, int, int, int]:
    """Return (log M before the margin, valid, invalid, ignored); waits for the device."""
    from rskernels import ops

    # A fixed seed leaves the device's generator as it was; the mask is not used.
    result = ops.accept(
        logits,
        p_hat,
        0.0 if log_space else 1.0,
        targets=targets,
        temperature=temperature,
        log_space=log_space,
        seed=0,
        ignore_index=ignore_index,
    )
    ratios = result.log_ratio.reshape(-1).double()
    is_valid = ~ratios.isnan()
    invalid, ignored = result.counts[2:].tolist()
    valid = int(is_valid.sum().item())
    if valid == 0:
        return math.nan, valid, invalid, ignored
    if method == "max":
        log_M = torch.where(is_valid, ratios, -math.inf).amax().item()
    else:
        rank = max(1, math.ceil(level * valid))
        log_M = _core.upper_edge(ratios[is_valid].kthvalue(rank).values.item())
    return log_M, valid, invalid, ignored
