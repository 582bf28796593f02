"""Decisions about a language model's tokens: float32 or bfloat16 [1024, 768] x [50257, 768].

The vocabulary is sorted by frequency, as tokenizers make it: a Zipf-distributed bias. Every token
is accepted with the same probability, 0.1 % to 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import rskernels
from rskernels.kernels.cpu.linear.blocks import blocks_of

N, D, V = 1024, 768, 50257
ACCEPTED = (0.001, 0.01, 0.1, 0.5, 1.0)
SPREAD = 1.5  # of what the hidden states add to the logits
SHIFT = 2.7  # of Zipf's law, as Mandelbrot has it


class Inputs(NamedTuple):
    """What logits are made of, and tokens drawn from them with their log-probabilities."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    targets: Tensor
    log_prob: Tensor

    @property
    def logits(self) -> rskernels.LinearLogits:
        return rskernels.LinearLogits(self.hidden, self.weight, self.bias)


def draw(dtype: torch.dtype) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype)
    weight = (torch.randn(V, D, generator=generator) * SPREAD / math.sqrt(D)).to(dtype)
    bias = -(torch.arange(V) + SHIFT).log()
    log_q = functional.linear(hidden.float(), weight.float(), bias).log_softmax(-1)
    targets = torch.multinomial(log_q.exp(), 1, generator=generator)
    return Inputs(hidden, weight, bias, targets[:, 0], log_q.gather(1, targets)[:, 0])


def stored(inputs: Inputs) -> Tensor:
    return functional.linear(inputs.hidden, inputs.weight, inputs.bias.to(inputs.hidden.dtype))


def eager(inputs: Inputs, log_q_hat: Tensor) -> Tensor:
    log_q = stored(inputs).log_softmax(-1, dtype=torch.float32)
    log_q = log_q.gather(-1, inputs.targets[:, None])[:, 0]
    return torch.rand_like(log_q).log_() <= log_q - log_q_hat


def product(inputs: Inputs) -> Callable[[], None]:
    """Return what multiplies by the blocks of the library, and does nothing else."""
    blocks = [
        inputs.weight[block.start : block.start + block.width].t() for block in blocks_of(V, None)
    ]
    widest = max(block.shape[1] for block in blocks)
    room = torch.empty(N * widest, dtype=inputs.hidden.dtype)

    def multiply() -> None:
        for block in blocks:
            torch.mm(inputs.hidden, block, out=room[: N * block.shape[1]].view(N, -1))

    return multiply


def calls(inputs: Inputs, accepted: float) -> dict[str, Callable[[], Any]]:
    """Return the forms by name; each decides about every token."""
    log_q_hat = inputs.log_prob - math.log(accepted)
    law: dict[str, Any] = {"targets": inputs.targets, "log_space": True}
    compiled = torch.compile(lambda: eager(inputs, log_q_hat), dynamic=False)
    return {
        "verify_mask": lambda: rskernels.verify_mask(inputs.logits, log_q_hat, **law),
        "verify": lambda: rskernels.verify(inputs.logits, log_q_hat, **law),
        "eager": lambda: eager(inputs, log_q_hat),
        "compiled": compiled,
        "stored, verify_mask": lambda: rskernels.verify_mask(stored(inputs), log_q_hat, **law),
        "product": product(inputs),
    }
