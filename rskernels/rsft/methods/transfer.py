"""A shift of the inputs: clean images turned and blurred, and what tells the two apart."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels.rsft.data.samples import DataError, Samples
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.extras import train_extra

LARGEST_ANGLE = math.pi / 3
LARGEST_BLUR = 1.0  # standard deviation, in pixels
RADIUS = 3


def turn_and_blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each image by an angle in ±60° and blur it by a Gaussian of up to one pixel.

    Parameters
    ----------
    images : Tensor
        float32 ``[N, C, H, W]``.
    generator : torch.Generator
        Draws the angles and widths, uniform.

    Returns
    -------
    Tensor
        float32 ``[N, C, H, W]``; what turns in from outside is 0.
    """
    n, channels = images.shape[:2]
    angle = LARGEST_ANGLE * (2 * torch.rand(n, generator=generator) - 1)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(n, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, align_corners=False)
    width = (LARGEST_BLUR * torch.rand(n, generator=generator)).clamp(min=1e-3)
    offset = torch.arange(-RADIUS, RADIUS + 1)
    line = torch.softmax(-((offset / width[:, None]) ** 2) / 2, dim=1)  # [N, 7]
    kernel = (line[:, :, None] * line[:, None, :]).repeat_interleave(channels, dim=0)
    flat = turned.reshape(1, n * channels, *turned.shape[2:])
    blurred = F.conv2d(flat, kernel[:, None], padding=RADIUS, groups=n * channels)
    return blurred.view(images.shape)


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


def fit(
    model: nn.Module,
    samples: Samples,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    generator: torch.Generator,
) -> None:
    """Train a model plainly, in place: what comes before the fine-tuning.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for _ in range(epochs):
        for rows in torch.randperm(len(samples.labels), generator=generator).split(batch_size):
            loss = F.cross_entropy(model(samples.inputs[rows]), samples.labels[rows])
            if not loss.isfinite():
                raise TrainingError(
                    f"before the fine-tuning, the loss is {float(loss.detach())}; "
                    f"a smaller lr than {lr} may help"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], inputs: Tensor, rows: int = 1024) -> Tensor:
    """Return a function of inputs ``[N, ...]``, taken a few rows at a time, without gradient."""
    return torch.cat([function(part) for part in inputs.split(rows)])


def check_images(inputs: Tensor, method: str) -> None:
    """Raise DataError if the inputs cannot be turned and blurred."""
    if inputs.dim() != 4:
        raise DataError(f"method={method!r} turns and blurs images, the data are a table")
