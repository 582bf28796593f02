"""The families of runs beside the gradient loop's rules, from configuration to files."""

import json
import math

import pytest
import torch

from rskernels import RejectionError
from rskernels.experiments.bundled import load_wine
from rskernels.experiments.config import METHODS, GradientConfig, SampleConfig, TuneConfig
from rskernels.experiments.families import run
from rskernels.experiments.networks import SoftmaxRegression
from rskernels.experiments.sample import Mean
from rskernels.experiments.train import make_task
from rskernels.experiments.tune import class_mixture
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.data.resample import RESAMPLERS
from rskernels.rsft.errors import CheckpointError, DataError
from rskernels.rsft.rules import RULES

WINE = {"data": "wine", "imbalance": 3.0}
CHAIN = {**WINE, "steps": 300, "chains": 4}
INDEPENDENT = {**WINE, "form": "independent", "tau": 1.0, "steps": 50}
TUNED = {**WINE, "draws": 100, "rounds": 1}
PROPOSAL = {"method": "proposal", "epochs": 2, "pretrain_epochs": 1, "test_fraction": 0.8}
TRANSFER = {**PROPOSAL, "method": "transfer"}
CASES = {
    "chain": (SampleConfig, CHAIN),
    "independent": (SampleConfig, INDEPENDENT),
    "tuned": (TuneConfig, TUNED),
    "coupling": (TuneConfig, {**TUNED, "proposal": "coupling"}),
    "proposal": (GradientConfig, PROPOSAL),
    "transfer": (GradientConfig, TRANSFER),
}


def make_config(case, **changes):
    family, options = CASES[case]
    return family(**{**options, **changes})


def quick(out, case, **changes):
    return run(make_config(case, **changes), out, progress=False)


def timeless(value):
    """Return a summary or records without what a clock told."""
    if isinstance(value, list):
        return [timeless(each) for each in value]
    if isinstance(value, dict):
        clocks = ("seconds", "draws_per_second", "draws_per_second_start")
        return {k: timeless(v) for k, v in value.items() if k not in clocks}
    return value


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_task_and_a_rule(method):
    config = GradientConfig(**{**CASES.get(method, ("", {}))[1], "method": method})
    generator = torch.Generator().manual_seed(0)
    task = make_task(config, generator)
    rows = task.order(0, generator)[0]
    classes = task.pool.labels[rows].bincount(minlength=10)
    if method in RESAMPLERS:
        assert 0 < classes.max() < 3 * classes.min()  # of the pool it is 20 times
    elif method == "proposal":
        assert 1 < len(rows.unique()) < len(task.pool.labels)
    else:
        assert rows.sort()[0].equal(torch.arange(len(task.pool.labels)))
    assert config.rule is RULES[method if method in RULES else "plain"]
    assert task.log_density.shape == task.pool.labels.shape


