"""Texts by speculative steps, and the laws that they must follow.

Target and draft are chains: a token's law is a row of V logits for each token before it. A text
starts behind token 0 and takes steps until it is long enough.
"""

from typing import NamedTuple

import torch
from scipy import stats

from rskernels.kernels.reference.speculative import processed
from rskernels.law.speculation import Speculation

from ...support.backends import backend_of
from ..intervals import CHANCE, assert_inside, binomial

V = 16
LENGTH = 3
LEAST = 5.0  # expected in a cell; smaller ones are counted together


class Case(NamedTuple):
    """Logits [V, V] of target and draft, and the settings of the steps."""

    target: torch.Tensor
    draft: torch.Tensor
    settings: dict[str, object]
    is_certain: bool = False
    """Whether the step is not told what the draft was drawn from."""
    groups: int = 1
    """Requests have as many settings in turns."""


def logits_of(seed, spread=1.5, size=V):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(size, size, generator=generator)


def _near(target, seed, spread=0.8):
    return target + logits_of(seed, spread, len(target))


def _without_support():
    target, draft = logits_of(1), logits_of(2)
    draft[:, 3:9] = -torch.inf
    target[:, 7:12] = -torch.inf
    return Case(target, draft, {})


TARGET = logits_of(1)
DRAFT = _near(TARGET, 2)
TEMPERATURES = torch.tensor([0.5, 1.0, 1.7], dtype=torch.float64)
CASES = {
    "the same": Case(TARGET, TARGET, {}),
    "near": Case(TARGET, DRAFT, {}),
    "far": Case(TARGET, logits_of(3, 2.0), {}),
    "without support": _without_support(),
    "certain": Case(TARGET, DRAFT, {}, is_certain=True),
    "temperatures": Case(TARGET, DRAFT, {"temperature": TEMPERATURES}, groups=3),
    "top-k": Case(TARGET, DRAFT, {"top_k": 5, "temperature": 1.3}),
    "top-p": Case(TARGET, DRAFT, {"top_p": 0.8}),
    "top-k and top-p": Case(TARGET, DRAFT, {"top_k": 7, "top_p": 0.9, "temperature": 0.8}),
}


class Texts(NamedTuple):
    """N texts, and what their first step accepted."""

    tokens: torch.Tensor  # [N, LENGTH]
    accepted: torch.Tensor  # [N]


def laws_of(case, logits):
    """Return the laws of each group, [groups, V, V]."""
    settings = {
        name: value[:, None].expand(-1, len(logits)).flatten()
        if isinstance(value, torch.Tensor)
        else value
        for name, value in case.settings.items()
    }
    rows = logits.repeat(case.groups, 1)[:, None]
    p, bad = processed(rows, Speculation(**settings))
    assert not bad.any()
    return p[:, 0].view(case.groups, *logits.shape)


def write(subject, case, K, N, seed, **law):
    """Return N texts, each by steps of K draft tokens."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(N) % case.groups
    q = laws_of(case, case.draft)
    settings = {
        name: value[group] if isinstance(value, torch.Tensor) else value
        for name, value in case.settings.items()
    }
    texts = torch.zeros(N, LENGTH + K + 1, dtype=torch.int64)  # its first token is the context
    lengths, accepted = torch.zeros(N, dtype=torch.int64), None
    row = torch.arange(N)
    for step in range(LENGTH):
        context = [texts[row, lengths]]
        for _ in range(K):
            context.append(q[group, context[-1]].multinomial(1, generator=generator)[:, 0])
        context = torch.stack(context, -1)
        seen = subject.speculate(
            case.target[context], context[:, 1:], None if case.is_certain else
            case.draft[context[:, :-1]], seed=seed, row_offset=step * N, **settings, **law,
        )  # fmt: skip
        assert seen.counts.tolist() == [int(seen.accepted.sum()), N * K, 0]
        accepted = seen.accepted if accepted is None else accepted
        for place in range(K + 1):
            is_new = (place <= seen.accepted) & (lengths < LENGTH)
            lengths = lengths + is_new
            at = torch.where(is_new, lengths, LENGTH + K)
            texts[row, at] = torch.where(is_new, seen.tokens[:, place], 0)
    assert (lengths == LENGTH).all()
    return Texts(texts[:, 1 : LENGTH + 1], accepted)


def chi_squared(name, counts, expected, tests):
    """Fail where counts do not follow the expected ones; cells that are not expected are empty."""
    assert not counts[expected == 0].any(), f"speculative {name}: a token of probability 0"
    small = expected < LEAST
    counts = torch.cat([counts[~small], counts[small].sum()[None]]).double()
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    kept = expected > 0
    statistic = ((counts - expected) ** 2 / expected)[kept].sum().item()
    most = stats.chi2.isf(CHANCE / tests, max(1, int(kept.sum()) - 1))
    assert statistic <= most, f"speculative {name}: chi-squared {statistic:.1f} is above {most:.1f}"


def length_law(p, q, is_certain, K):
    """Return the law [K + 1] of how many tokens are accepted one by one."""
    step = p * q if is_certain else torch.minimum(p, q)
    reached, at_least = torch.zeros(len(p), dtype=torch.float64), [1.0]
    reached[0] = 1.0
    for _ in range(K):
        reached = reached @ step
        at_least.append(float(reached.sum()))
    at_least.append(0.0)
    return -torch.tensor(at_least, dtype=torch.float64).diff()


def check_texts(subject, seed, case, K, N, **law):
    """Check tokens, pairs, triples and accepted lengths of texts against the target's law."""
    texts = write(subject, case, K, N, seed, **law)
    p, q = laws_of(case, case.target), laws_of(case, case.draft)
    size, tests = len(case.target), 4 * case.groups
    for group in range(case.groups):
        tokens = texts.tokens[group :: case.groups]
        n, p_here = len(tokens), p[group]
        law_of_text, index = p_here[0], tokens[:, 0]
        chi_squared("first token", index.bincount(minlength=size), n * law_of_text, tests)
        for name, place in (("pair", 1), ("triple", 2)):
            law_of_text = (law_of_text.view(-1, size)[:, :, None] * p_here).flatten()
            index = index * size + tokens[:, place]
            counts = index.bincount(minlength=len(law_of_text))
            chi_squared(name, counts, n * law_of_text, tests)
        accepted = texts.accepted[group :: case.groups]
        lengths = length_law(p_here, q[group], case.is_certain, K)
        first = int((accepted > 0).sum())
        interval = binomial(n, float(1 - lengths[0]), tests)
        if not law.get("is_block"):
            assert_inside("speculative acceptance is 1 - TV", first, interval)
            counts = accepted.bincount(minlength=K + 1)
            chi_squared("accepted length", counts, n * lengths, tests)
        elif K == 1:
            # Of one token, both methods are the same.
            assert_inside("speculative acceptance is 1 - TV", first, interval)
        else:
            check_longer(accepted.double(), lengths)


def check_longer(accepted, lengths):
    """Check that a block accepts no fewer tokens than one by one are, to five sigma."""
    expected = float((lengths * torch.arange(len(lengths))).sum())
    room = 5 * float(accepted.std()) / len(accepted) ** 0.5
    assert float(accepted.mean()) >= expected - room, "speculative block accepts fewer"


def check_definition(subject, seed, case, K, N, **law):
    """Check texts against those of the definition, which has the same uniforms."""
    seen = write(subject, case, K, N, seed, **law)
    want = write(backend_of("reference"), case, K, N, seed, **law)
    for mine, theirs in zip(seen, want, strict=True):
        assert torch.equal(mine, theirs), "speculative tokens are not the definition's"
