"""Image folders, from their files to a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rskernels.experiments.config import GradientConfig, SampleConfig, TuneConfig
from rskernels.experiments.families import run
from rskernels.experiments.train import make_task
from rskernels.rsft.errors import DataError

from .noise import SIZES, generator, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("images"))


FAMILIES = {
    "accept": (GradientConfig, {"epochs": 1}),
    "transfer": (GradientConfig, {"method": "transfer", "epochs": 1, "pretrain_epochs": 1}),
    "proposal": (GradientConfig, {"method": "proposal", "epochs": 1, "pretrain_epochs": 1}),
    "tune": (TuneConfig, {"rounds": 1, "draws": 50}),
    "sample": (SampleConfig, {"steps": 10, "chains": 2}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_a_folder_as_it_reads_the_same_arrays(tmp_path, folder, family):
    make, options = FAMILIES[family]
    paths = sorted(Path(folder).rglob("*.png"))
    x = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.savez(tmp_path / "x.npz", x=x, y=np.repeat([0, 1], SIZES))
    told = []
    for data in (
        {"data": "imagefolder", "path": folder, "image_size": 8},
        {"data": "npz", "path": str(tmp_path / "x.npz"), "channels": "last"},
    ):
        out = tmp_path / data["data"]
        run(make(**data, **options), out, progress=False)
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        told.append([{k: v for k, v in json.loads(x).items() if "second" not in k} for x in lines])
    assert told[0] == told[1] != []


def test_what_is_malformed_is_left_out_where_that_is_accepted(tmp_path, capsys):
    path = write(tmp_path / "images")
    (tmp_path / "images" / "class0" / "03.png").write_bytes(b"none")
    options = {"data": "imagefolder", "path": path, "test_fraction": 0.25}
    with pytest.raises(DataError, match=r"1 images cannot be used: .*03\.png.*max_bad=0 accepts"):
        make_task(GradientConfig(**options), generator())
    task = make_task(GradientConfig(**options, max_bad=1), generator())
    assert len(task.pool.labels) + len(task.test.labels) == sum(SIZES) - 1
    assert "1 images cannot be used" in capsys.readouterr().err
    for damaged in (tmp_path / "images" / "class1").iterdir():
        damaged.write_bytes(b"none")
    with pytest.raises(DataError, match="no image of class 1 is left in one of the two parts"):
        make_task(GradientConfig(**options, max_bad=99), generator())


def test_a_source_and_a_target_of_files_stay_as_they_are(tmp_path):
    for seed, part in enumerate(("source", "target", "test")):
        write(tmp_path / part, (5, 5 - seed), seed)
    options = {"data": "imagefolder", "path": str(tmp_path), "image_size": 8}
    task = make_task(GradientConfig(method="transfer", pretrain_epochs=1, **options), generator())
    source = np.stack(
        [np.asarray(Image.open(p)) for p in sorted((tmp_path / "source").rglob("*.png"))]
    )
    expected = torch.from_numpy(source).movedim(3, 1).float() / 255
    torch.testing.assert_close(task.pool.inputs[:10], expected)
    assert task.pool.labels.tolist() == [0] * 5 + [1] * 5 + [0] * 5 + [1] * 4
    with pytest.raises(DataError, match="holds a source and a target: methods transfer and prop"):
        make_task(GradientConfig(method="accept", **options), generator())
