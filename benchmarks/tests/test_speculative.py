"""The steps that are compared follow the same law, and the report says which bars are met."""

import pytest
import torch

from benchmarks.speculative import run, steps

V, R, ROUNDS = 40, 64, 20
ALLOWED = 5.0  # standard errors


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(steps, "V", V)


@pytest.mark.parametrize("name", steps.CASES)
def test_every_form_takes_the_same_step(small, name):
    case = {**steps.CASES[name], "top_k": 5} if "top_k" in steps.CASES[name] else steps.CASES[name]
    step = steps.draw(**case)
    calls = steps.calls(step)
    expected = _expected(step)
    torch.manual_seed(0)
    for form, accepted_of in (
        ("token", lambda seen: seen.accepted),
        ("eager", lambda seen: seen[1]),
        ("transformers", lambda seen: torch.stack([one[1] for one in seen])),
    ):
        if form not in calls:
            assert step.is_certain
            continue
        if form == "token":
            rounds = [_ours(step, seed) for seed in range(ROUNDS)]
        else:
            rounds = [accepted_of(calls[form]()) for _ in range(ROUNDS)]
        accepted = torch.stack(rounds).double()
        error = float(accepted.std()) / accepted.numel() ** 0.5
        assert abs(float(accepted.mean()) - expected) < ALLOWED * error, form
    tokens, accepted = steps.eager(step)
    assert ((tokens >= 0).sum(-1) == accepted + 1).all()


def _ours(step, seed):
    import rskernels

    draft = None if step.is_certain else step.draft
    return rskernels.speculative_sample(
        step.target, step.tokens, draft, seed=seed, **step.settings
    ).accepted


def _expected(step):
    """Return how many draft tokens are accepted on average, given those that were drawn."""
    p = steps.filtered(step.target, **step.settings).softmax(-1)[:, : steps.K]
    q = steps.filtered(step.draft, **step.settings).softmax(-1)
    p_of, q_of = (part.gather(-1, step.tokens[..., None])[..., 0] for part in (p, q))
    ratio = p_of if step.is_certain else (p_of / q_of).clamp(max=1.0)
    return float(ratio.double().cumprod(-1).sum(-1).mean())


def test_a_bar_that_is_missed_is_said():
    seconds = {"token": 1.0, "block": 2.0, "eager": 5.0, "transformers": 2.0}
    case = {"case": "near draft", "accepted": {"token": 3.0, "block": 3.1}, "seconds": seconds}
    record = {
        "machine": {}, "versions": {}, "command": "", "date": "", "seconds": 1, "cases": [case]
    }  # fmt: skip
    text = run.markdown(record)
    assert "× eager: 5, at least 4 required: met" in text
    assert "× transformers: 2, at least 3 required: **not met**" in text
