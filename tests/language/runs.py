"""Runs of the loop in processes of their own: ``runs.py FOLDER`` makes those of test_runs.py.

Each is forked, so that all have torch from one import. ``whole`` is of one process, ``ddp`` and
``fsdp`` of two, ``killed`` is killed and resumed at every stage, at last by two processes.
``lora-whole`` and ``lora-fsdp`` are the same with adapters. All have two tasks. ``runs.py FOLDER
resumed`` kills ``lora-fsdp`` instead, between two steps, and resumes it.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from rskernels.language import rollouts, run, train
from rskernels.language.run import fine_tune
from tests.language import tiny
from tests.support.processes import forked
from tests.support.ranks import run_ranks

SETTINGS = {"form": "learnt", "beta": 0.5, "pilot": 2, "checkpoint_minutes": 0.0, "epochs": 2}


def train_in(folder, name, **more):
    config = tiny.config(folder / "given", **{**SETTINGS, **more.pop("config", {})})
    fine_tune(config, folder / name, task=tiny.two(), progress=False, **more)


def ended(main):
    """Call ``main`` in a child, and return how that ended, as waitpid says it."""
    return os.waitpid(forked(main), 0)[1]


def kill_after(module, name, calls):
    """Kill this process after a call of a function."""
    function, count = getattr(module, name), iter(range(calls - 1))

    def counted(*arguments, **more):
        is_last = next(count, None) is None
        result = function(*arguments, **more)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, counted)


# Module, function and call of it, in the order in which a run comes there.
STAGES = {
    "evaluation": (rollouts, "_append", 2),
    "generation": (rollouts, "_append", 4),
    "selection": (run, "write_rows", 1),
    "training": (train.Trainer, "step", 2),
    "checkpoint": (run, "save", 2),
    "evaluation after training": (rollouts.Rollouts, "make", 2),
    "end of the round": (run.MetricsWriter, "write", 1),
}


def killed_at_every_stage(folder):
    resume = False
    for stage, (module, name, calls) in STAGES.items():

        def main(module=module, name=name, calls=calls, resume=resume):
            kill_after(module, name, calls)
            train_in(folder, "killed", resume=resume)

        status = ended(main)
        assert (os.WIFSIGNALED(status), os.WTERMSIG(status)) == (True, signal.SIGKILL), stage
        resume = True
    more = {"resume": True}
    assert run_ranks(2, folder / "last.store", lambda: train_in(folder, "killed", **more))


def resumed_shards(folder):
    config = {"lora_rank": 2, "lr": 0.05, "parallel": "fsdp"}

    def killed():
        kill_after(train.Trainer, "step", 2)
        train_in(folder, "killed", config=config)

    def left_alone():
        train_in(folder, "alone", config=config)

    def resumed():
        train_in(folder, "killed", config=config, resume=True)

    assert run_ranks(2, folder / "alone.store", left_alone)
    assert not run_ranks(2, folder / "killed.store", killed)
    assert (folder / "killed/metrics.jsonl").read_text(encoding="utf-8").count('"step",') == 1
    assert run_ranks(2, folder / "resumed.store", resumed)


def main():
    folder = Path(sys.argv[1])
    assert ended(lambda: tiny.folder(folder / "given")) == 0
    if sys.argv[2:] == ["resumed"]:
        resumed_shards(folder)
        return
    assert ended(lambda: train_in(folder, "whole")) == 0
    # In one block all answers are of the first rank, and the other has none to make.
    for how, most in (("ddp", 16), ("fsdp", 512)):
        store, more = folder / f"{how}.store", {"config": {"parallel": how, "rows_at_once": most}}
        assert run_ranks(2, store, lambda more=more, how=how: train_in(folder, how, **more))
    lora = {
        "lora_rank": 2,
        "rows_at_once": 512,
        "epochs": 1,
        "lr": 0.05,
        "checkpoint_minutes": 10.0,
    }
    assert ended(lambda: train_in(folder, "lora-whole", config=lora)) == 0
    sharded = {"config": {**lora, "parallel": "fsdp"}}
    assert run_ranks(2, folder / "lora.store", lambda: train_in(folder, "lora-fsdp", **sharded))
    killed_at_every_stage(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
