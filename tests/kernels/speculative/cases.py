"""Steps with their settings, in every form."""

import torch

from rskernels.kernels.reference.speculative import processed
from rskernels.law.speculation import Speculation

R = 6
FORMS = {
    "plain": {"temperature": 0.7},
    "temperatures": {
        "temperature": torch.tensor([0.0, 0.5, 1.0, 2.0, 0.0, 0.7], dtype=torch.float64),
        "seed": torch.arange(R) + 5,
        "row_offset": 7,
    },
    "greedy": {"temperature": 0.0},
    "top-k": {"top_k": 3, "row_offset": 1 << 40},
    "top-p": {"top_p": 0.8},
    "both": {
        "top_k": torch.tensor([0, 1, 2, 40, 5, 7]),
        "top_p": torch.tensor([0.1, 0.5, 0.9, 1.0, 0.97, 0.3], dtype=torch.float64),
        "temperature": 1.3,
        "seed": torch.tensor([9]),
        "row_offset": torch.tensor([5, 9, 1, 2, 3, 1 << 62]),
    },
}
NEARLY_NEVER = (torch.finfo(torch.float32).min, -1e4, -800.0)
"""Logits of which p is 0, though they are finite."""
LENGTHS = torch.tensor([3, 0, 1, 2, 3, 3])


def draw_step(V, dtype=torch.float32, *, K=3, number=0, requests=R, spread=2.0, **settings):
    """Return (target, draft tokens, draft) of requests, the tokens drawn from the draft."""
    generator = torch.Generator().manual_seed(number + V)
    target = spread * torch.randn(requests, K + 1, V, generator=generator)
    draft = target[:, :K] + 0.4 * torch.randn(requests, K, V, generator=generator)
    target, draft = target.to(dtype), draft.to(dtype)
    if K == 0:
        return target, torch.zeros(requests, 0, dtype=torch.int64), draft
    q, _ = processed(draft, Speculation(**settings))
    tokens = q.flatten(0, 1).float().multinomial(1, generator=generator)
    return target, tokens.view(requests, K), draft
