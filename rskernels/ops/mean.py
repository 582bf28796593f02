"""The mean of a loss over the rows that were accepted."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from rskernels._torch.sharded import is_sharded, largest_of, replicated
from rskernels.ops.arguments import (
    FLOAT_DTYPES,
    FLOAT_NAMES,
    check_strided,
    may_be_odd,
    refuse_odd,
)


def accepted_mean(loss: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of a loss over accepted rows: 0, with gradient 0, where there is none.

    ``Σ v·loss`` over the mask, ``v = w / Σ w`` the share of each row, or one of equal shares. What
    a row holds that is not in the mask, NaN or infinity too, is not read, and its loss gets the
    gradient 0. A row of weight 0 is as one that was rejected.

    ``loss[mask].mean()`` is NaN for an empty mask, and ``(loss * mask).sum()`` for a rejected row
    of infinite loss.

    Parameters
    ----------
    loss : Tensor
        float32, float64, bfloat16 or float16 ``[...]``, of each row.
    mask : Tensor
        bool ``[...]``, as the masks return it.
    weights : Tensor, optional
        float32, float64, bfloat16 or float16 ``[...]``, such as those of rejection control. Their
        scale does not matter. One in the mask that is negative, infinite or NaN makes the mean NaN.

    Returns
    -------
    Tensor
        A scalar: float64 for float64 losses, else float32, in which it is summed too. Of DTensors
        the mean over the rows of all ranks, replicated, so that each holds it.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or device is not as above, or not all are DTensors of
        one mesh, or none is.

    Notes
    -----
    It works under torch.compile, torch.func and autocast, and waits for no device. Of plain tensors
    it is the mean of this rank's rows, of which others may accept more or fewer. The gradient is
    that of the loss: `target_log_prob` turns 0 into 0 whatever the row holds, torch's
    ``cross_entropy`` into NaN where its logits are NaN or +inf.

    Examples
    --------
    >>> loss = torch.tensor([1.0, torch.inf, 3.0])
    >>> accepted_mean(loss, torch.tensor([True, False, True]))
    tensor(2.)
    >>> accepted_mean(loss, torch.tensor([False, False, False]))
    tensor(0.)
    """
    if may_be_odd(loss, mask, weights):
        refuse_odd({"loss": loss, "mask": mask, "weights": weights}, "by the mask")
    _check("loss", loss, loss, FLOAT_DTYPES)
    _check("mask", mask, loss, (torch.bool,))
    dtype = torch.promote_types(loss.dtype, torch.float32)
    if weights is None:
        kept, share = mask, mask.to(dtype)
    else:
        _check("weights", weights, loss, FLOAT_DTYPES)
        kept = mask & (weights != 0)
        # As wide as the weights until they are scaled: float32 does not reach as far as float64.
        share = torch.where(kept, weights, 0).to(torch.promote_types(weights.dtype, dtype))
        share = torch.where(share < 0, torch.nan, share)
        # Else the sum of large weights is infinite.
        share = share / _or_1(largest_of(share.detach()))
    share = (share / _or_1(replicated(share.sum()))).to(dtype)
    return replicated((share * torch.where(kept, loss, 0).to(dtype)).sum())


def masked_mean(values: Tensor, mask: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Return the mean of values over a mask: 0, with gradient 0, where the mask is empty.

    For losses of tokens beside ``SequenceAcceptance.token_mask``. What lies outside of the mask,
    NaN or infinity too, is not read, and gets the gradient 0.

    Parameters
    ----------
    values : Tensor
        float32, float64, bfloat16 or float16 ``[...]``.
    mask : Tensor
        bool; broadcasts to ``values``.
    dim : int or tuple of int, optional
        What the mean is taken over: ``-1`` gives a mean of each sequence of ``[B, T]``. None: all.

    Returns
    -------
    Tensor
        float64 for float64 values, else float32, in which it is summed too; without the dimensions
        of ``dim``. DTensors as in ``accepted_mean``, without ``dim``.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or device is not as above.
    IndexError
        If ``values`` has no such dimension.

    Examples
    --------
    >>> loss = torch.tensor([[1.0, torch.nan, 3.0], [torch.inf, 1.0, 1.0]])
    >>> masked_mean(loss, torch.tensor([[True, False, True], [False, False, False]]), dim=-1)
    tensor([2., 0.])
    """
    if isinstance(values, Tensor) and isinstance(mask, Tensor) and mask.shape != values.shape:
        missing = values.dim() - mask.dim()
        sizes = zip(mask.shape, values.shape[max(missing, 0) :], strict=False)
        if missing < 0 or any(size not in (1, of) for size, of in sizes):
            raise ValueError(
                f"mask must broadcast to the values' shape {list(values.shape)}, got "
                f"{list(mask.shape)}"
            )
        mask = mask.expand(values.shape)
    if may_be_odd(values, mask):
        refuse_odd({"values": values, "mask": mask}, "by the mask")
    _check("values", values, values, FLOAT_DTYPES)
    _check("mask", mask, values, (torch.bool,))
    if dim is None:
        return accepted_mean(values, mask)
    if is_sharded(values):
        raise TypeError("a mean over dim of DTensors is not served; give their to_local()")
    dtype = torch.promote_types(values.dtype, torch.float32)
    # Each divided before they are added up, so that no sum overflows where the mean does not.
    count = mask.sum(dim, keepdim=True).clamp(min=1)
    return (torch.where(mask, values, 0).to(dtype) / count).sum(dim)


def _or_1(divisor: Tensor) -> Tensor:
    """Return a divisor that is not 0; NaN stays, and so spoils the whole mean."""
    return torch.where(divisor == 0, 1, divisor)


def _check(name: str, value: Tensor, loss: Tensor, dtypes: Collection[torch.dtype]) -> None:
    """Raise unless a tensor is of a dtype, and as the loss is in shape, device and mesh."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        accepted = FLOAT_NAMES if dtypes is FLOAT_DTYPES else "bool"
        raise TypeError(f"{name} must be {accepted}, got {value.dtype}")
    check_strided(name, value)
    if is_sharded(value) != is_sharded(loss):
        one, other = (name, "loss") if is_sharded(loss) else ("loss", name)
        raise TypeError(
            f"{one} is a plain tensor, {other} a DTensor; make both DTensors, by distribute_tensor "
            "or DTensor.from_local, or neither, by full_tensor()"
        )
    if value.shape != loss.shape:
        raise ValueError(
            f"{name} must have the shape of the loss, {list(loss.shape)}, got {list(value.shape)}"
        )
    if value.device != loss.device:
        raise ValueError(f"{name} is on {value.device}, the loss on {loss.device}")
    if is_sharded(loss) and value.device_mesh != loss.device_mesh:  # type: ignore[attr-defined]
        raise ValueError(f"{name} and loss are DTensors of different meshes")
