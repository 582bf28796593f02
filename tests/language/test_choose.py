"""Every form by its name: it is what `rskernels.select` does, whatever the order of the rows."""

import pytest
import torch

from rskernels import select
from rskernels.envelope import Envelope
from rskernels.language.choose import Scored, answer_ids, choose, same_answers
from rskernels.language.config import FORMS, PILOTED, LanguageConfig

PROMPTS, K = 20, 16


def scored(first, count, seed):
    draws = torch.Generator().manual_seed(seed)
    groups = torch.arange(PROMPTS).repeat_interleave(count)
    samples = torch.arange(first, first + count).repeat(PROMPTS)
    rewards = torch.randint(2, (PROMPTS * count,), generator=draws).double()
    answers = torch.randint(9, (PROMPTS * count,), generator=draws)
    return Scored(rewards, groups, answer_ids("train", 1, groups, samples), answers)


ROWS, PILOT = scored(0, K, 0), scored(K, 8, 1)


def chosen(form, rows, seed=0):
    config = LanguageConfig(form=form, samples=K, seed=seed, num=3 if form == "rso" else None)
    envelope = None
    if config.envelope is not None:
        envelope = Envelope.parse(config.envelope, groups=PROMPTS)
        envelope.update(PILOT.rewards / config.beta, PILOT.groups)
    return choose(config, rows, PILOT if form in PILOTED else None, envelope)


@pytest.mark.parametrize("form", FORMS)
def test_order_changes_nothing_and_the_seed_what_is_drawn(form):
    kept = chosen(form, ROWS)
    assert int(kept.mask.sum()) > 0
    order = torch.randperm(len(ROWS.rewards), generator=torch.Generator().manual_seed(2))
    if form == "rso":  # which depends on the order within a prompt, as published
        order = torch.arange(len(order)).view(PROMPTS, K).flip(0).flatten()
    again = chosen(form, Scored(*(part[order] for part in ROWS)))
    assert torch.equal(again.mask, kept.mask[order])
    torch.testing.assert_close(again.log_weights, kept.log_weights[order])
    is_drawn = form not in ("rft", "raft", "top_k", "threshold", "weights", "all")
    assert torch.equal(chosen(form, ROWS, seed=1).mask, kept.mask) != is_drawn


def test_forms_are_those_of_select():
    rewards, named = ROWS.rewards, {"groups": ROWS.groups, "ids": ROWS.ids}
    want = {
        "rft": rewards == 1.0,
        "all": torch.ones_like(ROWS.groups, dtype=torch.bool),
        "threshold": rewards >= 1.0,
        "verifier": select.tilt(rewards, 0.2, form="verifier", seed=0, **named).mask,
        "bounded": select.tilt(rewards, 0.2, form="bounded", bound=1.0, seed=0, **named).mask,
        "raft": select.top_k(rewards, 1, **named).mask,
        "rso": select.rso(rewards, 0.2, num=3, answers=ROWS.answers, seed=0, **named).mask,
    }
    for form, mask in want.items():
        assert torch.equal(chosen(form, ROWS).mask, mask), form
    kept = chosen("learnt", ROWS)
    assert kept.M_is == "learnt"
    assert int(kept.overall["unknown"]) == 0


def test_equal_answers_to_a_prompt_have_one_number():
    numbers = same_answers([0, 0, 0, 1], [[5, 6], [5, 6], [5], [5, 6]])
    assert numbers.tolist() == [0, 0, 1, 2]
