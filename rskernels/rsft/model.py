"""The small network of the training loop."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SmallCNN(nn.Module):
    """Two convolutions, max-pool, two linear layers: 38,282 parameters for 8x8 digits.

    Parameters
    ----------
    classes : int
        Number of logits C.
    side : int
        Height and width of the images, even.
    generator : torch.Generator
        Source of the initial weights; the global generator is not read.
    """

    def __init__(self, classes: int, side: int, generator: torch.Generator) -> None:
        super().__init__()
        # On meta, the layers' own initialisation does not draw from the global generator.
        with torch.device("meta"):
            self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
            self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
            self.linear1 = nn.Linear(32 * (side // 2) ** 2, 64)
            self.linear2 = nn.Linear(64, classes)
        self.to_empty(device="cpu")
        for module in self.children():
            weight, bias = module.weight, module.bias
            assert isinstance(weight, Tensor)
            assert isinstance(bias, Tensor)
            bound = 1 / math.sqrt(weight[0].numel())
            nn.init.uniform_(weight, -bound, bound, generator=generator)
            nn.init.uniform_(bias, -bound, bound, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of images ``[N, 1, side, side]``."""
        hidden = F.relu(self.conv1(images))  # [N, 16, side, side]
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)  # [N, 32, side/2, side/2]
        logits: Tensor = self.linear2(F.relu(self.linear1(hidden.flatten(1))))
        return logits
