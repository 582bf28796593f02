"""Speculative decoding: a small model drafts tokens, a large one verifies them in one pass.

A draft token is kept with probability min(1, p/q), p the target's probability of it and q the
draft's. Where one is rejected, its place is drawn from max(0, p - q): the text then follows the
target model exactly, and the better the draft, the more tokens a pass of the target brings.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

import rskernels

TEXT = load_digits()["DESCR"].lower()
LETTERS = sorted(set(TEXT))
V, DRAFT, ROUNDS = len(LETTERS), 4, 500
tokens = torch.tensor([LETTERS.index(letter) for letter in TEXT])

# Two language models by counting: the draft sees one letter back, the target two.
bigrams = torch.full((V, V), 0.05)
bigrams.index_put_((tokens[:-1], tokens[1:]), torch.ones(len(tokens) - 1), accumulate=True)
trigrams = 4.0 * bigrams.div(bigrams.sum(-1, keepdim=True)).repeat(V, 1, 1)
trigrams.index_put_((tokens[:-2], tokens[1:-1], tokens[2:]), torch.ones(len(tokens) - 2),
                    accumulate=True)  # fmt: skip
draft_logits, target_logits = bigrams.log(), trigrams.log()


def draft(last: Tensor) -> tuple[Tensor, Tensor]:
    """Return DRAFT tokens after the last one, and the draft's probabilities ``[DRAFT, V]``."""
    drawn, densities = [last], []
    for _ in range(DRAFT):
        densities.append(draft_logits[drawn[-1]].softmax(-1))
        drawn.append(densities[-1].multinomial(1)[0])
    return torch.stack(drawn[1:]), torch.stack(densities)


torch.manual_seed(0)
text, kept, expected = tokens[:2], 0, 0.0
for number in range(ROUNDS):
    drafted, q = draft(text[-1])
    context = torch.cat([text[-2:], drafted])
    logits = target_logits[context[:-2], context[1:-1]]  # [DRAFT, V], one pass of the target
    q_hat = q.gather(-1, drafted[:, None])[:, 0]
    mask = rskernels.verify_mask(logits, q_hat, targets=drafted, seed=0, row_offset=DRAFT * number)
    length = int(mask.long().cumprod(0).sum())  # the tokens before the first rejection
    text = torch.cat([text, drafted[:length]])
    if length < DRAFT:
        residual = (logits[length].softmax(-1) - q[length]).clamp(min=0)
        text = torch.cat([text, residual.multinomial(1)])
    kept += int(mask[0])
    expected += torch.minimum(logits[0].softmax(-1), q[0]).sum().item()

print(f"first draft tokens kept: {kept / ROUNDS:.2f}, expected {expected / ROUNDS:.2f}")
print(f"tokens a pass of the target: {(len(text) - 2) / ROUNDS:.2f}")
print(repr("".join(LETTERS[token] for token in text[2:90])))
