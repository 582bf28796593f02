import json

import pytest
import torch

from rskernels.experiments import families, networks
from rskernels.experiments.config import GradientConfig
from rskernels.rsft import loop
from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.artifacts.figures import draw_curves
from rskernels.rsft.errors import CheckpointError, TrainingError
from rskernels.rsft.rules import RULES, Rule

OPTIONS = {"epochs": 4, "imbalance": 5, "test_fraction": 0.8}
SMALL = GradientConfig(**OPTIONS)


def run(out, config=SMALL, **arguments):
    return families.run(config, out, progress=False, **arguments)


def with_(**changes):
    return GradientConfig(**{**OPTIONS, **changes})


def weights(out):
    return checkpoint.read(out / "checkpoint.pt")["model"]


def metrics(out):
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def assert_same_run(a, b):
    assert metrics(a) == metrics(b)
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", RULES)
def test_every_method_runs_and_learns(tmp_path, method):
    summary = run(tmp_path, with_(method=method, epochs=6, imbalance=2, lr=0.02, batch_size=16))
    assert summary["balanced_accuracy"] > 0.2
    assert summary["rows"] == 6 * sum(summary["pool"])
    if method == "transfer":
        assert summary["balanced_accuracy_before"] > 0.2
    if RULES[method].rejects:
        assert 0 < summary["gradient_samples"] < summary["rows"]
    else:
        assert summary["gradient_samples"] == summary["rows"]


def test_counts_in_the_metrics_agree(tmp_path):
    summary = run(tmp_path)
    steps = [r for r in metrics(tmp_path) if r["kind"] == "step"]
    epochs = [r for r in metrics(tmp_path) if r["kind"] == "epoch"]
    assert len(epochs) == SMALL.epochs
    assert [r["step"] for r in steps] == list(range(1, summary["step"] + 1))
    assert summary["violations"] == sum(r["violations"] for r in steps) > 0
    assert summary["skipped_steps"] == sum(r["loss"] is None for r in steps)
    assert summary["delta"] == pytest.approx(sum(r["delta"] for r in steps) / len(steps))
    assert 0 < summary["delta"] < 1
    assert summary["acceptance"] == summary["gradient_samples"] / summary["rows"]


def test_the_envelopes_report_is_in_the_metrics(tmp_path):
    summary = run(tmp_path, with_(envelope="budget:0.5", lr=0.02))
    epochs = [r for r in metrics(tmp_path) if r["kind"] == "epoch"]
    report = epochs[-1]["envelope"]
    assert summary["envelope"] == report
    assert report["policy"] == "budget:0.5"
    overall = report["overall"]
    # The pilot pass is seen but decided with no M.
    assert overall["seen"] == summary["rows"] + sum(summary["pool"])
    assert overall["decided"] == summary["rows"]
    assert overall["violations"] == summary["violations"]
    assert overall["observed_acceptance"] == pytest.approx(summary["acceptance"])
    assert overall["expected_acceptance"] == pytest.approx(0.5, rel=0.1)
    assert overall["meaning"].startswith("k̂ = ")
    assert run(tmp_path / "plain", with_(method="plain"))["envelope"] is None


def test_a_batch_does_not_decide_its_own_M(tmp_path, monkeypatch):
    """The M of a step is that of an Envelope shown the pilot pass and the batches before it."""
    seen = []
    rule = RULES["accept"]

    def spy(logits, targets, log_density, state):
        chosen = rule.select(logits, targets, log_density, state)
        seen.append((float(state.log_M), float(chosen.log_ratio.max())))
        return chosen

    monkeypatch.setitem(RULES, "accept", Rule(spy, rejects=True))
    run(tmp_path, with_(envelope="max", lr=0.2))
    M = [log_M for log_M, _ in seen]
    for step in range(1, len(seen)):
        assert M[step] == pytest.approx(max(M[step - 1], seen[step - 1][1]), rel=1e-6)
    assert any(largest > log_M for log_M, largest in seen)


def test_row_ids_continue_over_steps_so_no_draw_is_used_twice(tmp_path, monkeypatch):
    offsets = []
    rule = RULES["accept"]

    def spy(logits, targets, log_density, state):
        offsets.append((state.row_offset, len(targets)))
        return rule.select(logits, targets, log_density, state)

    monkeypatch.setitem(RULES, "accept", Rule(spy, rejects=True))
    run(tmp_path)
    expected = 0
    for offset, rows in offsets:
        assert offset == expected
        expected += rows


def test_same_seed_same_bits_other_seed_other_run(tmp_path):
    run(tmp_path / "a")
    torch.rand(3)  # the global generator must not matter
    run(tmp_path / "b")
    run(tmp_path / "c", with_(seed=1))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert metrics(tmp_path / "a") != metrics(tmp_path / "c")


