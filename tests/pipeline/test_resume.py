"""A run that was killed, or met a full disk, goes on: nothing is lost, nothing comes twice."""

import errno
import json
import os
import pathlib

import pyarrow.parquet as pq
import pytest

from rskernels.pipeline import Columns, Rule, SelectConfig, select
from rskernels.pipeline.store import write
from rskernels.rsft.errors import CheckpointError

from ..support.processes import run_python
from . import files

# Started once: a child of it, which has no threads yet, makes the run until it kills itself.
KILLS = """
import json, os, pathlib, signal, sys
import numpy as np
import pyarrow as pa
from rskernels.pipeline import Columns, Rule, SelectConfig, select
from rskernels.pipeline.decide import decide
from rskernels.pipeline.rows.hashing import pairs_of, text_hashes
from rskernels.pipeline.rows.keys import Keys as KEYS

path, out, size, config = json.loads(sys.argv[1])
config = SelectConfig(Rule(**config["rule"]), Columns(**config["columns"]))
# Small calls start no threads, and compiled code is loaded once.
warm = KEYS(*(np.zeros(2, kind) for kind in "dqqq"), {})
decide(warm._replace(id=pairs_of(warm.id, warm.id)), Rule("verifier", 1.0))
text_hashes(pa.array(["a"]))
kills = 0
while True:
    child = os.fork()
    if not child:
        left, replace = iter(range(9)), pathlib.Path.replace
        def replace_or_die(path, target):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(path, target)
        pathlib.Path.replace = replace_or_die
        select([path], out, config, resume=bool(kills), piece_size=size)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    kills += 1
    assert kills < 20
print(kills)
"""
RULES = {
    ".parquet": ({"form": "best_of", "n": 3, "seed": 3}, {"reward": "score"}, 200),
    ".jsonl": ({"form": "verifier", "beta": 0.5, "seed": 3}, {}, 40_000),
}


@pytest.mark.process
@pytest.mark.parametrize("suffix", [".jsonl", pytest.param(".parquet", marks=pytest.mark.slow)])
def test_killed_again_and_again(suffix, tmp_path):
    rule, columns, size = RULES[suffix]
    path = files.write(files.table(1200), tmp_path / f"rows{suffix}", group=200)
    config = SelectConfig(Rule(**rule), Columns(**columns))
    want = select([path], tmp_path / "want", config, piece_size=size)
    out = tmp_path / "out"
    given = json.dumps([str(path), str(out), size, {"rule": rule, "columns": columns}])
    kills = int(run_python(f"import sys; sys.argv[1:] = [{given!r}]\n{KILLS}"))
    assert kills > 2
    assert files.read(out) == files.read(tmp_path / "want")
    report = select([path], out, config, resume=True, piece_size=size)
    for name in ("overall", "prompts", "rewards", "rows"):
        assert report[name] == want[name]
    names = [sorted(p.name for p in f.iterdir()) for f in (out, tmp_path / "want")]
    assert names[0] == [*names[1], "report.png"]


def test_a_full_disk_says_so_and_goes_on(tmp_path, monkeypatch):
    path = files.write(files.table(1200), tmp_path / "rows.parquet", group=200)
    config, out = files.config_of("verifier"), tmp_path / "out"
    select([path], tmp_path / "want", config, piece_size=200)
    fsync, left = os.fsync, iter(range(25))

    def full(descriptor):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(write.os, "fsync", full)
        with pytest.raises(OSError, match="is full: make room there, and go on with --resume"):
            select([path], out, config, piece_size=200)
    assert not list(out.rglob("*.tmp"))
    select([path], out, config, piece_size=200, resume=True)
    assert files.read(out) == files.read(tmp_path / "want")


def test_parts_are_moved_once(tmp_path, monkeypatch):
    path = files.write(files.table(1200), tmp_path / "rows.parquet", group=200)
    rule, out = Rule("verifier", beta=0.5), tmp_path / "out"
    select([path], tmp_path / "want", SelectConfig(rule), piece_size=200)
    config, replace, left = SelectConfig(rule, parts=True), pathlib.Path.replace, iter(range(3))

    def stopped(part, target):
        if target.name.startswith("part-"):
            next(left)
        return replace(part, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", stopped)
        with pytest.raises(StopIteration):
            select([path], out, config, piece_size=200)
    assert len(list((out / "accepted").iterdir())) == 3
    select([path], out, config, piece_size=200, resume=True)
    assert pq.read_table(out / "accepted").to_pylist() == files.read(tmp_path / "want")
    with pytest.raises(CheckpointError, match="parts was True, is False"):
        select([path], out, SelectConfig(rule), piece_size=200, resume=True)


def test_another_run_is_refused(tmp_path):
    path = files.write(files.table(300), tmp_path / "rows.parquet")
    config, out = files.config_of("verifier"), tmp_path / "out"
    with pytest.raises(CheckpointError, match="nothing to resume"):
        select([path], out, config, resume=True)
    select([path], out, config)
    with pytest.raises(CheckpointError, match=r"already holds accepted.parquet, manifest.json"):
        select([path], out, config)
    with pytest.raises(CheckpointError, match=r"seed was 3, is 4"):
        select([path], out, files.config_of("verifier", seed=4), resume=True)
    before = files.read(out)
    files.write(files.table(300, seed=1), path)
    with pytest.raises(CheckpointError, match="data was"):
        select([path], out, config, resume=True)
    assert files.read(out) == before
    select([path], out, config, overwrite=True)
    assert files.read(out) != before
