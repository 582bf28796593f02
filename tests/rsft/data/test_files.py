"""Data read from files, and what is said of files that are missing, truncated or malformed."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
import torch

from rskernels.experiments.datasets import load
from rskernels.rsft.data.files import read_idx, read_mnist, read_npz
from rskernels.rsft.errors import DataError

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array):
    """Return an array of bytes in the IDX format."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def arrays(rows=60, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return (
        random.integers(256, size=(rows, 6, 8)).astype(np.uint8),
        (np.arange(rows) % classes).astype(np.uint8),
    )


@pytest.fixture
def mnist(tmp_path):
    contents = (*arrays(60), *arrays(30, seed=1))
    for name, content in zip(NAMES, contents, strict=True):
        (tmp_path / name).write_bytes(idx(content))
    return tmp_path


def test_mnist_is_read_as_it_is(mnist):
    train, test = read_mnist(mnist)
    images, labels = arrays(60)
    assert train.inputs.shape == (60, 1, 6, 8)
    assert torch.equal(train.inputs[:, 0], torch.from_numpy(images).float() / 255)
    assert torch.equal(train.labels, torch.from_numpy(labels).long())
    assert test.inputs.shape == (30, 1, 6, 8)


def test_other_names_of_the_same_files(mnist):
    expected = read_mnist(mnist)
    for name in NAMES[:2]:
        content = (mnist / name).read_bytes()
        (mnist / name).unlink()
        (mnist / f"{name}.gz").write_bytes(gzip.compress(content))
    (mnist / NAMES[2]).rename(mnist / "t10k-images.idx3-ubyte")
    for got, want in zip(read_mnist(mnist), expected, strict=True):
        assert torch.equal(got.inputs, want.inputs)
        assert torch.equal(got.labels, want.labels)


def test_the_files_own_test_set_is_kept(mnist):
    data = load(
        "mnist",
        path=str(mnist),
        imbalance=4,
        test_fraction=0.4,
        generator=torch.Generator().manual_seed(0),
    ).data
    assert len(data.test.labels) == 30
    assert data.counts.max() == 4 * data.counts.min()


@pytest.mark.parametrize("cut", [0, 3, 15, 16, 17, -1])
def test_every_truncation_is_said_with_the_file(mnist, cut):
    path = mnist / NAMES[0]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=f"{NAMES[0]} is truncated"):
        read_mnist(mnist)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b + b"\0", "is too long: 2881 bytes after the header, .* = 2880"),
        (lambda b: b"\x1f\x8b" + b[2:], "starts with 1f8b0803, not with 00000803"),
        (lambda b: b[:2] + b"\x0d" + b[3:], "starts with 00000d03"),
        (lambda b: b[:3] + b"\1" + b[4:], "starts with 00000801"),
        (lambda b: b[:4] + b"\xff" * 12, "is truncated: 0 bytes after the header"),
    ],
)
def test_what_is_no_idx_file(mnist, damage, message):
    path = mnist / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        read_mnist(mnist)


def test_damaged_compression(tmp_path):
    path = tmp_path / "x.gz"
    whole = gzip.compress(idx(arrays()[0]))
    for content in (whole[:-20], b"no gzip", whole[:100] + b"\xff" * 40 + whole[140:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.gz cannot be read"):
            read_idx(path, 3)


def test_missing_files_are_named(mnist):
    (mnist / NAMES[3]).unlink()
    with pytest.raises(DataError, match=r"holds no t10k-labels-idx1-ubyte, nor .*gz"):
        read_mnist(mnist)
    with pytest.raises(DataError, match="absent is no folder; mnist needs one with train-images"):
        read_mnist(mnist / "absent")


def test_images_without_labels(mnist):
    (mnist / NAMES[1]).write_bytes(idx(arrays(59)[1]))
    with pytest.raises(DataError, match=r"holds 60 images, .* 59 labels"):
        read_mnist(mnist)


def write(path, **contents):
    np.savez(path, **contents)
    return path


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((12, 5), (12, 5)), ((12, 4, 6), (12, 1, 4, 6)), ((12, 3, 4, 6), (12, 3, 4, 6))],
)
def test_npz_of_any_shape(tmp_path, shape, expected):
    x = np.random.default_rng(0).normal(size=shape)
    train, test = read_npz(write(tmp_path / "x.npz", x=x, y=np.arange(12) % 2))
    assert test is None
    assert train.inputs.shape == expected
    assert torch.equal(train.inputs.flatten(), torch.from_numpy(x).float().flatten())


