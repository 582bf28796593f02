"""Speculative steps write texts that follow the target's law, whatever the draft."""

import itertools

import pytest
import torch

from ..conftest import KINDS
from .steps import (
    CASES,
    DRAFT,
    TARGET,
    Case,
    V,
    check_definition,
    check_texts,
    chi_squared,
    laws_of,
    length_law,
    logits_of,
    write,
)

FULL, REFERENCE, INTERPRETED, FEW = 1 << 15, 1 << 13, 1 << 12, 1 << 6
METHODS = ("token", "block")
DRAFT_TOKENS = (1, 2, 3, 4)
OTHER_KINDS = [kind for kind in KINDS if "interpreted" not in getattr(kind, "values", ())]
# Of interpreted Triton an ordinary run has each case, and each number of draft tokens twice.
ORDINARY = [(name, 1 + at % 4, "token") for at, name in enumerate(CASES)] + [("near", 3, "block")]
EVERY = list(itertools.product(CASES, DRAFT_TOKENS, METHODS))


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("K", DRAFT_TOKENS)
@pytest.mark.parametrize("name", CASES)
def test_texts_follow_the_target(subject, size, seed, name, K, method):
    N = size(FULL, reference=REFERENCE, interpreted=INTERPRETED)
    check_texts(subject, seed, CASES[name], K, N, is_block=method == "block")


@pytest.mark.parametrize("kind", ["interpreted"])
@pytest.mark.triton
@pytest.mark.parametrize(
    ("name", "K", "method", "N"),
    [
        *((*case, INTERPRETED // 4) for case in ORDINARY),
        *(pytest.param(*case, INTERPRETED, marks=pytest.mark.slow) for case in EVERY),
    ],
)
def test_interpreted_texts_follow_the_target(subject, seed, name, K, method, N):
    check_texts(subject, seed, CASES[name], K, N, is_block=method == "block")


@pytest.mark.triton
@pytest.mark.parametrize(
    ("name", "K", "method"),
    [
        ("near", 2, "token"),
        pytest.param("top-k and top-p", 3, "block", marks=pytest.mark.slow),
        *(
            pytest.param(name, 1 + at % 4, METHODS[at % 2], marks=pytest.mark.slow)
            for at, name in enumerate(CASES)
        ),
    ],
)
def test_interpreted_texts_are_those_of_the_definition(backend_of, seed, name, K, method):
    is_block = method == "block"
    check_definition(backend_of("gpu"), seed, CASES[name], K, FEW, is_block=is_block)


@pytest.mark.parametrize("kind", ["cpu"])
def test_a_block_accepts_more(subject, seed):
    case, K, N = CASES["near"], 4, FULL
    texts = write(subject, case, K, N, seed, is_block=True)
    lengths = length_law(laws_of(case, TARGET)[0], laws_of(case, DRAFT)[0], False, K)
    expected = float((lengths * torch.arange(K + 1)).sum())
    room = 5 * float(texts.accepted.double().std()) / N**0.5
    assert float(texts.accepted.double().mean()) > expected + room


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["reference", "cpu"])
def test_the_joint_law_of_three_tokens(subject, size, seed, method):
    case = Case(logits_of(7, 1.0, 3), logits_of(8, 1.0, 3), {})
    N = size(1 << 17, reference=1 << 14, interpreted=0)
    check_texts(subject, seed, case, 2, N, is_block=method == "block")


@pytest.mark.parametrize("kind", ["reference", "cpu"])
def test_a_draft_of_its_own_settings(subject, seed):
    """The draft is drawn at temperature 1, the target at another, cut to its top."""
    p = {"temperature": 0.6, "top_k": 6}
    case = Case(TARGET, DRAFT, p)
    q = DRAFT.double().softmax(-1)
    generator = torch.Generator().manual_seed(seed)
    N, K = FULL, 2
    context = [torch.zeros(N, dtype=torch.int64)]
    for _ in range(K):
        context.append(q[context[-1]].multinomial(1, generator=generator)[:, 0])
    context = torch.stack(context, -1)
    name = "draft_is_processed" if kind_is_public(subject) else "is_processed"
    seen = subject.speculate(
        TARGET[context], context[:, 1:], DRAFT[context[:, :-1]], seed=seed, **p, **{name: True}
    )
    law = laws_of(case, TARGET)[0, 0]
    counts = seen.tokens[:, 0].bincount(minlength=V)
    chi_squared("first token", counts, N * law, 1)


def kind_is_public(subject):
    return type(subject).__name__ == "Public"
