import json

import pytest
import torch
from torch import nn

from rskernels.rsft.checkpoint import CheckpointError
from rskernels.rsft.metrics import MetricsWriter, evaluate
from rskernels.rsft.samples import Samples


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
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
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
