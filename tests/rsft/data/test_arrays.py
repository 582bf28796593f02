"""Arrays of a user's own: how they are read, what is said of it, and what is refused."""

import numpy as np
import pytest
import torch

from rskernels.rsft.data.digest import digest
from rskernels.rsft.data.files import read_npz
from rskernels.rsft.errors import DataError

Y = np.arange(6) % 2


def images(channels, height=8, width=6, rows=6):
    """Return images of bytes, channels first."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, size=(rows, channels, height, width)).astype(np.uint8)
    x[0, 0, 0, 0] = 255
    return x


def read(tmp_path, channels=None, **contents):
    np.savez(tmp_path / "x.npz", **contents)
    train, test = read_npz(tmp_path / "x.npz", channels)
    return train.inputs if test is None else (train.inputs, test.inputs)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_that_come_last_are_recognised_and_said(tmp_path, capsys, channels):
    x = images(channels)
    got = read(tmp_path, x=x.transpose(0, 2, 3, 1), y=Y)
    assert torch.equal(got, torch.from_numpy(x).float() / 255)
    assert (
        f"is read as 8x6 pixels of {channels} channels, which come last" in capsys.readouterr().err
    )
    assert torch.equal(read(tmp_path, x=x, y=Y), got)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shape", [(3, 32, 3), (3, 4, 4), (2, 8, 8), (8, 8, 2), (1, 8, 1)])
def test_a_shape_that_tells_no_layout_is_refused_unless_it_is_given(tmp_path, shape):
    x = np.random.default_rng(0).random((6, *shape), np.float32)
    with pytest.raises(DataError, match=r"may be .* channels of .* pixels: say which by channels"):
        read(tmp_path, x=x, y=Y)
    assert torch.equal(read(tmp_path, "first", x=x, y=Y), torch.from_numpy(x))
    assert torch.equal(read(tmp_path, "last", x=x, y=Y), torch.from_numpy(x.transpose(0, 3, 1, 2)))


def test_train_and_test_may_have_other_layouts(tmp_path):
    x = images(3)
    names = {"x_train": x.transpose(0, 2, 3, 1), "y_train": Y, "x_test": x, "y_test": Y}
    train, test = read(tmp_path, **names)
    assert torch.equal(train, test)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32, np.float64, np.float16, ">f8"])
def test_images_to_255_of_any_type_are_scaled_and_said(tmp_path, capsys, dtype):
    x = images(3)
    got = read(tmp_path, x=x.astype(dtype), y=Y)
    assert torch.equal(got, torch.from_numpy(x).float() / 255)
    assert "is divided by 255" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.uint16, 65535), (np.int32, 4095), (np.uint8, 16)]
)
def test_whole_numbers_are_divided_by_the_largest(tmp_path, capsys, dtype, largest):
    x = np.linspace(0, largest, 6 * 64).reshape(6, 8, 8).astype(dtype)
    got = read(tmp_path, x=x, y=Y)
    assert (got.min(), got.max()) == (0, 1)
    assert f"is divided by {largest}" in capsys.readouterr().err


@pytest.mark.parametrize("x", [images(1) > 99, (images(1) > 99).astype(np.uint8)])
def test_images_of_two_values_stay(tmp_path, x):
    assert read(tmp_path, x=x, y=Y).unique().tolist() == [0, 1]


def test_images_about_zero_stay(tmp_path, capsys):
    x = np.random.default_rng(0).normal(scale=20, size=(6, 8, 8)).astype(np.float32)
    assert torch.equal(read(tmp_path, x=x, y=Y)[:, 0], torch.from_numpy(x))
    assert capsys.readouterr().err == ""


def test_train_and_test_are_scaled_alike_or_refused(tmp_path):
    x = images(3)
    names = {"x_train": x, "y_train": Y, "x_test": x.astype(float), "y_test": Y}
    train, test = read(tmp_path, **names)
    assert torch.equal(train, test)
    names["x_test"] = x / 255
    with pytest.raises(DataError, match=r"different scales, x_train .* 255 and x_test .* 1.0"):
        read(tmp_path, **names)


def test_a_column_far_from_zero_keeps_what_it_holds(tmp_path, capsys):
    """Seconds since 1970: float32 tells those apart that are 128 apart."""
    times = 1.7e9 + np.arange(6.0)
    x = np.stack([times, np.arange(6.0)], axis=1)
    got = read(tmp_path, x=x, y=Y)
    assert torch.equal(got[:, 0] - got[0, 0], torch.arange(6.0))
    assert torch.equal(got[:, 1], torch.arange(6.0))
    assert "the mean of column(s) 0 is subtracted" in capsys.readouterr().err


def test_rows_that_hold_no_numbers_are_counted(tmp_path):
    x = np.zeros((6, 3))
    x[2, 1], x[4, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="in 2 of its 6 rows, row 2 first"):
        read(tmp_path, x=x, y=Y)


def test_labels_in_one_column_are_read_and_others_told_how_to_make(tmp_path, capsys):
    x = np.zeros((6, 2))
    read(tmp_path, x=x, y=Y[:, None])
    assert "[6, 1], is read as labels [6]" in capsys.readouterr().err
    for y in (Y.astype(float), Y.astype(str), Y == 1, Y + 1, Y - 1, 2 * Y):
        with pytest.raises(DataError, match=r"np\.unique\(y, return_inverse=True\)\[1\] numbers"):
            read(tmp_path, x=x, y=y)
    with pytest.raises(DataError, match=r"y\.argmax\(axis=1\) makes them"):
        read(tmp_path, x=x, y=np.eye(2)[Y])


def test_arrays_that_are_not_read_are_named(tmp_path, capsys):
    read(tmp_path, x=np.zeros((6, 2)), y=Y, groups=Y, w=Y)
    assert "x, y are read, not groups, w" in capsys.readouterr().err


def test_the_digest_is_of_values_shapes_dtypes_and_order():
    x, y = torch.arange(6.0), torch.arange(3)
    assert digest([x, y]) == digest([x.clone(), y.clone()])
    others = ([y, x], [x.view(2, 3), y], [x.double(), y], [x + 1, y], [x, None, y], [x])
    assert len({digest(each) for each in (*others, [x, y])}) == 7
    assert digest([x.view(2, 3).T]) == digest([x.view(2, 3).T.contiguous()])
