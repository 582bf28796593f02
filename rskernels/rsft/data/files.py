"""Data sets read from files: the original MNIST, and any arrays in an npz file."""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from rskernels.rsft.data.arrays import Part, make_samples
from rskernels.rsft.data.samples import Named, Samples
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

MNIST_NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
IDX_BYTES = 0x08  # the type code of unsigned bytes
# What numpy and zipfile raise: RuntimeError for what is encrypted or of an unknown compression,
# MemoryError for a shape that no memory holds.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
NPZ_NAMES = (("x_train", "y_train", "x_test", "y_test"), ("x", "y"))


def read_mnist(folder: Path) -> tuple[Samples, Samples | None]:
    """Read the four IDX files of MNIST, or of a data set in its format, gzipped or not.

    Parameters
    ----------
    folder : Path
        With ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``
        and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``.

    Returns
    -------
    (Samples, Samples)
        Train and test; images ``[N, 1, H, W]`` in [0, 1].

    Raises
    ------
    DataError
        That names the file and what is wrong with it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; mnist needs one with {', '.join(MNIST_NAMES)}")
    parts = []
    for images_name, labels_name in (MNIST_NAMES[:2], MNIST_NAMES[2:]):
        images_path, labels_path = (_find(folder, name) for name in (images_name, labels_name))
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels"
            )
        grey = Named(images[:, None], str(images_path))
        parts.append(Part(grey, Named(labels, str(labels_path))))
    train, test = make_samples(parts)
    return train, test


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read a file of unsigned bytes in the IDX format, gzipped if its name ends in ``.gz``.

    Two zero bytes, the type's code, the number of dimensions, each one's length as four bytes, big
    end first, and the values (Y. LeCun, C. Cortes & C. Burges, "The MNIST database").

    Raises
    ------
    DataError
        If the file is absent, damaged, truncated, too long, or of another type or dimension.
    """
    start = 4 + 4 * dimensions
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            head = file.read(start)
            if len(head) < start:
                raise DataError(
                    f"{path} is truncated: {len(head)} bytes, less than the {start} of a header"
                )
            if head[:4] != bytes((0, 0, IDX_BYTES, dimensions)):
                raise DataError(
                    f"{path} starts with {head[:4].hex()}, not with 00000{IDX_BYTES}"
                    f"{dimensions:02x}: it is no IDX file of bytes in {dimensions} dimension(s)"
                )
            shape = struct.unpack(f">{dimensions}I", head[4:])
            expected = math.prod(shape)
            body = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(body) != expected:
        fault = "is truncated" if len(body) < expected else "is too long"
        raise DataError(
            f"{path} {fault}: {len(body)} bytes after the header, which says "
            f"{'×'.join(map(str, shape))} = {expected}"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_npz(path: Path, channels: str | None = None) -> tuple[Samples, Samples | None]:
    """Read ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``x`` and ``y``, of an npz file.

    Parameters
    ----------
    path : Path
        What the arrays may be says `rskernels.rsft.data.arrays.make_samples`. Nothing is unpickled.
    channels : str, optional
        As there.

    Returns
    -------
    (Samples, Samples or None)
        Train and test; None where the file does not say which rows are for the test.

    Raises
    ------
    DataError
        That names the array and what is wrong with it.
    """
    arrays = [Named(values, f"{name} of {path}") for name, values in _arrays(path).items()]
    parts = [Part(*arrays[place : place + 2]) for place in range(0, len(arrays), 2)]
    train, *test = make_samples(parts, channels)
    return train, test[0] if test else None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file that are read, in the order of `NPZ_NAMES`."""
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds one array, and is no npz file")
            names = next((names for names in NPZ_NAMES if set(names) <= set(file.files)), None)
            if names is None:
                accepted = "; or ".join(", ".join(names) for names in NPZ_NAMES)
                raise DataError(
                    f"{path} holds {', '.join(file.files) or 'nothing'}, needed are {accepted}"
                )
            arrays = {name: file[name] for name in names}
            unread = [name for name in file.files if name not in names]
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if unread:
        say(f"of {path} {', '.join(names)} are read, not {', '.join(unread)}")
    return arrays


def _find(folder: Path, name: str) -> Path:
    """Return the file of a name, with a hyphen or a dot in it, gzipped or not."""
    stem, _, kind = name.rpartition("-")
    names = [f"{stem}{mark}{kind}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"{folder} holds no {names[0]}, nor {names[2]}")
