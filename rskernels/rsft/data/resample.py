"""Baselines that balance the classes of an epoch by repeating or leaving out rows."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from rskernels._python.extras import train_extra

# Labels of an epoch's rows, int64 [n], to the indices that are used of them, int64 [m].
Resampler = Callable[[Tensor, torch.Generator], Tensor]


def oversample(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many rows, with replacement, each in proportion to one over its class's rows."""
    weights = 1 / labels.bincount()[labels].double()
    sampler = WeightedRandomSampler(weights.tolist(), len(labels), generator=generator)
    return torch.tensor(list(sampler))


def undersample(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from every class, without replacement, as many rows as the rarest has.

    Raises
    ------
    ModuleNotFoundError
        If imbalanced-learn is not installed.
    """
    with train_extra():
        from imblearn.under_sampling import RandomUnderSampler
    if len(labels.unique()) == 1:  # which RandomUnderSampler refuses
        return torch.randperm(len(labels), generator=generator)
    seed = int(torch.randint(1 << 32, (), generator=generator))
    sampler = RandomUnderSampler(random_state=seed)
    sampler.fit_resample(torch.arange(len(labels))[:, None].numpy(), labels.numpy())
    chosen = torch.from_numpy(sampler.sample_indices_)
    return chosen[torch.randperm(len(chosen), generator=generator)]


RESAMPLERS: dict[str, Resampler] = {"oversample": oversample, "undersample": undersample}
