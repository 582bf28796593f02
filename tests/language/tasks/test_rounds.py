"""Rounds of small transformers that are made here: what they learn, and parity's closed form."""

import pytest
import torch

from rskernels.experiments.own_answers import run_own_answers
from rskernels.language.config import LanguageConfig
from rskernels.language.run import fine_tune
from rskernels.language.scratch import starting_policy
from rskernels.language.tasks import parity, task_of

ROUNDS = 4


def measured(policy, rows):
    """Return the mean probability of a long answer to prompts, by the model's own probabilities."""
    tokenizer = policy.tokenizer
    prompts = torch.tensor([policy.encode(row["prompt"], False) for row in rows])
    short = torch.zeros(len(rows), dtype=torch.float64)
    with torch.no_grad():
        for bit in tokenizer.convert_tokens_to_ids(["0", "1"]):
            ids = torch.cat([prompts, torch.full((len(rows), 1), bit)], 1)
            logits = policy.causal(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            laws = logits[:, -2:].double().log_softmax(-1)
            short += (laws[:, 0, bit] + laws[:, 1, tokenizer.eos_token_id]).exp()
    return (1.0 - short).mean().item()


@pytest.mark.slow
def test_a_transformer_has_the_share_of_the_closed_form_after_each_round(tmp_path):
    task = task_of("parity", 0, train=3500, test=500)
    policy = starting_policy("parity", task, seed=0)
    share = measured(policy, task.test)
    assert 0.05 < share < 0.15
    shares, kept = [], []
    for number in range(1, ROUNDS + 1):
        config = LanguageConfig(
            seed=number, form="verifier", beta=0.0, rounds=1, samples=3, epochs=2, lr=1e-3,
            schedule="linear", batch_size=128, micro_batch=128, max_new_tokens=parity.BITS + 1,
            rows_at_once=4096, eval_samples=1, device="cpu",
        )  # fmt: skip
        summary = fine_tune(
            config, tmp_path / str(number), task=task, policy=policy, progress=False
        )
        shares.append(measured(policy, task.test))
        kept.append(summary["accepted"])
    errors = parity.errors_after(share, kept)
    told = [
        f"{seen:.4f} for {parity.share_after(share, at):.4f} ± {error:.4f}"
        for at, (seen, error) in enumerate(zip(shares, errors, strict=True), 1)
    ]
    print(share, kept, told)
    for number, (seen, error) in enumerate(zip(shares, errors, strict=True), 1):
        assert abs(seen - parity.share_after(share, number)) < 3 * error, told


@pytest.mark.slow
def test_the_demos_model_learns_from_its_own_right_answers(tmp_path):
    records = run_own_answers(tmp_path, seed=0, rounds=3, say=print)
    assert 0.2 < records[0]["pass_at_1"] < 0.6
    assert records[-1]["pass_at_1"] >= 0.9
