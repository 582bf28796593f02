"""Images in folders: how they are listed and decoded, and what is malformed."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rskernels.rsft.data.listed import Bad, read_image_folder
from rskernels.rsft.data.listed.images import decode
from rskernels.rsft.errors import DataError


def write(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.full((4, 4, 3), 7, np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def classes(folder, sizes=(3, 2), start=0):
    for label, size in enumerate(sizes):
        for number in range(size):
            value = np.full((4, 4), start + 10 * label + number, np.uint8)
            write(folder / f"class{label}" / f"{number}.png", value)
    return folder


def halves(height, width):
    """Red on the left, green on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 1] = 255
    return pixels


def test_an_image_is_cut_at_the_middle_and_scaled(tmp_path):
    pixels = decode(write(tmp_path / "wide.png", halves(20, 60)), 10)
    assert pixels.shape == (3, 10, 10)
    assert pixels.dtype == np.uint8
    assert (pixels[0, :, :4] == 255).all()
    assert (pixels[1, :, 6:] == 255).all()
    assert (pixels[2] == 0).all()
    # The thirds at both sides are cut off.
    sides = np.full((20, 60, 3), 255, np.uint8)
    sides[:, 20:40] = 0
    middle = decode(write(tmp_path / "sides.png", sides), 20)
    assert (middle == 0).all()


def test_an_image_is_turned_as_its_camera_was(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: what is left is to be at the top
    pixels = decode(write(tmp_path / "turned.png", halves(20, 20), exif=exif), 20)
    assert (pixels[0, :9] == 255).all()
    assert (pixels[1, 11:] == 255).all()


def test_grey_images_palettes_and_alpha_become_red_green_and_blue(tmp_path):
    grey = write(tmp_path / "grey.png", np.full((5, 5), 9, np.uint8))
    alpha = write(tmp_path / "alpha.png", np.full((5, 5, 4), 9, np.uint8))
    palette = tmp_path / "palette.gif"
    Image.fromarray(np.full((5, 5, 3), 9, np.uint8)).quantize(4).save(palette)
    for path in (grey, alpha, palette):
        assert decode(path, 5).max() == decode(path, 5).min() == 9


def test_a_folder_a_class_in_the_order_of_their_names(tmp_path):
    folder = classes(tmp_path)
    write(folder / "class1" / "deeper" / "9.JPG")
    write(folder / "class1" / ".hidden.png")
    write(folder / ".cache" / "no.png")
    files, test = read_image_folder(folder)
    assert test is None
    assert files.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [path.name for path in files.paths] == [
        "0.png",
        "1.png",
        "2.png",
        "0.png",
        "1.png",
        "9.JPG",
    ]
    assert not files.is_target.any()
    some, _ = files.take(torch.tensor([4, 1])).read(4, Bad(0))
    assert some.inputs[:, 0, 0, 0].tolist() == [11, 1]
    assert some.labels.tolist() == [1, 0]


def test_parts_to_train_and_to_test_on(tmp_path, capsys):
    classes(tmp_path / "train")
    classes(tmp_path / "val", start=50)
    (tmp_path / "val" / "class0" / "notes.md").touch()
    train, test = read_image_folder(tmp_path)
    assert (len(train.paths), len(test.paths)) == (5, 5)
    assert test.read(4, Bad(0))[0].inputs.min() == 50
    assert "1 file(s) of other kinds are not read" in capsys.readouterr().err


def test_parts_of_two_domains(tmp_path):
    for start, part in enumerate(("source", "target", "test")):
        classes(tmp_path / part, sizes=(3 - start, 2), start=100 * start)
    train, test = read_image_folder(tmp_path)
    assert train.is_target.tolist() == [False] * 5 + [True] * 4
    images, is_target = train.read(4, Bad(0))
    assert images.inputs[is_target].min() == 100
    assert len(test.paths) == 3


def broken(folder):
    """Three files that are no images, each in its own way, among five that are."""
    classes(folder)
    whole = write(folder / "class0" / "cut.png", halves(50, 50)).read_bytes()
    (folder / "class0" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "class0" / "text.png").write_text("no image", encoding="utf-8")
    write(folder / "class1" / "deep.png", np.full((4, 4), 700, np.uint16))
    return folder


def test_malformed_images_are_counted_and_named(tmp_path, capsys):
    files, _ = read_image_folder(broken(tmp_path))
    bad = Bad(2)
    images, _ = files.read(4, bad)
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11]
    with pytest.raises(DataError, match="3 images cannot be used: ") as error:
        bad.check("images")
    for told in ("cut.png: ", "text.png: ", "deep.png: its pixels are of mode I;16", "max_bad=2"):
        assert told in str(error.value)
    bad.most = 3
    bad.check("images")
    assert "3 images cannot be used" in capsys.readouterr().err


def test_only_malformed_images_are_none(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.png").touch()
    with pytest.raises(DataError, match="none of 2 images can be used"):
        read_image_folder(tmp_path)[0].read(4, Bad(5))


REFUSED = {
    "no folder": (lambda folder: None, "is no folder"),
    "no class": (lambda folder: folder.mkdir(), r"holds 0 folder\(s\)"),
    "one class": (lambda folder: classes(folder, (3,)), r"holds 1 folder\(s\), class0"),
    "an empty class": (
        lambda folder: (classes(folder), (folder / "class2").mkdir()), "class2 holds no file of",
    ),
    "a class of one part": (
        lambda folder: (classes(folder / "train"), classes(folder / "test", (1, 1, 1))),
        "differ in class 'class2'",
    ),
    "domains without a test": (
        lambda folder: (classes(folder / "source"), classes(folder / "target")), "needed is test",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_not_as_it_should_be(tmp_path, case):
    make, message = REFUSED[case]
    make(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        read_image_folder(tmp_path / "images")


def private_memory():
    """Return the bytes that no file holds."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_memory_does_not_grow_with_the_images(tmp_path):
    one = write(tmp_path / "a" / "0.png", np.full((2, 2), 200, np.uint8))
    for label in ("a", "b"):
        (tmp_path / label).mkdir(exist_ok=True)
        for number in range(1, 601):
            os.link(one, tmp_path / label / f"{number}.png")
    files, _ = read_image_folder(tmp_path)
    files.take(torch.arange(300)).read(128, Bad(0))  # what the first call needs for good
    before = private_memory()
    images, _ = files.read(128, Bad(0))
    assert images.inputs.numel() == 1201 * 3 * 128 * 128  # 59 MB
    assert private_memory() - before < 20e6
    assert (images.inputs[::100] == 200).all()
    assert private_memory() - before < 20e6
