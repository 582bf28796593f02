"""Image backbones, from the files of their weights to a run."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rskernels.experiments.config import GradientConfig
from rskernels.experiments.families import run
from rskernels.experiments.train import make_task
from rskernels.rsft.errors import CheckpointError, DataError

from .noise import SIZES, generator, write

BACKBONE = {"backbone": "torchvision:tiny18", "image_size": 8, "epochs": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("images"))


class Tiny(nn.Module):
    """A classification model as torchvision has them."""

    def __init__(self, classes=7):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3)
        self.bn1 = nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, classes)
        self.seen = 0

    def trunk(self, x):
        self.seen += len(x)
        return F.relu(self.bn1(self.conv1(x))).mean(dim=(2, 3))

    def forward(self, x):
        return self.fc(self.trunk(x))


class NoLinear(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.Conv2d(3, 2, 1))


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def torchvision(monkeypatch):
    """What is called of torchvision, with its signatures."""
    made = []
    models = types.ModuleType("torchvision.models")

    def get_model(name, **config):
        assert config == {"weights": None}
        made.append({"tiny18": Tiny, "conv18": NoLinear}[name]())
        return made[-1]

    def get_model_weights(name):
        preset = types.SimpleNamespace(mean=MEAN, std=STD)
        entry = types.SimpleNamespace(transforms=lambda: preset)
        return types.SimpleNamespace(DEFAULT=entry)

    def list_models(module=None, include=None, exclude=None):
        assert module is models
        return ["conv18", "tiny18"]

    models.get_model, models.get_model_weights = get_model, get_model_weights
    models.list_models, models.made = list_models, made
    package = types.ModuleType("torchvision")
    package.models = models
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    tiny = Tiny()
    nn.init.uniform_(tiny.bn1.running_mean)
    torch.save(tiny.state_dict(), tmp_path / "tiny.pth")
    return str(tmp_path / "tiny.pth")


def features(weights, images, size=8):
    tiny = Tiny().eval()
    tiny.load_state_dict(torch.load(weights))
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    scale = [torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD)]
    with torch.no_grad():
        return tiny.trunk((images.expand(-1, 3, -1, -1) - scale[0]) / scale[1])


def test_features_are_those_of_the_backbone_without_its_head(torchvision, weights, folder):
    options = {**BACKBONE, "data": "imagefolder", "path": folder}
    plain = make_task(GradientConfig(data="imagefolder", path=folder, image_size=8), generator())
    task = make_task(GradientConfig(**options, weights=weights), generator())
    images = plain.pool.inputs.float() / 255
    torch.testing.assert_close(task.pool.inputs, features(weights, images))
    assert {name for name, _ in task.model.named_parameters()} == {"head.weight", "head.bias"}


def test_grey_images_of_any_size_have_features_too(torchvision, weights):
    task = make_task(GradientConfig(**{**BACKBONE, "image_size": 12}, weights=weights), generator())
    plain = make_task(GradientConfig(), generator())
    torch.testing.assert_close(task.pool.inputs, features(weights, plain.pool.inputs, 12))


def test_a_head_is_transferred_upon_features_that_are_computed_once(
    torchvision, weights, tmp_path, folder
):
    options = {**BACKBONE, "method": "transfer", "data": "imagefolder", "path": folder}
    config = GradientConfig(**options, weights=weights, pretrain_epochs=3, test_fraction=0.25)
    summary = run(config, tmp_path / "run", progress=False)
    # Each image once, and the grey one that tells the width.
    assert torchvision.made[0].seen == sum(SIZES) + 1
    assert 0 < summary["gradient_samples"] <= summary["rows"]
    task = make_task(config, generator())
    assert task.logits is not None
    # Where the weights are does not matter, what they are does.
    moved = tmp_path / "moved.pth"
    Path(weights).rename(moved)
    longer = {**options, "epochs": 3, "pretrain_epochs": 3, "test_fraction": 0.25}
    resumed = GradientConfig(**longer, weights=str(moved))
    assert run(resumed, tmp_path / "run", resume=True, progress=False)["epoch"] == 3
    state = torch.load(moved)
    state["conv1.bias"] += 1
    torch.save(state, moved)
    with pytest.raises(CheckpointError, match="on other data"):
        run(resumed, tmp_path / "run", resume=True, progress=False)


def test_a_backbone_that_is_unfrozen_is_trained(torchvision, weights, tmp_path, folder):
    options = {**BACKBONE, "data": "imagefolder", "path": folder, "unfreeze": True}
    config = GradientConfig(**options, weights=weights)
    run(config, tmp_path / "run", progress=False)
    moved = torchvision.made[-1].conv1.weight
    assert not torch.equal(moved, torch.load(weights)["conv1.weight"])
    # And after transfer, with a new head upon what the source domain left.
    task = make_task(
        GradientConfig(**options, weights=weights, method="transfer", pretrain_epochs=1),
        generator(),
    )
    trained = {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert trained == {"head.weight", "head.bias"}


FORMS = {
    "nested": lambda state, path: torch.save({"model": state, "epoch": 3}, path),
    "parallel": lambda state, path: torch.save(
        {"state_dict": {f"module.{name}": value for name, value in state.items()}}, path
    ),
    "other classes": lambda state, path: torch.save(
        {**state, "fc.weight": torch.zeros(2, 5), "fc.bias": torch.zeros(2)}, path
    ),
    "safetensors": lambda state, path: __import__("safetensors.torch").torch.save_file(
        state, path
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_read_in_the_forms_that_they_are_kept_in(
    torchvision, weights, tmp_path, folder, form
):
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pt")
    FORMS[form](torch.load(weights), path)
    options = {**BACKBONE, "data": "imagefolder", "path": folder}
    one, other = (
        make_task(GradientConfig(**options, weights=str(p)), generator()) for p in (weights, path)
    )
    assert torch.equal(one.pool.inputs, other.pool.inputs)


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


WRONG = {
    "another model": ({"conv1.weight": torch.zeros(5, 3, 3, 3)}, "not fit the backbone in 6 names"),
    "another shape": (
        {**Tiny().state_dict(), "conv1.weight": torch.zeros(5, 3, 5, 5)},
        r"in 1 names: conv1.weight is \[5, 3, 3, 3\] in the backbone, \[5, 3, 5, 5\] in the file",
    ),
    "code": (Evil(), "cannot be read as weights alone"),
    "no tensors": ({"a": 3}, "holds no state dict"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_are_none_are_refused(torchvision, tmp_path, folder, case, capsys):
    content, message = WRONG[case]
    torch.save(content, tmp_path / "x.pth")
    options = {**BACKBONE, "data": "imagefolder", "path": folder}
    with pytest.raises(DataError, match=message):
        make_task(GradientConfig(**options, weights=str(tmp_path / "x.pth")), generator())
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none18", "digits", "no classification model 'none18'; it has conv18, tiny18"),
        ("conv18", "digits", "conv18 ends in 1, which is no linear layer"),
        ("tiny18", "wine", r"reads \[N, 3, H, W\] and \[N, 1, H, W\], got \[\d+, 13\]"),
    ],
)
def test_backbones_that_cannot_be_had(torchvision, weights, name, data, message):
    options = {**BACKBONE, "backbone": f"torchvision:{name}", "weights": weights, "data": data}
    with pytest.raises(DataError, match=message):
        make_task(GradientConfig(**options), generator())


def test_a_torchvision_that_is_absent_or_of_another_torch_is_said(tmp_path, monkeypatch, weights):
    config = GradientConfig(**BACKBONE, weights=weights)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        ModuleNotFoundError, match="needs torchvision, which is not installed: inst"
    ):
        make_task(config, generator())
    monkeypatch.delitem(sys.modules, "torchvision")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    message = "does not load beside torch .* for another .operator torchvision::nms does not exist"
    with pytest.raises(ImportError, match=message):
        make_task(config, generator())


def test_an_image_model_of_transformers(tmp_path, folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=8, patch_size=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    preset = {"image_mean": MEAN, "image_std": STD}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(preset), encoding="utf-8")
    options = {"data": "imagefolder", "path": folder, "image_size": 8}
    task = make_task(
        GradientConfig(**options, backbone=f"transformers:{tmp_path / 'vit'}"), generator()
    )
    images = make_task(GradientConfig(**options), generator()).pool.inputs.float() / 255
    scale = [torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD)]
    with torch.no_grad():
        hidden = model.vit((images - scale[0]) / scale[1]).last_hidden_state
    assert task.pool.inputs.shape == (len(images), 16)
    pooled = hidden.mean(dim=1)
    torch.testing.assert_close(task.pool.inputs, pooled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "timm:x"}, "accepted are torchvision:NAME and transformers:DIR"),
        ({"backbone": "torchvision:x"}, "needs weights, got weights=None"),
        ({"backbone": "transformers:x", "weights": "y"}, "has its weights in its folder"),
        ({"weights": "y"}, "weights='y': there is no backbone"),
        ({"unfreeze": True}, "unfreeze=True: there is no backbone"),
        ({"image_size": 9}, "only data imagefolder reads it"),
        ({"max_bad": 1}, "only data imagefolder or text reads it"),
        ({"data": "imagefolder"}, "needs a path"),
        ({"data": "multimodal", "backbone": "transformers:x"}, "has encoders of its own"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        GradientConfig(**options)
