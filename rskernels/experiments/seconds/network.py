"""Networks of any size: what is trained, and others whose steps are timed alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rskernels.experiments.seconds.data import CLASSES, SIDE

WIDTH = 1088
"""Of the network that is trained: five million parameters."""
BLOCKS = 2
TOKENS = 2000
LENGTH = 32


class Block(nn.Module):
    """``x + W₂ relu(W₁ norm(x))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, width]``."""
        y: Tensor = x + self.linear2(F.relu(self.linear1(self.norm(x))))
        return y


class ResidualMLP(nn.Sequential):
    """Rows ``[N, 256]`` to logits ``[N, 10]``.

    Parameters
    ----------
    width : int
        Of every layer: there are about ``2 · blocks · width²`` parameters.
    seed : int
        Of the weights.
    """

    def __init__(self, width: int = WIDTH, seed: int = 0, blocks: int = BLOCKS) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                nn.Linear(SIDE * SIDE, width),
                *(Block(width) for _ in range(blocks)),
                nn.LayerNorm(width),
                nn.Linear(width, CLASSES),
            )


class ConvNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits: 3x3 convolutions, wider each time they are halved."""

    def __init__(self) -> None:
        super().__init__()
        width, size = 3, 72
        for stride in (1, 2, 1, 2, 1, 2, 1):
            self.append(nn.Conv2d(width, size, 3, stride, padding=1))
            self.append(nn.GroupNorm(8, size))
            self.append(nn.ReLU())
            width, size = size, size * 2 if stride == 1 else size
        self.append(nn.AdaptiveAvgPool2d(1))
        self.append(nn.Flatten())
        self.append(nn.Linear(width, CLASSES))


class TransformerBlock(nn.Module):
    """Attention of four heads and a layer of four times the width, each after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, T, width]``."""
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*parts)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        y: Tensor = x + self.linear2(F.relu(self.linear1(self.norm2(x))))
        return y


class TextTransformer(nn.Sequential):
    """Tokens ``[N, 32]`` to logits of each: six blocks of width 256, and 2,000 tokens."""

    def __init__(self) -> None:
        super().__init__(
            nn.Embedding(TOKENS, 256),
            *(TransformerBlock(256) for _ in range(6)),
            nn.Flatten(),
            nn.Linear(256 * LENGTH, CLASSES),
        )


class Network(NamedTuple):
    """A network whose steps are timed."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    """A number of rows to such rows."""
    batch: int


def _images(n: int) -> Tensor:
    return torch.randn(n, 3, 32, 32)


def _rows(n: int) -> Tensor:
    return torch.randn(n, SIDE * SIDE)


def _tokens(n: int) -> Tensor:
    return torch.randint(TOKENS, (n, LENGTH))


NETWORKS = {
    f"MLP, {width} wide": Network(partial(ResidualMLP, width), _rows, 128)
    for width in (WIDTH, 48, 136, 272, 544, 2176)
} | {
    "convolutions": Network(ConvNet, _images, 4),
    "transformer": Network(TextTransformer, _tokens, 4),
}


def parameters_of(model: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(p.numel() for p in model.parameters())
