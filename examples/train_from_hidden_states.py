"""A language model's training step, with its logits stored and without.

Logits, tokens times vocabulary, are a step's largest tensor. Given the hidden states and the weight
that make them, the loss and its gradients are the same without it. Prints seconds and peak memory.
"""

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import rskernels

IS_LINUX = sys.platform == "linux"
V, D, SEQUENCES, LENGTH, STEPS = 32_000, 128, 4, 128, 3
LOSSES = {
    "not stored": lambda hidden, weight, targets: (
        -rskernels.target_log_prob(rskernels.LinearLogits(hidden, weight), targets).mean()
    ),
    "stored": lambda hidden, weight, targets: functional.cross_entropy(hidden @ weight.T, targets),
}


def hidden_states(model: nn.ModuleDict, ids: Tensor) -> Tensor:
    """Return what a small GPT has before its last layer, ``[tokens, D]``."""
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    states = model["layers"](model["tokens"](ids) + model["places"].weight, mask, is_causal=True)
    return functional.layer_norm(states, (D,)).flatten(0, 1) / D**0.5


def resident(field: str) -> float:
    """Return MiB by Linux's /proc, 0 elsewhere."""
    text = Path("/proc/self/status").read_text(encoding="utf-8") if IS_LINUX else f"{field} 0"
    return int(text.split(field)[1].split()[0]) / 1024


for name, loss_of in LOSSES.items():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, 4, 4 * D, 0.0, "gelu", batch_first=True)
    model = nn.ModuleDict({"layers": nn.TransformerEncoder(layer, 2)})
    model.update({"tokens": nn.Embedding(V, D), "places": nn.Embedding(LENGTH, D)})
    ids = torch.randint(V, (SEQUENCES, LENGTH + 1))
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=1.0), []
    for _ in range(STEPS):  # the first ones compile kernels, and fill caches
        if IS_LINUX:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak
        before, begin = resident("VmRSS:"), time.perf_counter()
        hidden = hidden_states(model, ids[:, :-1])
        loss = loss_of(hidden, model["tokens"].weight, ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds, losses = time.perf_counter() - begin, [*losses, f"{loss.item():.5f}"]
    memory = resident("VmHWM:") - before
    print(f"{name}: {seconds:.2f} s, {memory:.0f} MiB, losses {', '.join(losses)}")
