import json

import pytest
import torch
from torch import nn

from rskernels.rsft.artifacts.metrics import MetricsWriter, calibration_error, evaluate
from rskernels.rsft.data.samples import Samples
from rskernels.rsft.errors import CheckpointError, TrainingError


class Always(nn.Module):
    """Answers class 0."""

    def forward(self, images):
        return torch.eye(4)[torch.zeros(len(images), dtype=torch.long)]


def test_accuracy_is_balanced_and_the_rarest_are_those_of_the_pool():
    test = Samples(torch.zeros(7, 1, 8, 8), torch.tensor([0, 0, 0, 0, 1, 2, 3]))
    scores = evaluate(Always(), test, counts=torch.tensor([3, 9, 2, 1]), rarest=3)
    assert scores.balanced_accuracy == pytest.approx(1 / 4)
    assert scores.rarest_accuracy == pytest.approx(1 / 3)


def record(step):
    return {"kind": "step", "step": step, "loss": step / 2, "M": None}


def test_position_cuts_what_a_checkpoint_did_not_know(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(record(1))
        position = writer.position()
        writer.write(record(2))
    with MetricsWriter(tmp_path, position=position, step=1) as writer:
        writer.write(record(5))
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 5]


def test_metrics_shorter_than_the_checkpoint_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds 0 bytes, the checkpoint knew of 10"):
        MetricsWriter(tmp_path, position=10)


def test_events_are_readable_and_resumed_steps_are_purged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(record(step))
    with MetricsWriter(tmp_path, step=1) as writer:
        writer.write(record(2))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["step/loss"]
    assert [(e.step, e.value) for e in events.Scalars("step/loss")] == [(1, 0.5), (2, 1.0)]


def test_nan_is_never_written(tmp_path):
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match="JSON"):
        writer.write({"kind": "step", "step": 1, "loss": float("nan")})


def test_a_class_without_a_test_row_is_not_scored():
    test = Samples(torch.zeros(3, 1, 8, 8), torch.tensor([0, 0, 2]))
    scores = evaluate(Always(), test, counts=torch.tensor([3, 1, 9, 5]), rarest=1)
    assert (scores.balanced_accuracy, scores.rarest_accuracy) == (0.5, 1.0)


class Fixed(nn.Module):
    """Answers the same logits."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_tell_no_probability_are_no_scores(bad):
    test = Samples(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
    with pytest.raises(TrainingError, match="no probability follows from the logits of 2 of 2"):
        evaluate(Fixed(0.0, bad), test, counts=torch.tensor([1, 1]))
    evaluate(Fixed(0.0, -float("inf")), test, counts=torch.tensor([1, 1]))


def test_metrics_that_are_gone_are_not_made_anew(tmp_path):
    with pytest.raises(CheckpointError, match="holds 0 bytes"):
        MetricsWriter(tmp_path, position=10)
    assert not list(tmp_path.iterdir())


def test_the_worst_class_is_the_least_recognised():
    test = Samples(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 0]))
    scores = evaluate(Always(), test, counts=torch.tensor([3, 9]))
    assert (scores.balanced_accuracy, scores.worst_accuracy) == (0.5, 0.0)


def test_calibration_error_by_hand():
    """Bins of 1/15: 0.61 and 0.65 share (0.6, 0.667], 0.9 is in (0.867, 0.933], 0.6 below."""
    confidence = torch.tensor([0.61, 0.65, 0.9, 0.6], dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], dim=1).log()
    labels = torch.tensor([0, 1, 1, 0])
    expected = 2 / 4 * abs(0.5 - 0.63) + 1 / 4 * abs(0 - 0.9) + 1 / 4 * abs(1 - 0.6)
    assert calibration_error(logits, labels) == pytest.approx(expected)


def test_a_model_that_is_certain_and_right_has_no_calibration_error():
    labels = torch.arange(4)
    assert calibration_error(1000 * torch.eye(4), labels) == 0
    assert calibration_error(1000 * torch.eye(4), labels.flip(0)) == pytest.approx(1)


def test_calibration_error_of_calibrated_draws_is_small_and_of_overconfident_ones_is_not():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(100_000, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    assert calibration_error(logits, labels) < 0.01
    confidence = (3 * logits).softmax(-1).amax(-1).mean()
    accuracy = (logits.argmax(-1) == labels).double().mean()
    assert calibration_error(3 * logits, labels) == pytest.approx(
        float(confidence - accuracy), abs=0.01
    )
