"""Arrays of a user's own: how they are read, what is said of it, and what is refused."""

import tracemalloc

import numpy as np
import pytest
import torch

from rskernels.rsft.data.arrays import Part, make_samples
from rskernels.rsft.data.digest import digest
from rskernels.rsft.data.files import read_npz
from rskernels.rsft.data.samples import Named
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


@pytest.mark.parametrize("scale", [0.1, 2])
def test_real_images_about_zero_stay_and_beyond_1_that_is_said(tmp_path, capsys, scale):
    x = np.random.default_rng(0).normal(scale=scale, size=(6, 1, 8, 8)).astype(np.float32)
    assert torch.equal(read(tmp_path, x=x, y=Y), torch.from_numpy(x))
    said = capsys.readouterr().err
    assert ("is not scaled: real numbers about 0 are taken as standardised" in said) == (scale > 1)


SCALES = {
    "digits": (np.linspace(0, 16, 64), 16),
    "little above 1": (np.linspace(0, 1.5, 64), 1.5),
    "about 0": (np.linspace(0, 16, 64) * 16 - 128, 128),
    "signed": (np.linspace(-100, 90, 64), 100),
    "signed whole numbers": (np.arange(-5, 59) // 10, 5),
    "a little below 0": (np.linspace(-1e-6, 20, 64), 20),
    "faint": (np.linspace(0, 1e-3, 64), 1e-3),
    "below float32": (np.linspace(0, 1e-60, 64), 1e-60),
    "int64": (np.linspace(-(2**62), 2**62, 64).astype(np.int64), 2**62),
}


@pytest.mark.parametrize("kind", SCALES)
def test_other_images_are_divided_by_the_largest_and_that_is_said(tmp_path, capsys, kind):
    x, factor = SCALES[kind]
    x = np.tile(x.reshape(1, 1, 8, 8), (6, 1, 1, 1))
    got = read(tmp_path, x=x, y=Y)
    assert torch.equal(got, torch.from_numpy((x / factor).astype(np.float32)))
    assert f"is divided by {factor:g}" in capsys.readouterr().err


def two(tmp_path, train, test):
    """Return both parts of a file of images that hold all numbers between two."""
    x = [np.linspace(*each, 6 * 64).reshape(6, 1, 8, 8) for each in (train, test)]
    return x, read(tmp_path, x_train=x[0], y_train=Y, x_test=x[1], y_test=Y)


@pytest.mark.parametrize(
    ("train", "test", "factor"),
    [
        ((0, 16.2), (0, 15.9), 16.2),
        ((-1e-6, 20), (0, 20), 20),
        ((-100, 100), (0, 90), 100),
        ((-9, 9), (-11, 11), 11),
        ((0, 1), (0, 1.01), 1.01),
        ((0, 127), (0, 255), 255),
    ],
)
def test_parts_of_one_scale_are_divided_by_one_factor(tmp_path, train, test, factor):
    x, got = two(tmp_path, train, test)
    for mine, want in zip(got, x, strict=True):
        assert torch.equal(mine, torch.from_numpy((want / factor).astype(np.float32)))


@pytest.mark.parametrize(
    ("train", "test"),
    [((0, 255), (0, 1)), ((0, 16), (0, 1)), ((0, 65535), (0, 255)), ((-3, 3), (0, 255))],
)
def test_parts_of_other_scales_are_refused(tmp_path, train, test):
    for parts in ((train, test), (test, train)):
        with pytest.raises(DataError, match=r"have different scales, x_train .* and x_test .*: br"):
            two(tmp_path, *parts)


def test_a_dark_test_set_of_bytes_has_the_scale_of_bytes(tmp_path):
    x = images(1)
    _, test = read(tmp_path, x_train=x, y_train=Y, x_test=x // 25, y_test=Y)
    assert torch.equal(test, torch.from_numpy(x // 25).float() / 255)


def test_images_whose_contrast_float32_would_lose_are_refused(tmp_path):
    for x in (1e9 + images(1), 2**60 + images(1).astype(np.int64)):
        with pytest.raises(DataError, match="float32 would round away how they differ: subtract"):
            read(tmp_path, x=x, y=Y)


def test_what_could_be_read_otherwise_is_said(tmp_path, capsys):
    x = np.random.default_rng(0).random((6, 8, 3), np.float32)
    assert torch.equal(read(tmp_path, x=x, y=Y)[:, 0], torch.from_numpy(x))
    assert "[6, 8, 3], is read as grey images of 8x3 pixels" in capsys.readouterr().err
    assert torch.equal(read(tmp_path, x=x[:, None], y=Y)[:, 0], torch.from_numpy(x))
    assert "is read as 8x3 pixels of 1 channels, which come first" in capsys.readouterr().err
    read(tmp_path, "first", x=x[:, None], y=Y)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shape", [(6, 3), (6, 8, 3)])
def test_where_channels_are_is_not_told_of_what_has_none(tmp_path, shape):
    with pytest.raises(DataError, match=r"x of .* and so no channels: channels='last' is for"):
        read(tmp_path, "last", x=np.zeros(shape), y=Y)


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
    x = np.stack([times, np.arange(6.0), np.full(6, 1.7e9)], axis=1)
    got = read(tmp_path, x=x, y=Y)
    assert torch.equal(got[:, 0], torch.arange(6.0) / 5)
    assert torch.equal(got[:, 1:], torch.from_numpy(x[:, 1:]).float())
    assert "column(s) 0 are brought to 0 … 1" in capsys.readouterr().err


def test_a_column_over_all_integers_is_read(tmp_path):
    x = np.array([-(2**63), 2**63 - 1] * 3)[:, None]
    assert read(tmp_path, x=x, y=Y)[:, 0].tolist() == [-(2.0**63), 2.0**63] * 3
    far = np.tile(x, (1, 2)) // [1, 2**62] + np.array([0, 2**60])
    assert read(tmp_path, x=far, y=Y)[:, 1].tolist() == [0, 1] * 3


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64, np.longdouble])
def test_a_test_set_may_be_below_what_is_trained_on_and_of_another_type(tmp_path, dtype):
    base, i = 2**50, np.arange(6)
    x = (base + 10 * i)[:, None]
    names = {"x_train": x, "y_train": Y, "x_test": (base + i - 3)[:, None].astype(dtype)}
    train, test = read(tmp_path, **names, y_test=Y)
    assert torch.equal(train[:, 0], torch.arange(6) * 10 / 50)
    assert torch.equal(test[:, 0], (torch.arange(6) - 3) / 50)


def test_the_memory_that_a_table_takes_besides_is_bounded(tmp_path):
    x = np.random.default_rng(0).normal(size=(2000, 4000)).astype(np.float32)
    parts = [Part(Named(x, "x"), Named(np.arange(2000) % 2, "y"))]
    tracemalloc.start()
    try:
        make_samples(parts)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1.5 * x.nbytes  # float64 of all of it would be twice as much


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


def test_the_digest_is_of_values_however_they_are_held():
    z = torch.complex(torch.arange(3.0), torch.ones(3))
    assert digest([z.conj()]) == digest([z.conj().resolve_conj()])
    assert digest([z.conj().imag]) == digest([-torch.ones(3)])
    for tensor in (torch.eye(3).to_sparse(), torch.empty(3, device="meta")):
        with pytest.raises(TypeError, match="a digest is of dense tensors that hold numbers, got"):
            digest([tensor])
