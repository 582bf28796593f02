"""Advantages of answers against accepted answers to the same prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def accepted_advantages(
    rewards: Tensor,
    accepted: Tensor,
    groups: Tensor,
    *,
    has_std: bool = True,
    epsilon: float = 1e-6,
) -> Tensor:
    """Return GRPO's advantages among accepted answers: (r - mean)/(std + epsilon).

    Mean and standard deviation, with n - 1, are those of the accepted answers to the same prompt.
    Rejected answers are in neither, and get 0. So does an accepted answer that is the only one, as
    it cannot be compared.

    Parameters
    ----------
    rewards : Tensor
        floating ``[B]``.
    accepted : Tensor
        bool ``[B]``.
    groups : Tensor
        int64 ``[B]``: which prompt each answers; any numbers.
    has_std : bool
        Whether to divide by the standard deviation.
    epsilon : float
        Added to it.

    Returns
    -------
    Tensor
        ``[B]``, in the dtype of ``rewards``.

    References
    ----------
    Shao et al., "DeepSeekMath", 2024.
    """
    prompts, group = groups.unique(return_inverse=True)
    values = torch.where(accepted, rewards, 0).double()

    def summed(terms: Tensor) -> Tensor:
        """Return the sum over its group, for each answer."""
        return torch.zeros(len(prompts), dtype=torch.float64, device=rewards.device).index_add_(
            0, group, terms
        )[group]

    count = summed(accepted.double())
    centred = torch.where(accepted, values - summed(values) / count.clamp(min=1), 0)
    if has_std:
        variance = summed(centred.square()) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + epsilon)
    return torch.where(count > 1, centred, 0).to(rewards.dtype)
