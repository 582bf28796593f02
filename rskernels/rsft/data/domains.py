"""Densities of two domains, from rows of each."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rskernels._python.extras import train_extra


def log_domain_densities(source: Tensor, target: Tensor, features: Tensor) -> Tensor:
    """Estimate the log densities of source and target at features, up to one constant for both.

    By a classifier of the two: p_target/p_source is the odds of its probabilities over the odds of
    the rows (Sugiyama, Suzuki & Kanamori, "Density Ratio Estimation in Machine Learning", 2012).

    Parameters
    ----------
    source, target : Tensor
        float32 ``[n, K]`` and ``[m, K]``, features of rows of each.
    features : Tensor
        float32 ``[N, K]``.

    Returns
    -------
    Tensor
        float32 ``[N, 2]``: log p_target and log p_source.
    """
    with train_extra():
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    rows = torch.cat([source, target]).double().numpy()
    is_target = torch.arange(len(rows)).numpy() >= len(source)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    classifier.fit(rows, is_target)
    log_odds = torch.from_numpy(classifier.decision_function(features.double().numpy())).float()
    log_ratio = log_odds - math.log(len(target) / len(source))
    return torch.stack([F.logsigmoid(log_ratio), F.logsigmoid(-log_ratio)], dim=1)