# That the couplings are reproduced shows in their resumption below.
@pytest.mark.parametrize("case", [case for case in CASES if case != "coupling"])
def test_a_run_is_written_and_reproduced_by_its_seed(tmp_path, case, figures):
    threads = torch.get_num_threads()
    first = quick(tmp_path / "a", case)
    torch.rand(3)  # the global generator must not matter
    state = torch.get_rng_state()
    second = quick(tmp_path / "b", case)
    assert torch.equal(torch.get_rng_state(), state)
    assert timeless(first) == timeless(second)
    assert timeless(quick(tmp_path / "c", case, seed=1)) != timeless(first)
    assert json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8")) == first
    lines = [
        [
            json.loads(line)
            for line in (tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in "ab"
    ]
    assert timeless(lines[0]) == timeless(lines[1]) != []
    assert (tmp_path / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert torch.get_num_threads() == threads


def test_a_chain_tells_whether_it_has_converged(tmp_path):
    summary = quick(tmp_path, "chain")
    assert summary["gradient_samples"] == 0
    assert summary["parameters"] == 42
    assert summary["r_hat"] > 1
    assert 0 < summary["ess"] < 4 * 150
    assert summary["acceptance"] == pytest.approx(0.3, abs=0.1)
    samples = checkpoint.read(tmp_path / "samples.pt")["samples"]
    assert samples.shape[1] == 42


def test_drawn_parameters_predict(tmp_path):
    long = quick(tmp_path / "chain", "chain", steps=1500)
    assert long["balanced_accuracy"] > 0.8
    assert quick(tmp_path / "independent", "independent")["balanced_accuracy"] > 0.6


def test_the_mean_is_of_the_probabilities():
    wine = load_wine()
    model = SoftmaxRegression(3, 13)
    draws = torch.randn(5, 42, generator=torch.Generator().manual_seed(0)) / 100
    weights, biases = draws[:, :39].view(5, 3, 13), draws[:, 39:]
    logits = wine.inputs @ weights.mT + biases[:, None]
    torch.testing.assert_close(
        Mean(model, draws)(wine.inputs).exp(), logits.softmax(-1).mean(dim=0)
    )


def test_a_tuned_proposal_is_told_of_from_start_to_end(tmp_path):
    summary = quick(tmp_path, "tuned", rounds=2)
    assert summary["gain"] == summary["acceptance"] / summary["acceptance_start"] > 1
    assert summary["log_M"] < summary["log_M_start"]
    assert summary["draws"] == 300
    assert summary["draws_per_second"] > 0
    lines = [
        json.loads(line)
        for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert lines[0]["cross_entropy"] is None
    assert checkpoint.read(tmp_path / "proposal.pt")["proposal"]


def test_the_mixture_has_the_moments_of_the_data():
    target = class_mixture(load_wine())
    assert target.event_shape == (5,)
    shares = target.mixture_distribution.probs.tolist()
    assert shares == pytest.approx([59 / 178, 71 / 178, 48 / 178])
    torch.testing.assert_close(target.mean, torch.zeros(5), atol=1e-4, rtol=0)
    # Between the classes and within: a share of the latter is shrunk towards 1.
    assert ((target.variance > 0.99) & (target.variance < 1.2)).all()


def test_drawing_that_accepts_nothing_is_said(tmp_path):
    with pytest.raises(RejectionError, match="acceptance rate"):
        quick(tmp_path, "independent", tau=1e-3)


@pytest.mark.parametrize("case", ["chain", "tuned"])
def test_an_earlier_run_is_replaced_only_when_told_to(tmp_path, case):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        run(make_config(case), tmp_path, resume=True)
    quick(tmp_path, case)
    with pytest.raises(FileExistsError, match="already holds a run"):
        quick(tmp_path, case)
    run(make_config(case), tmp_path, overwrite=True)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="imbalance=1000"):
        run(make_config(case, imbalance=1000.0), tmp_path, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


def test_more_chains_than_draws_are_kept(tmp_path):
    summary = quick(tmp_path, "chain", chains=101, steps=17)
    assert summary["r_hat"] > 1
    assert checkpoint.read(tmp_path / "samples.pt")["samples"].shape == (5 * 101, 42)


@pytest.mark.parametrize(
    ("case", "saves"),
    [("chain", 3), ("chain", 7), ("independent", 4), ("tuned", 2), ("coupling", 1)],
)
def test_resume_after_a_crash_is_bit_identical(tmp_path, monkeypatch, case, saves):
    """The crash comes between two checkpoints, after the chain's burn-in or before its end."""
    rounds = {"rounds": 2} if case == "tuned" else {}
    straight = quick(tmp_path / "straight", case, **rounds)
    save, saved = checkpoint.save, []

    def crash(path, state):
        if len(saved) == saves:
            raise KeyboardInterrupt
        saved.append(path)
        save(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", crash)
        with pytest.raises(KeyboardInterrupt):
            quick(tmp_path / "crashed", case, **rounds)
    assert not (tmp_path / "crashed" / "summary.json").exists()
    config = make_config(case, **rounds)
    resumed = run(config, tmp_path / "crashed", resume=True)
    assert timeless(resumed) == timeless(straight)
    assert_same_files(tmp_path / "straight", tmp_path / "crashed")
    # Once more from the last checkpoint: what was finished is there again.
    assert timeless(run(config, tmp_path / "crashed", resume=True)) == timeless(straight)
    assert_same_files(tmp_path / "straight", tmp_path / "crashed")


def test_a_proposal_is_tuned_further(tmp_path):
    straight = quick(tmp_path / "straight", "tuned", rounds=2)
    quick(tmp_path / "parts", "tuned")
    config = make_config("tuned", rounds=2)
    assert timeless(run(config, tmp_path / "parts", resume=True)) == timeless(straight)
    assert_same_files(tmp_path / "straight", tmp_path / "parts")
    with pytest.raises(CheckpointError, match="has tuned 2 rounds, more than rounds=1"):
        run(make_config("tuned"), tmp_path / "parts", resume=True)
    with pytest.raises(CheckpointError, match="draws was 100, is 300"):
        run(make_config("tuned", draws=300), tmp_path / "parts", resume=True)


def test_a_chain_of_other_length_is_not_resumed(tmp_path):
    quick(tmp_path, "chain")
    with pytest.raises(CheckpointError, match="steps was 300, is 700"):
        run(make_config("chain", steps=700), tmp_path, resume=True)


def assert_same_files(a, b):
    """Compare the metrics, and the tensors of what a run leaves behind, bit for bit."""
    lines = [(out / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for out in (a, b)]
    records = [[json.loads(line) for line in each] for each in lines]
    assert timeless(records[0]) == timeless(records[1]) != []
    name = "samples.pt" if (a / "samples.pt").exists() else "proposal.pt"
    first, second = (checkpoint.read(out / name) for out in (a, b))
    if name == "samples.pt":
        assert torch.equal(first["samples"], second["samples"])
    else:
        both = first["proposal"], second["proposal"]
        assert both[0].keys() == both[1].keys()
        assert all(torch.equal(both[0][key], both[1][key]) for key in both[0])


@pytest.mark.parametrize("case", ["proposal", "transfer"])
def test_a_resumed_shift_is_bit_identical(tmp_path, case):
    straight = quick(tmp_path / "straight", case)
    quick(tmp_path / "parts", case, epochs=1)
    resumed = run(make_config(case), tmp_path / "parts", resume=True, progress=False)
    assert timeless(resumed) == timeless(straight)


def test_tables_train_by_every_rule(tmp_path):
    for data in ("wine", "breast_cancer"):
        for method in ("plain", "importance", "accept", "control"):
            config = GradientConfig(
                data=data, method=method, imbalance=4.0, epochs=6, batch_size=16, lr=0.02
            )
            summary = run(config, tmp_path / f"{data}-{method}", progress=False)
            assert summary["balanced_accuracy"] > 0.85


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (GradientConfig, {"method": "transfer", "ratio": "odds"}, "accepted are models, densities"),
        (SampleConfig, {"form": "walk"}, "accepted are chain, independent"),
        (TuneConfig, {"proposal": "flow"}, "accepted are normal, coupling"),
        (SampleConfig, {"steps": 6}, "steps=6: a chain needs 7, half are burn-in"),
        (SampleConfig, {"chains": 0}, "chains=0: accepted is 1 to"),
        (TuneConfig, {"draws": 0}, "draws=0: accepted is 1 to"),
        (SampleConfig, {"tau": 0.0}, "tau=0.0: a positive number"),
        (SampleConfig, {"prior": math.inf}, "prior=inf: a positive number"),
        (SampleConfig, {"acceptance": 1.0}, r"acceptance=1.0: accepted is \(0, 1\)"),
        (TuneConfig, {"data": "npz"}, "needs a path"),
        (GradientConfig, {"path": "x"}, "takes no path"),
    ],
)
def test_bad_configurations_are_refused(family, changes, message):
    with pytest.raises(ValueError, match=message):
        family(**changes)
