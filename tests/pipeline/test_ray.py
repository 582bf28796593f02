"""On Ray the same rows are kept, and scored alike, whatever becomes of its processes.

One test with one Ray, whose start takes most of its time.
"""

import filecmp
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest

from rskernels.pipeline import Columns, RayEngine, Reward, ScoreConfig, score, select
from rskernels.pipeline.engines import EngineError, engine_of, on_ray
from rskernels.rsft.errors import DataError

from . import files

ray = pytest.importorskip("ray")

FORMS = {
    "verifier": {},
    "best_of": {"n": 3, "columns": Columns(reward="score")},
    "learnt": {"columns": Columns(reward="score", id="id"), "envelope": "quantile:0.9"},
}
REWARDS = """
import os, pathlib, signal
HERE = pathlib.Path(__file__).parent

def once(prompts, completions):
    if completions[0] == LAST and not (HERE / "died").exists():
        (HERE / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [len(text) for text in completions]

def always(prompts, completions):
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Dying:
    """A job whose process is killed as it puts its n-th file in place, the first time."""

    def __init__(self, job, marker, count):
        self.job, self.marker, self.count = job, marker, count
        self.title = job.title

    def __call__(self, piece):
        left, replace = iter(range(self.count)), pathlib.Path.replace

        def replace_or_die(path, target):
            if piece.number == 4 and next(left, None) is None and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(path, target)

        pathlib.Path.replace = replace_or_die
        try:
            return self.job(piece)
        finally:
            pathlib.Path.replace = replace

    def done(self, piece):
        return self.job.done(piece)


class Killing:
    """An engine one of whose workers is killed in each pass."""

    FILES: ClassVar = {"counting equal rows": 0, "gathering rewards": 1, "deciding": 2}

    def __init__(self, engine, folder):
        self.engine, self.folder = engine, folder

    def run(self, job, pieces):
        marker = self.folder / f"died {job.title}"
        yield from self.engine.run(Dying(job, marker, self.FILES[job.title]), pieces)
        assert marker.exists()


@pytest.fixture
def one_ray(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=on_ray.STORE, address="local",
    )  # fmt: skip
    # Workers cannot import what pytest has imported by its path.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


def same_but_for_time(first, second):
    is_time = lambda name: "seconds" in name  # noqa: E731
    return all(second[name] == value for name, value in first.items() if not is_time(name))


def test_ray_keeps_and_scores_what_one_process_does(one_ray, tmp_path, monkeypatch):
    path = files.write(files.table(), tmp_path / "rows.parquet", group=250)
    other = files.write(files.table(seed=1), tmp_path / "pilot.parquet", group=250)
    with engine_of("ray", 2) as engine:
        for form, options in FORMS.items():
            want, got = tmp_path / f"{form}-local", tmp_path / f"{form}-ray"
            config = files.config_of(form, **options)
            pilot = [other] if form == "learnt" else None
            report = select([path], want, config, pilot=pilot, piece_size=250)
            (tmp_path / form).mkdir()
            killing = Killing(engine, tmp_path / form) if form == "best_of" else engine
            again = select([path], got, config, pilot=pilot, piece_size=250, engine=killing)
            for name in os.listdir(want):
                if name.startswith("accepted"):
                    assert filecmp.cmp(want / name, got / name, shallow=False)
            assert same_but_for_time(report, again)

        # Malformed rows, and what a function raises, are said as one process says them.
        lines = '{"prompt": "p", "completion": "c", "reward": 1}\n' * 3 + "{\n"
        bad = tmp_path / "bad.jsonl"
        bad.write_text(lines, encoding="utf-8")
        with pytest.raises(DataError, match=r"bad\.jsonl: line 4"):
            select([bad], tmp_path / "bad", files.config_of("verifier"), engine=engine)

        rows = files.table(600).drop_columns(["reward"])
        last = rows["completion"][400].as_py()
        (tmp_path / "rewards_on_ray.py").write_text(
            REWARDS.replace("LAST", repr(last)), encoding="utf-8"
        )
        rows = files.write(rows, tmp_path / "scored.jsonl.gz")
        config = ScoreConfig(Reward("rewards_on_ray:once", 1, str(tmp_path)))
        score([rows], tmp_path / "s-ray", config, engine=engine, piece_size=20_000)
        assert (tmp_path / "died").exists()
        score([rows], tmp_path / "s-local", config, piece_size=20_000)
        names = [tmp_path / f"s-{name}" / "scored.jsonl" for name in ("ray", "local")]
        assert filecmp.cmp(*names, shallow=False)

    # What kills every worker is given up, and named; what is done can be gone on with.
    monkeypatch.setattr(on_ray, "RETRIES", 0)
    always = ScoreConfig(Reward("rewards_on_ray:always", 1, str(tmp_path)))
    with (
        RayEngine(1) as engine,
        pytest.raises(EngineError, match=r"scored\.jsonl\.gz from 0 to \d+ ended 1 time"),
    ):
        score([rows], tmp_path / "s-dead", always, engine=engine)
    assert ray.is_initialized()  # by the test, so no engine ends it


def children_of(pid):
    """Return the processes below one."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid"], capture_output=True, check=True, encoding="utf-8"
    )
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()[1:]]
    below, found = {pid}, set()
    while below:
        below = {child for child, parent in pairs if parent in below}
        found |= below
    return found


