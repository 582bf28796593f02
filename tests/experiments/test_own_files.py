"""A user's own file, from its arrays to a run: what is kept, said, refused and resumed."""

import os

import numpy as np
import pytest
import torch

from rskernels.experiments import datasets
from rskernels.experiments.config import GradientConfig, SampleConfig, TuneConfig
from rskernels.experiments.families import run
from rskernels.rsft.errors import CheckpointError, DataError

SIZES = [80, 31, 12, 5]
QUICK = {
    "train": (GradientConfig, {"epochs": 1}, {"epochs": 2}),
    "tune": (TuneConfig, {"rounds": 1, "draws": 50}, {"rounds": 2, "draws": 50}),
    "sample": (SampleConfig, {"steps": 40, "chains": 2}, {"steps": 40, "chains": 2}),
}


def write(path, sizes=SIZES, shift=0.0, columns=3, **more):
    y = np.repeat(np.arange(len(sizes)), sizes)
    x = np.random.default_rng(0).normal(size=(len(y), columns)) + y[:, None] + shift
    np.savez(path, x=x, y=y, **more)
    return path


def load(config):
    return config.load(torch.Generator().manual_seed(0)).data


@pytest.mark.parametrize("family", QUICK)
def test_a_file_keeps_the_sizes_of_its_classes(tmp_path, capsys, family):
    path = write(tmp_path / "x.npz")
    config = QUICK[family][0](data="npz", path=str(path))
    data = load(config)
    assert data.counts.tolist() == [78, 29, 10, 3]
    assert data.test.labels.bincount().tolist() == [2] * 4
    said = capsys.readouterr().err
    assert "120 rows are trained on, of each class 78, 29, 10, 3, and 8 tested on" in said
    assert "leaves out" not in said


@pytest.mark.parametrize("method", ["transfer", "proposal"])
def test_a_method_of_a_shift_keeps_them_too(tmp_path, method):
    np.savez(
        tmp_path / "x.npz", x=np.random.default_rng(0).random((60, 8, 8)), y=np.arange(60) // 35
    )
    config = GradientConfig(data="npz", path=str(tmp_path / "x.npz"), method=method)
    assert load(config).counts.tolist() == [25, 15]
    small = GradientConfig(
        data="npz", path=str(tmp_path / "x.npz"), method=method, test_fraction=0.9
    )
    with pytest.raises(DataError, match="the file leaves 3 rows to the rarest class: too few"):
        run(small, tmp_path / "run", progress=False)


def test_what_an_imbalance_leaves_out_is_said(tmp_path, capsys):
    path = str(write(tmp_path / "x.npz"))
    assert load(GradientConfig(data="npz", path=path, imbalance=1.0)).counts.tolist() == [3] * 4
    assert "imbalance=1 leaves out 108 rows: there are 120 to train on" in capsys.readouterr().err
    # A stream whose priors move is drawn from a balanced pool, and has to have an imbalance.
    drifting = GradientConfig(data="npz", path=path, drift=2)
    assert drifting.imbalance == 20
    assert load(drifting).counts.tolist() == [3] * 4
    assert "imbalance=1 leaves out 108 rows" in capsys.readouterr().err


def test_bundled_data_are_as_long_tailed_as_before(capsys):
    counts = load(GradientConfig()).counts
    assert counts.max() == 20 * counts.min()
    assert GradientConfig(method="transfer").imbalance == 1
    assert capsys.readouterr().err == ""


def test_a_constant_column_is_not_used_and_that_is_said(tmp_path, capsys):
    y = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 2))
    x[:, 1] = 0.1
    x_test = x + np.array([0, 1e6])
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x_test, y_test=y)
    data = load(GradientConfig(data="npz", path=str(tmp_path / "x.npz")))
    assert data.pool.inputs[:, 1].abs().max() == data.test.inputs[:, 1].abs().max() == 0
    assert "1 column(s) of" in capsys.readouterr().err


FLAT = {
    "table": np.tile([1.5, 0.0, -7.0], (40, 1)),
    "images": np.full((40, 1, 6, 6), 77, np.uint8),
    "black": np.zeros((40, 1, 6, 6)),
}


@pytest.mark.parametrize("x", FLAT)
def test_rows_that_are_all_alike_are_nothing_to_learn(tmp_path, x):
    np.savez(tmp_path / "x.npz", x=FLAT[x], y=np.arange(40) % 2)
    config = GradientConfig(data="npz", path=str(tmp_path / "x.npz"))
    with pytest.raises(DataError, match=r"x\.npz is alike in all 24 rows that are trained on"):
        run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


