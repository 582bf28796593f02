"""The envelope constant M of a model's logits, estimated in one pass over them."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core

DTYPES: dict[torch.dtype, _core._DType] = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}

# Rounding in float32 elsewhere moves a log ratio by less than this, relative and absolute.
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
        Positive and finite.
    log_space : bool
        ``p_hat`` and the result are natural logarithms.
    ignore_index : int
        Rows with this target are left out.

    Returns
    -------
    float
        M, or log M with ``log_space``. log M is raised by ``2**-20 * max(1, abs(log M))``, which
        covers the rounding of a float32 log ratio, so that the rows M came from are no violations
        on another backend either.

    Raises
    ------
    TypeError
        If a dtype or type is not as above.
    ValueError
        If a shape, device or number is not as above; if there is no valid ratio (a row with NaN,
        +inf or only -inf logits, or p_hat NaN, negative or +inf, or q = 0 < p_hat, is invalid) or
        all of them are 0; if M is no finite positive float64.
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
    p_hat = _check_estimate(logits, p_hat, targets, temperature, ignore_index)
    estimate = _estimate_on_cpu if logits.device.type == "cpu" else _estimate_on_cuda
    log_M, valid, invalid, ignored = estimate(
        logits, p_hat, targets, method, level, float(temperature), log_space, ignore_index
    )
    counts = f"{valid} valid, {invalid} invalid, {ignored} ignored"
    if valid == 0:
        raise ValueError(f"there is no valid ratio p_hat / q to take M from ({counts})")
    if log_M == -math.inf:
        raise ValueError(f"M must be positive, but the {method} of p_hat / q is 0 ({counts})")
    log_M += MARGIN * max(1.0, abs(log_M))
    if log_space:
        return log_M
    if not -708.0 < log_M < 709.0:
        raise ValueError(f"log M = {log_M} has no float64 M; pass p_hat with log_space=True")
    return math.exp(log_M)


def _check_estimate(
    logits: Tensor,
    p_hat: Tensor | float,
    targets: Tensor | None,
    temperature: float,
    ignore_index: int,
) -> Tensor:
    """Check what can be checked without reading a tensor; return p_hat as one, not expanded."""
    dtypes = ", ".join(DTYPES.values())
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a tensor, got {type(logits).__name__}")
    if logits.layout != torch.strided or logits.dtype not in DTYPES:
        raise TypeError(f"logits must be strided, of {dtypes}, got {logits.layout} {logits.dtype}")
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits must have shape [..., V] with V of at least 1, got {list(logits.shape)}"
        )
    if logits.device.type not in ("cpu", "cuda"):
        raise ValueError(f"logits must be on a cpu or cuda device, got {logits.device}")
    if isinstance(p_hat, (int, float)) and not isinstance(p_hat, bool):
        p_hat = torch.tensor(float(p_hat), dtype=torch.float64, device=logits.device)
    if not isinstance(p_hat, Tensor):
        raise TypeError(f"p_hat must be a tensor or a float, got {type(p_hat).__name__}")
    if p_hat.layout != torch.strided or p_hat.dtype not in DTYPES:
        raise TypeError(f"p_hat must be strided, of {dtypes}, got {p_hat.layout} {p_hat.dtype}")
    shape = logits.shape
    if targets is not None:
        shape = logits.shape[:-1]
        check_ids("targets", targets)
        if targets.shape != shape:
            raise ValueError(
                f"targets must have the shape of logits without its last dimension, {list(shape)}, "
                f"got {list(targets.shape)}"
            )
        if targets.device != logits.device:
            raise ValueError(f"targets is on {targets.device}, logits on {logits.device}")
    if p_hat.device != logits.device:
        raise ValueError(f"p_hat is on {p_hat.device}, logits on {logits.device}")
    if not _broadcasts(p_hat.shape, shape):
        raise ValueError(f"p_hat must broadcast to {list(shape)}, got {list(p_hat.shape)}")
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise TypeError(f"temperature must be a float, got {type(temperature).__name__}")
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index must be an int, got {type(ignore_index).__name__}")
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must fit 64 bits, got {ignore_index}")
    return p_hat.detach()


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(a in (1, b) for a, b in pairs)


def check_ids(name: str, ids: Tensor) -> None:
    """Raise TypeError if ``ids`` is no int64 or int32 tensor."""
    if not isinstance(ids, Tensor):
        raise TypeError(f"{name} must be an int64 or int32 tensor, got {type(ids).__name__}")
    if ids.layout != torch.strided or ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be a strided int64 or int32 tensor, got {ids.dtype}")


def flat(tensor: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """Return a tensor of any device and layout as a contiguous one-dimensional array."""
    array: NDArray[Any] = tensor.detach().to("cpu", dtype).reshape(-1).contiguous().numpy()
    return array


def check_level(policy: str, level: float | None) -> float:
    """Return the level of the policy "max" or "quantile", 1 for "max"."""
    if policy == "max":
        if level is not None:
            raise ValueError(f"level is for 'quantile' only, got level={level} with 'max'")
        return 1.0
    if level is None:
        raise ValueError("'quantile' needs a level in (0, 1], got none")
    if isinstance(level, bool) or not isinstance(level, (int, float)):
        raise TypeError(f"level must be a float in (0, 1], got {type(level).__name__}")
    if not 0.0 < level <= 1.0:
        raise ValueError(f"level must be in (0, 1], got {level}")
    return float(level)


def _layout(matrix: Tensor) -> tuple[int, int, int, int] | None:
    """Return (inner rows, outer, inner and column stride); None if rows need more strides."""
    levels: list[tuple[int, int]] = []
    for size, stride in zip(matrix.shape[:-1], matrix.stride()[:-1], strict=True):
        if size == 1:
            continue
        if levels and levels[-1][1] == size * stride:
            levels[-1] = (levels[-1][0] * size, stride)
        else:
            levels.append((size, stride))
    if len(levels) > 2:
        return None
    (_, outer), (rows, inner) = ([(1, 0)] * 2 + levels)[-2:]
    return max(rows, 1), outer, inner, matrix.stride(-1)


def _view(matrix: Tensor) -> _core.MatrixView:
    """Describe ``[..., V]``; the caller keeps the tensor alive while the view is in use."""
    layout = _layout(matrix)
    assert layout is not None
    columns = matrix.shape[-1]
    rows = matrix.numel() // columns
    return _core.MatrixView(matrix.data_ptr(), DTYPES[matrix.dtype], rows, columns, layout)


def _two_level(matrix: Tensor) -> Tensor:
    return matrix if _layout(matrix) is not None else matrix.contiguous()


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
    logits = _two_level(logits.detach())
    threads = torch.get_num_threads()
    quantile = method == "quantile"
    if targets is None:
        expanded = _two_level(p_hat.expand(logits.shape))
        summary = _core.dense_log_ratios(
            _view(logits),
            _view(expanded),
            temperature=temperature,
            log_space=log_space,
            with_histogram=quantile,
            threads=threads,
        )
    else:
        summary = _core.target_log_ratios(
            _view(logits),
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
        logits.detach(),
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
