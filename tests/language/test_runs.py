"""Runs of several processes, and runs that were killed, against one that was left alone."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from ..support.ranks import run_script

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed"),
]
CLOCKS = ("seconds", "generation_seconds", "evaluation_seconds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run_script(Path(__file__).with_name("runs.py"), folder)
    return folder


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in record.items() if k not in CLOCKS} for record in records]


def rounds(folder):
    return [path.read_text(encoding="utf-8") for path in sorted((folder / "rounds").iterdir())]


def model(folder):
    return load_file(folder / "model/model.safetensors")


@pytest.mark.parametrize(
    ("whole", "how"), [("whole", "ddp"), ("whole", "fsdp"), ("lora-whole", "lora-fsdp")]
)
def test_two_processes_select_the_same_answers_and_have_the_same_losses(folder, whole, how):
    want, got = metrics(folder / whole), metrics(folder / how)
    rows = [[json.loads(line) for line in text.splitlines()] for text in rounds(folder / whole)]
    others = [[json.loads(line) for line in text.splitlines()] for text in rounds(folder / how)]
    assert len(rows) == 2
    for these, those in zip(rows, others, strict=True):
        assert 0 < sum(row["accepted"] for row in these) < len(these)
        assert {row["task"] for row in these} == {"digits first", "letters"}
        for name in ("id", "task", "tokens", "reward", "accepted", "weight"):
            assert [row[name] for row in these] == [row[name] for row in those], name
    losses, same = ([r["loss"] for r in of if r["kind"] == "step"] for of in (want, got))
    assert len(losses) == len(same) >= 2 * len(rows)
    torch.testing.assert_close(torch.tensor(same), torch.tensor(losses), rtol=1e-5, atol=0)
    given, held = load_file(folder / "given/model.safetensors"), model(folder / whole)
    assert held.keys() == given.keys()
    assert any(not torch.equal(held[name], given[name]) for name in held)
    for name, parameter in held.items():
        torch.testing.assert_close(model(folder / how)[name], parameter, rtol=1e-4, atol=1e-5)


def test_a_run_that_was_killed_at_every_stage_ends_as_one_that_was_not(folder):
    assert metrics(folder / "killed") == metrics(folder / "whole")
    assert rounds(folder / "killed") == rounds(folder / "whole")
    want, got = model(folder / "whole"), model(folder / "killed")
    assert want.keys() == got.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert not list((folder / "killed/parts").iterdir())


@pytest.mark.slow
def test_shards_with_adapters_that_were_killed_end_as_those_that_were_not(tmp_path):
    run_script(Path(__file__).with_name("runs.py"), tmp_path, "resumed")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "alone")
    assert rounds(tmp_path / "killed") == rounds(tmp_path / "alone")
    for name in ("model/model", "adapter/adapter_model"):
        want, got = (load_file(tmp_path / f"{of}/{name}.safetensors") for of in ("alone", "killed"))
        assert want.keys() == got.keys()
        assert all(torch.equal(got[name], want[name]) for name in want)
