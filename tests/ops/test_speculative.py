"""What ``speculative_sample`` accepts, and what it says of all else."""

import math

import pytest
import torch
from torch.masked import masked_tensor

import rskernels

from ..support.bits import same_bits

R, K, V = 2, 3, 5
TARGET, DRAFT = torch.zeros(R, K + 1, V), torch.zeros(R, K, V)
TOKENS, WHOLE = torch.zeros(R, K, dtype=torch.int64), torch.zeros(R, dtype=torch.int64)
CASES = [
    ("target_logits", TypeError, r"target_logits must be a torch.Tensor, got list", [0.0]),
    ("target_logits", TypeError, r"target_logits must be float32, .*, got torch.int64", TOKENS),
    ("target_logits", ValueError, r"\[R, K \+ 1, V\] .*, got \[2, 5\]", TARGET[:, 0]),
    ("target_logits", ValueError, r"after the last draft token, got \[2, 0, 5\]", TARGET[:, :0]),
    ("draft_tokens", TypeError, r"draft_tokens must be a torch.Tensor, got int", 3),
    ("draft_tokens", TypeError, r"draft_tokens must be int64 or int32, got torch.float32", DRAFT),
    ("draft_tokens", ValueError, r"draft_tokens must have shape \[2, 3\], got \[2\]", WHOLE),
    ("draft_tokens", ValueError, r"draft_tokens is on meta, .* on cpu", TOKENS.to("meta")),
    ("draft_tokens", IndexError, r"\[0, 5\), got 5 at place 0 of request 0", TOKENS + 5),
    ("draft_tokens", IndexError, r"got -1 at place 0 of request 0; lengths says", TOKENS - 1),
    ("draft_logits", TypeError, r"draft_logits are torch.float64, the target's torch.float32",
     DRAFT.double()),
    ("draft_logits", ValueError, r"draft_logits must have shape \[2, 3, 5\], got \[2, 4, 5\]",
     TARGET),
    ("lengths", TypeError, r"lengths must be a torch.Tensor, got list", [1, 2]),
    ("lengths", ValueError, r"lengths must have shape \[2\], got \[2, 3\]", TOKENS),
    ("lengths", ValueError, r"lengths must be in \[0, 3\], got 4 for request 1",
     torch.tensor([3, 4])),
    ("temperature", ValueError, r"temperature must be 0 or in \[1e-30, 1e30\], got -1.0", -1),
    ("temperature", ValueError, r"temperature must be 0 or in .*, got nan", math.nan),
    ("temperature", TypeError, r"temperature must be a number or a tensor, got str", "hot"),
    ("temperature", ValueError, r"temperature must have shape \[2\], got \[1\]", torch.ones(1)),
    ("temperature", TypeError, r"temperature must be float32, .* got torch.int64", WHOLE),
    ("top_k", ValueError, r"top_k must be at least 0 and fit 64 bits, got -1", -1),
    ("top_k", TypeError, r"top_k must be an int, a tensor or None, got float", 2.5),
    ("top_k", TypeError, r"top_k must be int64 or int32, got torch.float32", torch.ones(2)),
    ("top_p", ValueError, r"top_p must be in \(0, 1\] or None, got 0.0", 0),
    ("top_p", ValueError, r"top_p must be in \(0, 1\] or None, got 1.5", 1.5),
    ("top_p", TypeError, r"top_p must be a number or a tensor, got bool", True),
    ("method", ValueError, r"method must be \"token\" or \"block\", got 'tree'", "tree"),
    ("seed", TypeError, r"seed must be an int or an int64 tensor, got float", 1.5),
    ("seed", TypeError, r"a seed tensor must be int64, got torch.int32", WHOLE.int()),
    ("seed", ValueError, r"one element, or shape \[2\], got \[3\]", torch.zeros(3).long()),
    ("seed", ValueError, r"the seed tensor is on meta", WHOLE.to("meta")),
    ("row_offset", ValueError, r"row_offset must be in \[0, 2\*\*63\), got -1", -1),
    ("row_offset", TypeError, r"a tensor of row_offset must be int64, got torch.int32",
     WHOLE.int()),
    ("row_offset", ValueError, r"row_offset must have shape \[2\], got \[\]", WHOLE[0]),
    ("target_logits", TypeError, r"target_logits is a MaskedTensor",
     masked_tensor(TARGET, TARGET == 0)),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
@pytest.mark.parametrize(("argument", "error", "message", "value"), CASES)
def test_what_is_refused(argument, error, message, value):
    given = {"target_logits": TARGET, "draft_tokens": TOKENS, "draft_logits": DRAFT, "seed": 1}
    with pytest.raises(error, match=message):
        rskernels.speculative_sample(**{**given, argument: value})


def test_a_seed_and_a_generator_are_refused():
    with pytest.raises(ValueError, match="at most one"):
        rskernels.speculative_sample(TARGET, TOKENS, seed=1, generator=torch.Generator())


def test_tokens_behind_the_lengths_are_not_looked_at():
    tokens = torch.tensor([[1, -1, 99], [-7, -1, -1]])
    target = torch.randn(R, K + 1, V)
    broken = target.clone()
    broken[0, 2:], broken[1, 1:] = math.nan, math.inf
    lengths = torch.tensor([1, 0])
    seen = rskernels.speculative_sample(target, tokens, lengths=lengths, seed=1)
    again = rskernels.speculative_sample(broken, tokens.clamp(0, 4), lengths=lengths, seed=1)
    assert same_bits(seen, again)
    assert seen.counts[1:].tolist() == [1, 0]


def test_values_of_other_kinds_are_the_same():
    target, draft = torch.randn(R, K + 1, V), torch.randn(R, K, V)
    given = (target, TOKENS, draft)
    one = rskernels.speculative_sample(*given, temperature=2, top_k=3, top_p=0.5, seed=7)
    same = {
        "temperature": torch.tensor([2.0, 2.0]).half(),
        "top_k": torch.tensor([3, 3], dtype=torch.int32),
        "top_p": torch.tensor([0.5, 0.5]),
        "seed": torch.tensor(7),
        "row_offset": torch.tensor([0, 1]),
    }
    assert same_bits(rskernels.speculative_sample(*given, **same), one)
    none = rskernels.speculative_sample(*given, top_k=0, top_p=1.0, seed=7)
    assert same_bits(rskernels.speculative_sample(*given, seed=7), none)
    own_seeds = {"seed": torch.tensor([7, 7]), "row_offset": 5}
    both = rskernels.speculative_sample(target[:1].expand(R, -1, -1), TOKENS, **own_seeds)
    assert torch.equal(both.tokens[0], both.tokens[1])


def test_a_draft_that_is_processed():
    """The laws agree, so that all is accepted, however the draft came to its own."""
    target = 3 * torch.randn(R, K + 1, V, generator=torch.Generator().manual_seed(2))
    law = {"temperature": 0.5, "top_k": 2}
    kept = target >= target.topk(2).values[..., -1:]
    draft = torch.where(kept, target / 0.5, -torch.inf)[:, :K]
    tokens = draft.argmax(-1)
    seen = rskernels.speculative_sample(
        target, tokens, draft, draft_is_processed=True, seed=1, **law
    )
    assert seen.accepted.tolist() == [K] * R


def test_a_vocabulary_over_ranks_is_refused():
    z = rskernels.LinearLogits(torch.zeros(R, K + 1, 4), torch.zeros(V, 4))
    object.__setattr__(z, "group", object())
    with pytest.raises(ValueError, match="vocabulary over ranks"):
        rskernels.speculative_sample(z, TOKENS)


def test_hidden_states_of_draft_tokens_out_of_range():
    z = rskernels.LinearLogits(torch.zeros(R, K + 1, 4), torch.zeros(V, 4))
    with pytest.raises(IndexError, match=r"got 5 at place 0 of request 0"):
        rskernels.speculative_sample(z, TOKENS + 5, seed=1)
    with pytest.raises(ValueError, match=r"lengths must be in \[0, 3\], got -1 for request 0"):
        rskernels.speculative_sample(z, TOKENS, lengths=WHOLE - 1, seed=1)
