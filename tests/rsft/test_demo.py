import json

import numpy as np
import pytest

from rskernels.rsft.config import Config
from rskernels.rsft.demo import CASES, as_markdown, compare, mean_and_error, run_demo


def summary(accuracy):
    return {
        "balanced_accuracy": accuracy,
        "rarest_accuracy": 0.5,
        "gradient_samples": 100,
        "acceptance": 1.0,
        "skipped_steps": 0,
        "violations_share": 0.0,
        "delta": 0.0,
        "seconds": 1.0,
        "pool": [3, 2],
        "config": Config().__dict__,
    }


def test_gain_is_taken_seed_by_seed():
    runs = {"plain": [summary(0.5), summary(0.9)], "other": [summary(0.6), summary(1.0)]}
    headings, rows = compare(runs)
    assert headings[-1] == "gain on plain"
    assert rows[0][1] == "0.700 ± 0.200"
    assert rows[1][-1] == "+0.100 ± 0.000"
    assert as_markdown(runs).count("\n| ") == 3


def test_one_seed_has_no_spread():
    assert mean_and_error(np.array([0.5]), "{:.1f}".format) == "0.5"


def test_demo_runs_every_case_and_writes_the_comparison(tmp_path):
    base = Config(epochs=1, imbalance=5, test_fraction=0.8)
    (tmp_path / "demo.md").write_text("an earlier demo")
    runs = run_demo(base, tmp_path, seeds=1, progress=False)
    assert list(runs) == [
        "plain",
        "reweight",
        "importance",
        "accept, M max",
        "accept, M quantile:0.9",
    ]
    assert len(runs) == len(CASES)
    assert json.loads((tmp_path / "demo.json").read_text()) == runs
    assert "accept, M quantile:0.9" in (tmp_path / "demo.md").read_text()
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert {
        (r["config"]["method"], r["config"]["envelope"]) for rs in runs.values() for r in rs
    } == {tuple(case) for case in CASES}


def test_a_seed_that_is_refused_stops_the_demo_before_the_first_run(tmp_path):
    with pytest.raises(ValueError, match="accepted is 0 to"):
        run_demo(Config(epochs=1, seed=2**63 - 1), tmp_path, seeds=2, progress=False)
    assert not list(tmp_path.iterdir())