def test_the_global_generator_and_thread_count_are_left_alone(tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(tmp_path, with_(epochs=1, threads=threads + 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("method", "envelope"),
    [
        ("plain", None),
        ("importance", None),
        ("accept", "max"),
        ("accept", "quantile:0.9"),
        ("accept", "budget:0.5"),
        ("accept", "decayed"),
        ("accept", "leave_one_out"),
        ("control", "quantile:0.9"),
    ],
)
def test_resume_is_bit_identical(tmp_path, method, envelope):
    config = with_(method=method, envelope=envelope)
    half = with_(method=method, envelope=envelope, epochs=2)
    straight = run(tmp_path / "straight", config)
    run(tmp_path / "parts", half)
    resumed = run(tmp_path / "parts", config, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")
    assert {**resumed, "seconds": 0} == {**straight, "seconds": 0}


def test_resume_after_a_crash_in_mid_epoch_is_bit_identical(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = with_(batch_size=16)
    straight = run(tmp_path / "straight", config)
    rule = RULES["accept"]

    def crash(logits, targets, log_density, state):
        if state.row_offset > straight["rows"] * 5 / 8:
            raise KeyboardInterrupt
        return rule.select(logits, targets, log_density, state)

    with monkeypatch.context() as patch:
        patch.setitem(RULES, "accept", Rule(crash, rejects=True))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "crashed", config)
    known = checkpoint.read(tmp_path / "crashed" / "checkpoint.pt")
    written = (tmp_path / "crashed" / "metrics.jsonl").stat().st_size
    assert known["position"] < written  # the crash left steps that the checkpoint does not know
    run(tmp_path / "crashed", config, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "crashed")
    events = EventAccumulator(str(tmp_path / "crashed")).Reload()
    steps = [event.step for event in events.Scalars("step/acceptance")]
    assert steps == list(range(1, straight["step"] + 1))


def test_resume_refuses_another_configuration(tmp_path):
    run(tmp_path, with_(epochs=2))
    with pytest.raises(CheckpointError, match=r"lr was 0\.05, is 0\.1"):
        run(tmp_path, with_(lr=0.1), resume=True)
    with pytest.raises(CheckpointError, match="more than epochs=1"):
        run(tmp_path, with_(epochs=1), resume=True)


def test_resume_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        run(tmp_path, resume=True)


def test_an_earlier_run_is_replaced_only_when_told_to(tmp_path):
    run(tmp_path, with_(epochs=1))
    with pytest.raises(FileExistsError, match="already holds a run"):
        run(tmp_path, with_(epochs=1))
    run(tmp_path, with_(epochs=1, seed=5), overwrite=True)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_all_rejected_batches_are_skipped_steps(tmp_path, monkeypatch, figures):
    rule = RULES["accept"]

    def reject(logits, targets, log_density, state):
        huge = state._replace(log_M=torch.tensor(80.0, dtype=torch.float64))
        return rule.select(logits, targets, log_density, huge)

    monkeypatch.setitem(RULES, "accept", Rule(reject, rejects=True))
    summary = run(tmp_path, with_(epochs=2))
    assert summary["skipped_steps"] == summary["step"] > 0
    assert summary["gradient_samples"] == 0
    assert summary["loss"] is None
    assert all(value.isfinite().all() for value in weights(tmp_path).values())
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_that_is_not_finite_is_an_error(tmp_path, monkeypatch):
    real = loop.F.cross_entropy
    monkeypatch.setattr(loop.F, "cross_entropy", lambda *a, **k: real(*a, **k) * torch.nan)
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        run(tmp_path)


@pytest.mark.parametrize("method", ["accept", "importance"])
def test_logits_that_are_not_finite_are_an_error_not_an_endless_skip(tmp_path, monkeypatch, method):
    class Broken(networks.SmallCNN):
        def forward(self, inputs):
            return super().forward(inputs) * torch.nan

    monkeypatch.setattr(networks, "SmallCNN", Broken)
    with pytest.raises(TrainingError, match="no row of the logits is finite"):
        run(tmp_path, with_(method=method))


@pytest.mark.parametrize("M", [1e308, 1e-320, 1.0, None])
def test_curves_are_drawn_of_every_number(tmp_path, recwarn, M):
    record = {"kind": "epoch", "gradient_samples": 1, "balanced_accuracy": 0.5, "loss": 0.0}
    record |= {"rarest_accuracy": 0.5, "acceptance": 0.0, "delta": 0.0, "M": M}
    draw_curves([record, record], tmp_path / "curves.png", title="")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not recwarn


def test_a_diverging_run_says_so(tmp_path):
    with pytest.raises(TrainingError, match=r"a smaller lr than 1e\+20 may help"):
        run(tmp_path, with_(lr=1e20, epochs=10))


@pytest.mark.parametrize(
    ("envelope", "lr"), [("max", 20.0), ("max", 100.0), ("max", 500.0), ("quantile:0.5", 20.0)]
)
def test_an_M_beyond_every_float_is_divergence(tmp_path, envelope, lr):
    expected = rf"step \d+: training diverged: M, exp\(.*a smaller lr than {lr} may help"
    with pytest.raises(TrainingError, match=expected) as caught:
        run(tmp_path, GradientConfig(envelope=envelope, lr=lr, epochs=1))
    steps = [record["step"] for record in metrics(tmp_path)]
    assert steps == list(range(1, len(steps) + 1))
    assert f"step {len(steps) + 1}:" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "cifar"}, "accepted are digits"),
        (
            {"method": "reject"},
            "accepted are plain, reweight, importance, accept, control",
        ),
        ({"envelope": "median"}, "median"),
        ({"envelope": "max", "half_life": 10.0}, "half_life is for 'quantile'"),
        ({"half_life": 0.0}, "at least 1 sample"),
        ({"half_life": float("nan")}, "at least 1 sample"),
        ({"epochs": 0}, "epochs=0: accepted is 1 to"),
        ({"batch_size": 0}, "batch_size=0: accepted is 1 to"),
        ({"threads": 0}, "threads=0: accepted is 1 to"),
        ({"epochs": 10**30}, "accepted is 1 to 2147483647"),
        ({"batch_size": 10**20}, "accepted is 1 to 2147483647"),
        ({"threads": 10**5}, "accepted is 1 to 1024"),
        ({"lr": 1e308}, "positive number up to"),
        ({"lr": -1.0}, "positive number"),
        ({"lr": float("nan")}, "positive number"),
        ({"momentum": 1.0}, r"accepted is \[0, 1\)"),
        ({"seed": -1}, "accepted is 0 to"),
    ],
)
def test_bad_configurations_are_refused_with_what_is_accepted(changes, message):
    with pytest.raises(ValueError, match=message):
        with_(**changes)