def test_npz_with_a_test_set(tmp_path):
    x, y = arrays(12)
    names = {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6]}
    train, test = read_npz(write(tmp_path / "x.npz", **names))
    assert train.inputs.max() <= 1
    assert torch.equal(test.inputs, train.inputs[:6])
    names["x_test"] = x[:6, :3]
    with pytest.raises(DataError, match=r"x_test of .* has samples \[1, 3, 8\], x_train .* 6, 8"):
        read_npz(write(tmp_path / "x.npz", **names))


Y = np.arange(6) % 2


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a": Y}, "holds a, needed are x_train, y_train, x_test, y_test; or x, y"),
        ({}, "holds nothing"),
        ({"x": np.zeros(6), "y": Y}, r"x of .* has shape \[6\]; accepted are \[N, D\]"),
        ({"x": np.zeros((0, 2)), "y": Y[:0]}, r"has shape \[0, 2\]"),
        ({"x": np.zeros((6, 2), complex), "y": Y}, "x of .* is complex128, real"),
        ({"x": np.full((6, 2), np.nan), "y": Y}, "x of .* holds a number that is NaN"),
        ({"x": np.full((6, 2), 1e300), "y": Y}, "beyond float32"),
        ({"x": np.zeros((6, 2)), "y": Y.astype(float)}, r"y of .* is float64 \[6\], integers"),
        ({"x": np.zeros((6, 2)), "y": Y[:5]}, r"int64 \[5\], integers \[6\] are needed"),
        ({"x": np.zeros((6, 2)), "y": Y - 1}, "y of .* holds -1 to 0; classes must be 0"),
        ({"x": np.zeros((6, 2)), "y": Y + 100}, "holds 100 to 101"),
        ({"x": np.zeros((6, 2)), "y": 2 * Y}, "no row of class 1, but of 2"),
        ({"x": np.array([[None]] * 6), "y": Y}, "cannot be read: Object arrays"),
    ],
)
def test_arrays_that_are_no_data(tmp_path, contents, message):
    with pytest.raises(DataError, match=message):
        read_npz(write(tmp_path / "x.npz", **contents))


def test_what_is_no_npz_file(tmp_path):
    path = write(tmp_path / "x.npz", x=np.zeros((6, 2)), y=Y)
    whole = path.read_bytes()
    for content in (whole[:-30], b"", b"text", whole[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.npz cannot be read"):
            read_npz(path)
    # Flags of each member, in the file and in its directory: encrypted; of compression 99.
    for local, central, value in ((6, 8, 1), (8, 10, 99)):
        changed = bytearray(whole)
        for mark, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
            changed[whole.index(mark) + place] = value
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"x\.npz cannot be read: .*(encrypted|not supported)"):
            read_npz(path)
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(DataError, match="holds one array"):
        read_npz(tmp_path / "y.npy")
    with pytest.raises(DataError, match=r"absent\.npz cannot be read: .*No such file"):
        read_npz(tmp_path / "absent.npz")


def test_an_npz_file_that_promises_more_than_fits_in_memory(tmp_path):
    head, path = io.BytesIO(), tmp_path / "x.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 50, 4)}
    np.lib.format.write_array_header_1_0(head, header)
    with zipfile.ZipFile(path, "w") as file:
        for name in ("x.npy", "y.npy"):
            file.writestr(name, head.getvalue())
    with pytest.raises(DataError, match=r"x\.npz cannot be read: Unable to allocate"):
        read_npz(path)


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("mnist", None, "needs a path"),
        ("npz", None, "needs a path"),
        ("digits", "x", "is bundled and takes no path"),
    ],
)
def test_a_path_is_given_where_it_is_needed(name, path, message):
    with pytest.raises(ValueError, match=message):
        load(name, path=path, imbalance=1, test_fraction=0.4, generator=torch.Generator())


def test_classes_to_test_on_are_those_to_train_on(tmp_path):
    x, y = arrays(12)
    path = write(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4] % 2)
    with pytest.raises(DataError, match=r"classes \[0, 1, 2\] to train on and \[0, 1\] to test on"):
        load("npz", path=str(path), imbalance=1, test_fraction=0.4, generator=None)
