"""The small networks of the training loop: features, and a linear head upon them."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels.rsft.data.samples import as_float

HIDDEN = 64


class SmallNetwork(nn.Module, ABC):
    """What the networks have in common: ``features``, and ``head``, which makes logits of them."""

    head: nn.Linear

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Return ``[N, width]`` of inputs ``[N, ...]``."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of inputs ``[N, ...]``."""
        logits: Tensor = self.head(self.features(inputs))
        return logits

    def renew_head(self, generator: torch.Generator) -> None:
        """Put a head in place that has learnt nothing, and that alone requires grad."""
        classes, width = self.head.weight.shape
        self.requires_grad_(False)
        self.head = nn.Linear(width, classes, device="meta")
        initialise(self.head, generator)


class SmallCNN(SmallNetwork):
    """Two convolutions, max-pool, two linear layers: 38,282 parameters for 8x8 digits.

    Parameters
    ----------
    classes : int
        Number of logits C.
    shape : (int, int, int)
        Channels, height and width of the images; height and width of at least 2.
    generator : torch.Generator
        Source of the initial weights; the global generator is not read.
    """

    def __init__(
        self, classes: int, shape: tuple[int, int, int], generator: torch.Generator
    ) -> None:
        super().__init__()
        channels, height, width = shape
        # On meta, the layers' own initialisation does not draw from the global generator.
        with torch.device("meta"):
            self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
            self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
            self.linear1 = nn.Linear(32 * (height // 2) * (width // 2), HIDDEN)
            self.head = nn.Linear(HIDDEN, classes)
        initialise(self, generator)

    def features(self, inputs: Tensor) -> Tensor:
        """Return ``[N, 64]`` of images ``[N, channels, height, width]``."""
        hidden = F.relu(self.conv1(as_float(inputs)))  # [N, 16, height, width]
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)  # [N, 32, height/2, width/2]
        return F.relu(self.linear1(hidden.flatten(1)))


class SmallMLP(SmallNetwork):
    """One hidden layer, for rows of a table.

    Parameters
    ----------
    classes, columns : int
        Number of logits C, and of columns D.
    generator : torch.Generator
        Source of the initial weights; the global generator is not read.
    """

    def __init__(self, classes: int, columns: int, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):
            self.linear1 = nn.Linear(columns, HIDDEN)
            self.head = nn.Linear(HIDDEN, classes)
        initialise(self, generator)

    def features(self, inputs: Tensor) -> Tensor:
        """Return ``[N, 64]`` of rows ``[N, D]``."""
        return F.relu(self.linear1(inputs))


class BackboneNetwork(SmallNetwork):
    """A head upon a backbone, or upon features that a frozen backbone has given before.

    Parameters
    ----------
    classes, width : int
        Number of logits C, and of features.
    generator : torch.Generator
        Source of the head's initial weights; the global generator is not read.
    backbone : Module, optional
        Inputs to features ``[N, width]``; None where the inputs are features.
    """

    def __init__(
        self,
        classes: int,
        width: int,
        generator: torch.Generator,
        backbone: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, classes, device="meta")
        initialise(self.head, generator)

    def features(self, inputs: Tensor) -> Tensor:
        """Return ``[N, width]`` of the backbone's inputs, or of features."""
        if self.backbone is None:
            return inputs
        features: Tensor = self.backbone(inputs)
        return features


class SoftmaxRegression(nn.Module):
    """One linear layer upon the inputs, of few enough parameters to be drawn by rejection.

    Parameters
    ----------
    classes, size : int
        Number of logits C, and of numbers in an input.
    """

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, classes, device="meta")

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of inputs ``[N, ...]``."""
        logits: Tensor = self.linear(as_float(inputs).flatten(1))
        return logits


def make_model(inputs: Tensor, classes: int, generator: torch.Generator) -> SmallNetwork:
    """Return a network for inputs such as these: images ``[N, C, H, W]`` or rows ``[N, D]``.

    Raises
    ------
    ValueError
        If the images are less than 2 pixels high or wide.
    """
    if inputs.dim() == 2:
        return SmallMLP(classes, inputs.shape[1], generator)
    channels, height, width = inputs.shape[1:]
    if min(height, width) < 2:
        raise ValueError(f"images must be at least 2x2, got {height}x{width}")
    return SmallCNN(classes, (channels, height, width), generator)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights and biases of a module's layers, U(±1/√fan-in), on the CPU."""
    module.to_empty(device="cpu")
    for layer in [*module.children()] or [module]:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        bound = 1 / math.sqrt(weight[0].numel())
        nn.init.uniform_(weight, -bound, bound, generator=generator)
        nn.init.uniform_(bias, -bound, bound, generator=generator)