def test_forgetting_keeps_a_quantile_envelope_near_the_rows_of_now(tmp_path):
    """q grows as the model learns; without forgetting M stays at what the first rows asked for."""
    forgetful = run(tmp_path / "a", with_(epochs=12))
    stubborn = run(tmp_path / "b", with_(epochs=12, half_life=float("inf")))
    assert forgetful["M"] < stubborn["M"]
    assert forgetful["acceptance"] > stubborn["acceptance"]


@pytest.mark.parametrize("changes", [{"method": "oversample"}, {"method": "undersample"}])
def test_baselines_that_resample_learn_and_resume(tmp_path, changes):
    config = with_(**changes, batch_size=8)
    straight = run(tmp_path / "straight", config)
    assert straight["balanced_accuracy"] > 0.2
    rows = sum(straight["pool"])
    if changes["method"] == "undersample":
        rows = min(straight["pool"]) * len(straight["pool"])
    assert straight["gradient_samples"] == straight["rows"] == SMALL.epochs * rows
    run(tmp_path / "parts", with_(**changes, batch_size=8, epochs=2))
    run(tmp_path / "parts", config, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.parametrize("freeze", [False, True])
def test_a_drifting_run_is_resumed_where_the_priors_are(tmp_path, freeze):
    options = {"drift": 4, "envelope": "decayed", "freeze": freeze, "lr": 0.02}
    run(tmp_path / "straight", with_(**options))
    run(tmp_path / "parts", with_(**options, epochs=2))
    run(tmp_path / "parts", with_(**options), resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")
    M = [r["M"] for r in metrics(tmp_path / "straight") if r["kind"] == "step"]
    assert (len(set(M)) == 1) == freeze


def test_a_frozen_envelope_still_tells_what_it_met(tmp_path):
    summary = run(tmp_path, with_(envelope="quantile:0.5", freeze=True))
    report = summary["envelope"]
    assert report["policy"].startswith("fixed:")
    assert report["overall"]["decided"] == summary["rows"]
    assert report["overall"]["violations"] == summary["violations"] > 0


def test_effective_samples_by_hand(tmp_path):
    """Plain: every row of a batch of n has the share 1/n, and the last batch is shorter."""
    summary = run(tmp_path, with_(method="plain", epochs=1))
    full, last = divmod(summary["rows"], SMALL.batch_size)
    squared = full / SMALL.batch_size + (1 / last if last else 0)
    assert summary["gradient_ess"] == pytest.approx(summary["step"] ** 2 / squared)
    weighted = run(tmp_path / "weighted", with_(method="reweight", epochs=1))
    assert weighted["gradient_ess"] < summary["gradient_ess"] <= summary["gradient_samples"]
