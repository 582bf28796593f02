"""Speculative decoding: a small model drafts tokens, a large one verifies them in one pass.

A draft token is kept with probability min(1, p/q), p the target's probability of it and q the
draft's. Where one is rejected, its place is drawn from max(0, p - q), and after the last one more
token from p: the text follows the target model exactly, and the better the draft, the more tokens a
pass of the target brings.
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


def draft(last: Tensor) -> Tensor:
    """Return DRAFT tokens after the last one, and that one before them."""
    drawn = [last]
    for _ in range(DRAFT):
        drawn.append(draft_logits[drawn[-1]].softmax(-1).multinomial(1)[0])
    return torch.stack(drawn)


torch.manual_seed(0)
text, kept, expected = tokens[:2], 0, 0.0
for number in range(ROUNDS):
    drafted = draft(text[-1])
    context = torch.cat([text[-2:-1], drafted])
    p = target_logits[context[:-1], context[1:]]  # [DRAFT + 1, V], one pass of the target
    q = draft_logits[drafted[:-1]]  # [DRAFT, V], what the draft drew from
    step = rskernels.speculative_sample(
        p[None], drafted[None, 1:], q[None], seed=0, row_offset=number
    )
    text = torch.cat([text, step.tokens[0, : step.accepted[0] + 1]])
    kept += int(step.accepted[0] > 0)
    expected += torch.minimum(p[0].softmax(-1), q[0].softmax(-1)).sum().item()

print(f"first draft tokens kept: {kept / ROUNDS:.2f}, expected {expected / ROUNDS:.2f}")
print(f"tokens a pass of the target: {(len(text) - 2) / ROUNDS:.2f}")
print(repr("".join(LETTERS[token] for token in text[2:90])))
