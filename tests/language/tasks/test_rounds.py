"""Rounds of the demo's model: it learns from its own right answers."""

import pytest

from rskernels.experiments.own_answers import run_own_answers


@pytest.mark.slow
def test_the_demos_model_learns_from_its_own_right_answers(tmp_path):
    records = run_own_answers(tmp_path, seed=0, rounds=3, say=print)
    assert 0.2 < records[0]["pass_at_1"] < 0.6
    assert records[-1]["pass_at_1"] >= 0.9
    assert records[-1]["distinct_right"] > records[0]["distinct_right"]