FINE = {
    "nanoseconds": lambda i: 1_700_000_000_000_000_000 + 1000 * i,
    "beyond 2**53": lambda i: 2**60 + i,
    "unsigned": lambda i: 2**63 + i.astype(np.uint64),
    "halves": lambda i: 1e13 + 0.5 * i,
    "tiny": lambda i: 1e-60 * i,
    "smaller than float32": lambda i: 1e-40 * (i + 1),
}


@pytest.mark.parametrize("column", FINE)
def test_what_float32_would_lose_of_a_column_is_kept(tmp_path, capsys, column):
    i = np.arange(40)
    values = FINE[column](i)
    np.savez(tmp_path / "x.npz", x=values[:, None], y=i % 2)
    data = load(GradientConfig(data="npz", path=str(tmp_path / "x.npz")))
    inputs = torch.cat([data.pool.inputs, data.test.inputs])
    # Differences are taken of Python's numbers, whose integers are exact.
    above = np.array([value - values.min().item() for value in values.tolist()], float)
    got = inputs[:, 0].double().sort().values
    got = (got - got[0]) / (got[-1] - got[0])
    assert torch.allclose(got, torch.from_numpy(above / above.max()), atol=1e-5)
    said = capsys.readouterr().err
    assert "column(s) 0 are brought to 0 … 1, since float32 would round away" in said
    assert "not used" not in said


def test_what_lies_too_far_outside_to_be_tested_on_is_refused(tmp_path):
    y = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 2)) * [1, 1e-30]
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x + np.array([0, 1e10]), y_test=y)
    with pytest.raises(DataError, match=r"column 1 of .* in rows to test on, numbers that are"):
        load(GradientConfig(data="npz", path=str(tmp_path / "x.npz")))


def test_the_digits_of_a_file_are_those_that_are_bundled(tmp_path):
    """Their pixels are real numbers from 0 to 16, where bytes go from 0 to 255."""
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    np.savez(tmp_path / "x.npz", x=digits.images, y=digits.target)
    own = load(GradientConfig(data="npz", path=str(tmp_path / "x.npz"), imbalance=20.0))
    bundled = load(GradientConfig())
    assert torch.equal(own.pool.inputs, bundled.pool.inputs)
    assert torch.equal(own.test.inputs, bundled.test.inputs)


@pytest.mark.parametrize("family", QUICK)
def test_one_class_is_nothing_to_learn(tmp_path, family):
    path = write(tmp_path / "x.npz", sizes=[30])
    config = QUICK[family][0](data="npz", path=str(path))
    with pytest.raises(DataError, match=r"all 30 rows of .* are of one class"):
        run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_class_too_small_to_be_split_is_named(tmp_path):
    path = write(tmp_path / "x.npz", sizes=[9, 1, 9])
    with pytest.raises(DataError, match="of the 1 rows of the smallest class, 1; it must leave"):
        datasets.load(
            "npz", path=str(path), imbalance=None, test_fraction=0.4, generator=torch.Generator()
        )


@pytest.mark.parametrize("family", QUICK)
def test_a_run_is_resumed_on_the_same_arrays_wherever_they_are(tmp_path, family, monkeypatch):
    make, first, longer = QUICK[family]
    path = write(tmp_path / "x.npz")
    run(make(data="npz", path=str(path), **first), tmp_path / "run", progress=False)

    def resume(where):
        config = make(data="npz", path=str(where), **longer)
        return run(config, tmp_path / "run", resume=True, progress=False)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.npz").symlink_to(path)
    for where in ("x.npz", "link.npz"):
        resume(where)
    os.rename(path, tmp_path / "moved.npz")
    resume(tmp_path / "moved.npz")
    # Other bytes of the same arrays.
    with np.load(tmp_path / "moved.npz") as arrays:
        np.savez_compressed(tmp_path / "compressed.npz", **arrays)
        # Of x what is read is float32, of y int64.
        short = {"x": arrays["x"].astype(np.float32), "y": arrays["y"].astype(np.int8)}
    np.savez(tmp_path / "short.npz", **short)
    for where in ("compressed.npz", "short.npz"):
        resume(where)
    for changes in ({"shift": 1e-3}, {"sizes": [80, 31, 12, 6]}, {"columns": 4}):
        write(tmp_path / "moved.npz", **changes)
        with pytest.raises(CheckpointError, match="holds a run on other data"):
            resume("moved.npz")


def test_the_layout_is_for_npz_alone():
    assert GradientConfig(data="npz", path="x", channels="last").channels == "last"
    with pytest.raises(ValueError, match="channels='last': only data npz reads it"):
        GradientConfig(channels="last")
