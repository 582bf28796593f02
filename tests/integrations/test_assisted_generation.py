"""Assisted generation of transformers with our verifier: its law, its seeds and what it refuses."""

import threading

import pytest
import torch

pytest.importorskip("transformers", reason="the extra hf is not installed")

from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation import utils

from rskernels.integrations import assisted_generation
from rskernels.integrations.assisted_generation import speculative_verifier

ORIGINAL = utils._speculative_sampling
V = 8


def language_model(seed, V=V):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=V, **sizes, **heads)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4.0)  # laws that differ from uniform, and between models
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(scope="module")
def models():
    return language_model(0), language_model(1)


PROMPT = torch.tensor([[1, 5, 2]])


def generate(models, seed, method="token", **more):
    target, draft = models
    torch.manual_seed(seed)  # of what the draft proposes
    given = {"do_sample": True, "max_new_tokens": 12, "top_k": None, "top_p": None, **more}
    with speculative_verifier(seed, method=method) as verified:
        ids = target.generate(PROMPT, assistant_model=draft, **given)
    return ids[0, PROMPT.shape[1] :], verified


@pytest.mark.parametrize("method", ["token", "block"])
def test_a_seed_gives_the_same_text_and_others_give_others(models, method):
    first, verified = generate(models, 3, method)
    again, _ = generate(models, 3, method)
    assert torch.equal(first, again)
    assert len({tuple(generate(models, seed, method)[0].tolist()) for seed in range(4)}) > 1
    assert 0 <= verified.accepted <= verified.given
    assert verified.given > 0


def test_a_draft_that_is_the_target_is_accepted_whole(models):
    target, _ = models
    _, verified = generate((target, target), 0)
    assert verified.accepted == verified.given > 0


def test_steps_follow_the_law_of_the_target():
    """The two first tokens of many steps are as drawn from the target one after the other."""
    draws = torch.Generator().manual_seed(1)
    p_logits = torch.randn(1, 2, 4, generator=draws) * 1.5
    q_logits = torch.randn(1, 1, 4, generator=draws) * 1.5
    p, q = p_logits[0].softmax(-1).double(), q_logits[0, 0].softmax(-1)
    steps = 4000
    drafts = torch.multinomial(q, steps, replacement=True, generator=draws)
    counts = torch.zeros(4, 4, dtype=torch.float64)
    alone = torch.zeros(4, dtype=torch.float64)
    for seed, token in enumerate(drafts.tolist()):
        ids = torch.tensor([[0, 0, token]])
        with speculative_verifier(seed):
            tokens, accepted = utils._speculative_sampling(ids, q_logits, 1, p_logits)
        assert tokens.shape == (1, int(accepted) + 1)
        if accepted:
            counts[tokens[0, 0], tokens[0, 1]] += 1
        else:
            alone[tokens[0, 0]] += 1
    first = counts.sum(1) + alone
    assert chisquare(first, steps * p[0] / p[0].sum()).pvalue > 1e-6
    after = counts.sum(0)
    assert chisquare(after, after.sum() * p[1] / p[1].sum()).pvalue > 1e-6
    rate = torch.minimum(p[0], q.double()).sum()  # 1 - TV
    assert abs(counts.sum() / steps - rate) < 5 * (rate * (1 - rate) / steps).sqrt()


def test_the_function_is_given_back_and_other_threads_keep_theirs(models):
    seen = []

    def other():
        ids, q = torch.tensor([[0, 0, 1]]), torch.zeros(1, 1, 4)
        torch.manual_seed(0)
        with pytest.warns(RuntimeWarning, match="has not entered speculative_verifier"):
            seen.append(utils._speculative_sampling(ids, q, 1, torch.zeros(1, 2, 4)))

    with speculative_verifier(0) as outer:
        with speculative_verifier(1):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert utils._speculative_sampling is not ORIGINAL
        assert outer.given == 0
    assert utils._speculative_sampling is ORIGINAL
    torch.manual_seed(0)
    ids, q = torch.tensor([[0, 0, 1]]), torch.zeros(1, 1, 4)
    assert len(seen) == 1  # it was warned
    assert torch.equal(seen[0][0], ORIGINAL(ids, q, 1, torch.zeros(1, 2, 4))[0])


def test_another_law_or_none_is_refused(models):
    with pytest.raises(ValueError, match=r"got assistant_ensemble_weight=0\.5"):
        generate(models, 0, assistant_ensemble_weight=0.5)
    with pytest.raises(ValueError, match='method must be "token" or "block", got'):
        generate(models, 0, "tree")
    assert utils._speculative_sampling is ORIGINAL
    nan = torch.full((1, 2, 4), torch.nan)
    with (
        speculative_verifier(0) as verified,
        pytest.raises(ValueError, match="no token can be drawn at place 2"),
    ):
        verified.verify(torch.tensor([[0, 0, 1]]), torch.zeros(1, 1, 4), 1, nan)


def test_generations_in_one_context_draw_apart():
    """Drafts of p/q = 1/2 after prompts of one length are not all accepted, or all rejected."""
    ids, q = torch.tensor([[0, 0, 0]]), torch.zeros(1, 1, 4)
    q[0, 0, 0] = 2.0
    p = torch.zeros(1, 2, 4)
    with speculative_verifier(7) as verified:
        for _ in range(400):
            utils._speculative_sampling(ids, q, 1, p)
    rate = (0.25 / q[0, 0].softmax(-1)[0]).item()
    assert abs(verified.accepted / 400 - rate) < 5 * (rate * (1 - rate) / 400) ** 0.5


def test_a_generation_begins_where_a_text_is_not_longer(monkeypatch):
    offsets, step = [], assisted_generation.speculative_sample

    def noted(*args, row_offset, **law):
        offsets.append(row_offset)
        return step(*args, row_offset=row_offset, **law)

    monkeypatch.setattr(assisted_generation, "speculative_sample", noted)
    with speculative_verifier(7) as verified:
        for length in (3, 5, 3, 4, 4, 9):
            ids = torch.zeros(1, length + 1, dtype=torch.int64)
            verified.verify(ids, torch.zeros(1, 1, 4), 1, torch.zeros(1, 2, 4))
    generations = [offset >> 32 for offset in offsets]
    assert generations == [0, 0, 1, 1, 2, 2]
    assert [offset % (1 << 32) for offset in offsets] == [3, 5, 3, 4, 4, 9]


def test_what_others_put_in_the_place_stays(monkeypatch):
    monkeypatch.setattr(utils, "_speculative_sampling", ORIGINAL)
    with speculative_verifier(0):
        inner = utils._speculative_sampling
        utils._speculative_sampling = lambda *given: inner(*given)
        theirs = utils._speculative_sampling
    assert utils._speculative_sampling is theirs
    ids, q, p = torch.tensor([[0, 0, 1]]), torch.zeros(1, 1, 4), torch.zeros(1, 2, 4)
    with speculative_verifier(0) as verified:
        utils._speculative_sampling(ids, q, 1, p)
    assert verified.given == 1
    assert utils._speculative_sampling is theirs
    theirs(ids, q, 1, p)
    assert verified.given == 1
