import hashlib
import io
import os
import pickle
import random
import resource

import pytest
import torch

from rskernels.rsft.artifacts import checkpoint
from rskernels.rsft.errors import CheckpointError

CONFIG = {"seed": 0, "epochs": 2}


def load(path, config=CONFIG):
    return checkpoint.load(path, expected=config, free=frozenset({"epochs"}))


def write(path, content):
    """Write anything with a digest that fits."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    path.write_bytes(checkpoint.MAGIC + hashlib.sha256(payload).digest() + payload)


class Exploit:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"config": CONFIG, "weights": torch.arange(3.0)})
    assert torch.equal(load(path)["weights"], torch.arange(3.0))
    assert list(tmp_path.iterdir()) == [path]


def test_failed_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"config": CONFIG, "step": 1})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        checkpoint.save(path, {"config": CONFIG, "step": lambda: None})
    assert load(path)["step"] == 1


@pytest.mark.parametrize("content", [torch.__version__, torch.distributions.Normal(0.0, 1.0)])
def test_what_could_not_be_read_again_is_not_written(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"config": CONFIG, "step": 1})
    with pytest.raises(CheckpointError, match=r"would hold torch\..*, which `read` refuses"):
        checkpoint.save(path, {"config": CONFIG, "step": content})
    assert load(path)["step"] == 1


def test_a_full_disk_keeps_the_old_checkpoint_and_gets_its_room_back(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"config": CONFIG, "step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(path, {"config": CONFIG, "weights": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_absent(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_damaged(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"config": CONFIG})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


@pytest.mark.parametrize("seed", range(30))
def test_every_flip_and_truncation_is_found(tmp_path, seed):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"config": CONFIG, "weights": torch.arange(50.0)})
    content = bytearray(path.read_bytes())
    source = random.Random(seed)
    place = source.randrange(len(content))
    if seed % 2:
        content[place] ^= source.randrange(1, 256)
    else:
        del content[place:]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    ("content", "missing"), [({}, "config, weights"), ({"config": CONFIG}, "weights")]
)
def test_incomplete(tmp_path, content, missing):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, content)
    with pytest.raises(CheckpointError, match=f"lacks {missing}$"):
        checkpoint.load(path, expected=CONFIG, free=frozenset(), needed=frozenset({"weights"}))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path, marker = tmp_path / "checkpoint.pt", tmp_path / "executed"
    write(path, {"format": checkpoint.FORMAT, "config": Exploit(marker)})
    with pytest.raises(CheckpointError, match="not loaded"):
        load(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [{"format": 99, "config": CONFIG}, {"a": 1}, torch.zeros(2)])
def test_other_format(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    write(path, content)
    with pytest.raises(CheckpointError, match="reads format"):
        load(path)


def test_other_configuration_names_what_differs(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"config": CONFIG})
    assert load(path, {"seed": 0, "epochs": 9})["config"] == CONFIG
    with pytest.raises(CheckpointError, match="seed was 0, is 1"):
        load(path, {"seed": 1, "epochs": 2})
