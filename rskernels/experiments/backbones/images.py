"""Image models of torchvision and transformers as backbones: images to features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels._python.extras import framework
from rskernels.experiments.backbones.weights import load_into, read_model, read_weights
from rskernels.rsft.data.samples import as_float
from rskernels.rsft.errors import DataError

VISION_HINT = "install torchvision from the index that torch came from"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ROUNDING = 1e-4  # of images that were turned and blurred
PROBED = 64  # pixels of the image that tells how many features there are


class ImageBackbone(nn.Module):
    """An image model without its head, and the scale that it was trained with.

    Parameters
    ----------
    model : Module
        Images ``[N, 3, H, W]`` to features.
    mean, std : sequence of float
        Of red, green and blue, which are subtracted and divided by.
    size : int, optional
        Height and width that images are brought to; None takes them as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Any, std: Any, size: int | None) -> None:
        super().__init__()
        self.model, self.size = model.eval(), size
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images in 0 … 1, or bytes; grey ones get three channels."""
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise DataError(
                f"a backbone of images reads [N, 3, H, W] and [N, 1, H, W], got "
                f"{list(images.shape)}"
            )
        images = as_float(images)
        low, high = map(float, images.aminmax())
        if not -ROUNDING <= low <= high <= 1 + ROUNDING:
            raise DataError(
                f"a backbone of images reads pixels of 0 to 1, got {low:.3g} to {high:.3g}"
            )
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        output = self.model((images.expand(-1, 3, -1, -1) - self.mean) / self.std)
        features: Tensor = output if isinstance(output, Tensor) else _pooled(output)
        return features.flatten(1)

    def width(self) -> int:
        """Return the number of features, of one grey image.

        Raises
        ------
        DataError
            If the model takes no image of the size asked for.
        """
        size = self.size or PROBED
        try:
            with torch.no_grad():
                return int(self(torch.zeros(1, 1, size, size)).shape[1])
        except (RuntimeError, ValueError, AssertionError) as error:
            raise DataError(f"the backbone takes no image of {size}x{size}: {error}") from error


def _pooled(output: Any) -> Tensor:
    """Return the features of what a transformers model gives: those pooled, or their mean."""
    pooled = getattr(output, "pooler_output", None)
    if isinstance(pooled, Tensor):
        return pooled
    hidden: Tensor = output.last_hidden_state
    return hidden.mean(dim=1) if hidden.dim() == 3 else hidden.mean(dim=(2, 3))


def torchvision_backbone(name: str, weights: Path, size: int | None) -> ImageBackbone:
    """Return a classification model of torchvision, with weights of a file, without its head.

    The head is the last linear layer. Mean and standard deviation are those of the model's weights
    in torchvision, which are not downloaded.

    Raises
    ------
    DataError
        If there is no such model, it does not end in a linear layer, or the weights do not fit.
    ImportError
        If torchvision is not installed, or is built for another torch.
    """
    with vision():
        from torchvision import models
    accepted = models.list_models(module=models)
    if name not in accepted:
        raise DataError(
            f"torchvision has no classification model {name!r}; it has {', '.join(accepted)}"
        )
    with torch.random.fork_rng(devices=[]):
        # Weights are of a file: what is drawn here is replaced.
        model = models.get_model(name, weights=None)
    place = _behead(model, name)
    load_into(model, read_weights(weights), weights, without=place)
    try:
        preset = models.get_model_weights(name).DEFAULT.transforms()
        mean, std = preset.mean, preset.std
    except AttributeError:
        mean, std = IMAGENET
    return ImageBackbone(model, mean, std, size)


def _behead(model: nn.Module, name: str) -> str:
    """Put an identity in the place of a model's last linear layer, and return where it was."""
    linear: list[str] = [
        place for place, module in model.named_modules() if isinstance(module, nn.Linear)
    ]
    # Dropout and the like may follow a head, but nothing with weights of its own.
    weighed = [
        place
        for place, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    if not linear or linear[-1] != weighed[-1]:
        raise DataError(f"{name} ends in {weighed[-1]}, which is no linear layer")
    parent, _, own = linear[-1].rpartition(".")
    setattr(model.get_submodule(parent), own, nn.Identity())
    return linear[-1]


@contextmanager
def vision() -> Iterator[None]:
    """Wrap the import of torchvision.

    Raises
    ------
    ImportError
        Where it is not installed, or its operators do not load beside this torch.
    """
    try:
        with framework("a backbone of torchvision", VISION_HINT):
            yield
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"torchvision does not load beside torch {torch.__version__}, since it is built for "
            f"another ({error}): {VISION_HINT}"
        ) from error


def transformers_backbone(
    folder: Path, size: int | None, generator: torch.Generator, *, from_scratch: bool
) -> ImageBackbone:
    """Return an image model of a folder, as transformers saves it.

    Mean and standard deviation are those of ``preprocessor_config.json``, else those of ImageNet.

    Raises
    ------
    DataError
        If the folder holds no such model.
    """
    model = read_model(folder, generator, from_scratch=from_scratch)
    mean, std = IMAGENET
    processor = folder / "preprocessor_config.json"
    if processor.is_file():
        try:
            read = json.loads(processor.read_text(encoding="utf-8"))
            mean, std = read.get("image_mean", mean), read.get("image_std", std)
        except (ValueError, AttributeError) as error:
            raise DataError(f"{processor} cannot be read: {error}") from error
    return ImageBackbone(model, mean, std, size)
