"""Two ranks train each integration, stop, and go on as if they had not; run by test_training.py."""

import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from rskernels import masked_mean
from rskernels.integrations.hf_trainer import ranks_mean
from tests.integrations.training import TRAINERS, logs, run
from tests.support.ranks import run_ranks

ENVIRONMENT = {
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "ACCELERATE_USE_CPU": "true",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}  # fmt: skip


def main():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    os.environ.update(ENVIRONMENT, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    check_mean(rank)
    for name in sys.argv[2:]:
        check(name, Path(sys.argv[1]) / name)


def check_mean(rank):
    """The mean of what the ranks return is the mean over the rows of both."""
    values = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    for kept in ([[1, 1, 0], [0, 0, 1]], [[0, 0, 0], [1, 0, 1]], [[0, 0, 0], [0, 0, 0]]):
        mask = torch.tensor(kept).bool()
        whole = masked_mean(values, mask)
        own = ranks_mean(values[rank], mask[rank])
        assert sum(gathered(own.item())) / 2 == whole.item()


def check(name, folder):
    trainer, decided = run(TRAINERS[name], folder)
    assert trainer.accelerator.num_processes == 2
    envelope = trainer.rejection.envelope
    masks = gathered([mask for _, mask, _ in decided])
    assert masks[0] != masks[1], "the ranks draw alike"
    # The last step was logged, so that both hold what both have seen, each row once.
    rows = sum(gathered(sum(rows for *_, rows in decided)))
    assert gathered(int(envelope.seen.sum())) == [rows, rows]
    assert len(set(gathered(float(envelope.log_M())))) == 1
    weights = gathered([float(p.detach().double().sum()) for p in trainer.model.parameters()])
    assert weights[0] == weights[1]
    log = logs(trainer)
    assert len(log) == 10
    last = sum(sum(gathered(sum(mask))) for _, mask, _ in decided[-2:])
    given = sum(sum(gathered(rows)) for *_, rows in decided[-2:])
    assert log[-1]["rejection/acceptance"] == last / given

    again, later = run(TRAINERS[name], folder, resume=str(folder / "checkpoint-10"))
    assert later == decided[-len(later) :]
    assert len(later) == len(decided) // 2
    assert logs(again, 10) == logs(trainer, 10)
    assert again.rejection.envelope.to_bytes() == envelope.to_bytes()


def gathered(value):
    """Return what every rank has."""
    everything = [None, None]
    dist.all_gather_object(everything, value)
    return everything


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as store:
        sys.exit(not run_ranks(2, Path(store) / "meet", main))