@pytest.mark.slow
@pytest.mark.process
def test_a_driver_that_is_killed_leaves_nothing_behind_and_is_gone_on_with(tmp_path):
    path = files.write(files.table(60_000), tmp_path / "rows.parquet", group=500)
    command = [sys.executable, "-m", "rskernels", "select", str(path), "--beta", "0.5"]
    on_two = ["--engine", "ray", "--workers", "2"]
    subprocess.run([*command, "--out", tmp_path / "want"], check=True, capture_output=True)
    out = tmp_path / "out"
    driver = subprocess.Popen([*command, *on_two, "--out", out], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("work/done/*.json")):
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        below = children_of(driver.pid)
    finally:
        driver.kill()
        driver.wait()
    assert below
    done = len(list(out.glob("work/done/*.json")))
    resumed = subprocess.run([*command, *on_two, "--out", out, "--resume"], capture_output=True)
    assert resumed.returncode == 0, resumed.stderr
    assert 0 < done < 120
    assert filecmp.cmp(tmp_path / "want/accepted.parquet", out / "accepted.parquet", shallow=False)
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "want"))
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in below):
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Losing:
    """An engine that loses a machine of its cluster in the midst of a pass."""

    def __init__(self, engine, cluster, node):
        self.engine, self.cluster, self.node = engine, cluster, node

    def run(self, job, pieces):
        for count, record in enumerate(self.engine.run(job, pieces)):
            if count == 30 and self.node is not None:
                self.cluster.remove_node(self.node, allow_graceful=False)
                self.node = None
            yield record


@pytest.mark.slow
@pytest.mark.process
def test_a_machine_of_a_cluster_that_is_lost_leaves_its_piece_to_the_others(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    path = files.write(files.table(60_000), tmp_path / "rows.parquet", group=500)
    config = files.config_of("verifier")
    select([path], tmp_path / "want", config, piece_size=500)
    of_each = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": on_ray.STORE}
    cluster = Cluster(initialize_head=True, head_node_args=of_each)
    try:
        node = cluster.add_node(**of_each)
        cluster.wait_for_nodes()
        with RayEngine(address=cluster.address) as engine:
            losing = Losing(engine, cluster, node)
            select([path], tmp_path / "out", config, piece_size=500, engine=losing)
            # As many workers as there were CPUs; of these one never finds room again.
            assert len(engine._actors) == 2
    finally:
        cluster.shutdown()
    names = [tmp_path / name / "accepted.parquet" for name in ("want", "out")]
    assert filecmp.cmp(*names, shallow=False)
