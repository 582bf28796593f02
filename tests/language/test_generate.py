"""Answers: their law, by whom they are named, and that nothing else changes them."""

import pytest
import torch
from scipy.stats import chi2

from rskernels.language import generate as module
from rskernels.language.choose import answer_ids
from rskernels.language.generate import draw, generate
from rskernels.rsft.errors import TrainingError

from . import tiny

PROMPTS = [[3, 4], [5, 6, 7, 8, 9], [10], [11, 12, 13]]
LEAST = 5e-8  # of the p-value: a test that is right fails once in 20 million runs
SAMPLES, TEMPERATURE = 2500, 0.7


def answers(policy, prompts, ids, **more):
    usual = {"seed": 3, "temperature": TEMPERATURE, "max_new_tokens": 8}
    return generate(policy, prompts, ids, **{**usual, **more})


def ids_of(places, samples, number=1):
    return answer_ids("train", number, torch.tensor(places)[:, None], torch.tensor(samples))


def law_of(policy, tokens):
    """Return the law of the next token."""
    logits = policy.causal(input_ids=torch.tensor([tokens])).logits[0, -1]
    return (logits.double() / TEMPERATURE).softmax(-1).detach()


def p_value(counts, law):
    expected = law * counts.sum()
    few = expected < 5  # lumped together, as the test needs it
    counts, expected = (
        torch.cat([of[~few], of[few].sum()[None]]).double() for of in (counts, expected)
    )
    kept = expected > 0
    statistic = ((counts - expected)[kept].square() / expected[kept]).sum()
    return float(chi2.sf(float(statistic), int(kept.sum()) - 1))


def p_values():
    """Return those of first tokens, and of second ones after the first that came most."""
    policy = tiny.policy(torch.float64, initializer_range=0.3)
    ids = ids_of([0, 1], range(SAMPLES))
    made = answers(policy, PROMPTS[:2], ids, max_new_tokens=2)
    values = []
    for place, prompt in enumerate(PROMPTS[:2]):
        own = made[place * SAMPLES : (place + 1) * SAMPLES]
        first = torch.tensor([answer.tokens[0] for answer in own])
        counts = first.bincount(minlength=tiny.V)
        values.append(p_value(counts, law_of(policy, prompt)))
        counts[list(policy.ends)] = 0
        most = int(counts.argmax())
        second = torch.tensor([a.tokens[1] for a in own if a.tokens[0] == most])
        values.append(p_value(second.bincount(minlength=tiny.V), law_of(policy, [*prompt, most])))
    return values


def test_tokens_have_the_law_of_the_model():
    assert min(p_values()) > LEAST


def colder(logits, u, temperature):
    return draw(logits, u, 0.6 * temperature)


def of_the_next(logits, u, temperature):
    token, log_prob = draw(logits, u, temperature)
    return (token + 1) % logits.shape[-1], log_prob


def unnormalised(logits, u, temperature):
    return draw(logits, u * 0.9, temperature)


def by_the_first_place(rows, columns, seed, stream):
    return uniforms(rows, columns * 0, seed, stream)


uniforms = module.row_uniforms_64


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("draw", colder),
        ("draw", of_the_next),
        ("draw", unnormalised),
        ("row_uniforms_64", by_the_first_place),
    ],
)
def test_a_fault_in_the_draws_is_caught(monkeypatch, name, fault):
    monkeypatch.setattr(module, name, fault)
    assert min(p_values()) < LEAST


def test_an_answer_depends_on_its_id_alone():
    policy, places = tiny.policy(torch.float64), [0, 1, 2, 3]
    together = answers(policy, PROMPTS, ids_of(places, range(6)))
    alone = [
        answer
        for place in places
        for samples in (range(4), range(4, 6))
        for answer in answers(policy, [PROMPTS[place]], ids_of([place], samples))
    ]
    assert [a.tokens for a in alone] == [a.tokens for a in together]
    assert len({tuple(a.tokens) for a in together}) > 20
    assert len({len(a.tokens) for a in together}) > 3  # rows left the batch at different times
    for other in ({"seed": 4}, {"ids": ids_of(places, range(6), number=2)}):
        given = {"ids": ids_of(places, range(6)), **other}
        assert [a.tokens for a in answers(policy, PROMPTS, **given)] != [a.tokens for a in together]


def test_log_probabilities_are_those_of_the_tokens():
    policy = tiny.policy(torch.float64)
    for answer, prompt in zip(
        answers(policy, PROMPTS, ids_of([0, 1, 2, 3], [0]), temperature=1.0), PROMPTS, strict=True
    ):
        text = prompt + answer.tokens
        logits = policy.causal(input_ids=torch.tensor([text])).logits[0].log_softmax(-1)
        at = torch.arange(len(prompt) - 1, len(text) - 1)
        want = logits[at, torch.tensor(answer.tokens)].sum()
        assert answer.log_prob == pytest.approx(want.item(), rel=1e-9)
        assert answer.ended == (answer.tokens[-1] in policy.ends)
        assert answer.ended or len(answer.tokens) == 8
        assert not set(answer.tokens[:-1]) & set(policy.ends)


def test_the_most_likely_answers_are_those_of_transformers():
    policy = tiny.policy(torch.float64, initializer_range=0.2)
    made = answers(policy, PROMPTS, None, max_new_tokens=12)
    for answer, prompt in zip(made, PROMPTS, strict=True):
        ids = torch.tensor([prompt])
        want = policy.causal.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )
        assert answer.tokens == want[0, len(prompt) :].tolist()
    assert len({tuple(answer.tokens) for answer in made}) > 1


def test_a_draw_never_takes_what_has_no_probability():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]]).expand(4, -1)
    tokens, log_probs = draw(
        logits, torch.tensor([2.0**-65, 0.26, 0.27, 1.0], dtype=torch.float64), 1.0
    )
    assert tokens.tolist() == [1, 1, 3, 3]
    torch.testing.assert_close(log_probs[[1, 2]].exp().sum(), torch.tensor(1.0).double())


@pytest.mark.parametrize("row", [[0.0, torch.nan], [0.0, torch.inf], [-torch.inf, -torch.inf]])
def test_logits_without_a_law_are_refused(row):
    with pytest.raises(TrainingError, match="NaN or infinite"):
        draw(torch.tensor([[0.0, 1.0], row]), torch.tensor([0.5, 0.5]).double(), 1.0)


def test_ids_of_answers_differ():
    at = torch.arange(3)
    ids = torch.cat(
        [
            answer_ids(kind, number, at[:, None], at).flatten()
            for kind in ("train", "test", "prompt")
            for number in (0, 1, (1 << 14) - 1)
        ]
        + [answer_ids("train", 0, torch.tensor([(1 << 27) - 1]), torch.tensor([(1 << 20) - 1]))]
    )
    assert len(ids.unique()) == len(ids) == 82
    assert int(ids.min()) == 0
