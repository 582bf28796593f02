"""The mean of a loss over the rows that were accepted."""

from __future__ import annotations

import torch
from torch import Tensor


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
        Floating ``[...]``, finite and not negative in the mask, such as those of rejection control.
        Their scale does not matter.

    Returns
    -------
    Tensor
        A scalar: float64 for float64 losses, else float32, in which it is summed too.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or device is not as above.

    Notes
    -----
    It works under torch.compile, torch.func and autocast, and waits for no device. The gradient is
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
    _check("loss", loss, loss, "floating")
    _check("mask", mask, loss, "bool")
    dtype = torch.promote_types(loss.dtype, torch.float32)
    if weights is None:
        kept, share = mask, mask.to(dtype)
    else:
        _check("weights", weights, loss, "floating")
        kept = mask & (weights != 0)
        share = torch.where(kept, weights, 0).to(dtype)
        # Else the sum of large weights is infinite.
        largest = share.detach().amax() if share.numel() else share.new_ones(())
        share = share / torch.where(largest > 0, largest, 1)
    total = share.sum()
    share = share / torch.where(total > 0, total, 1)
    return (share * torch.where(kept, loss, 0).to(dtype)).sum()


def _check(name: str, value: Tensor, loss: Tensor, kind: str) -> None:
    """Raise unless a tensor is of this kind, and as the loss is in shape and device."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if not (value.is_floating_point() if kind == "floating" else value.dtype is torch.bool):
        raise TypeError(f"{name} must be {kind}, got {value.dtype}")
    if value.shape != loss.shape:
        raise ValueError(
            f"{name} must have the shape of the loss, {list(loss.shape)}, got {list(value.shape)}"
        )
    if value.device != loss.device:
        raise ValueError(f"{name} is on {value.device}, the loss on {loss.device}")
