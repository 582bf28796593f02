"""Images in folders: decoded once, by threads, into a file that is mapped into memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rskernels._python.extras import train_extra
from rskernels.rsft.data.listed.bad import Bad
from rskernels.rsft.data.listed.folders import TARGET, Listed, Listing, list_folder
from rskernels.rsft.data.samples import Samples
from rskernels.rsft.errors import DataError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
# Modes of Pillow whose pixels are bytes, or become them without a choice of scale.
MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
CHUNK = 256  # images in memory at a time
MOST_THREADS = 16


class ImageFiles(NamedTuple):
    """Image files and their classes.

    Attributes
    ----------
    paths : list of Path
        N of them.
    labels : Tensor
        int64 ``[N]``.
    is_target : Tensor
        bool ``[N]``, whether they come from a folder ``target``.
    """

    paths: list[Path]
    labels: Tensor
    is_target: Tensor

    def take(self, rows: Tensor) -> ImageFiles:
        """Return some of them, by their numbers, int64 ``[n]``."""
        paths = [self.paths[row] for row in rows.tolist()]
        return ImageFiles(paths, self.labels[rows], self.is_target[rows])

    def read(self, size: int, bad: Bad) -> tuple[Samples, Tensor]:
        """Decode them, scaled and cut to squares.

        Each is turned as its EXIF says, converted to red, green and blue, scaled until its shorter
        side fits, and cut at the middle of the longer one. Pixels lie in a file without a name, in
        the folder for temporary files, so that memory does not grow with their number.

        Parameters
        ----------
        size : int
            Height and width.
        bad : Bad
            Counts those that cannot be decoded; they are left out.

        Returns
        -------
        (Samples, Tensor)
            Inputs uint8 ``[n, 3, size, size]``, and ``is_target`` of the n that are left.

        Raises
        ------
        DataError
            If nothing is left. Whether too many cannot be decoded, `bad` says.
        OSError
            If the file cannot be written, as where a disk is full.
        """
        kept = []
        with tempfile.NamedTemporaryFile(prefix="rskernels-images-") as file:
            threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
            with ThreadPoolExecutor(threads) as pool:
                for start in range(0, len(self.paths), CHUNK):
                    paths = self.paths[start : start + CHUNK]
                    decoded = pool.map(decode, paths, [size] * len(paths))
                    for row, (path, pixels) in enumerate(zip(paths, decoded, strict=True), start):
                        if isinstance(pixels, str):
                            bad.add(f"{path}: {pixels}")
                        else:
                            kept.append(row)
                            file.write(pixels.data)
            file.flush()
            if not kept:
                bad.check("images")
                raise DataError(f"none of {len(self.paths)} images can be used")
            count = len(kept) * 3 * size * size
            # Written as a file, since a full disk under a mapping ends the process.
            mapped = torch.from_file(file.name, shared=False, size=count, dtype=torch.uint8)
        rows = torch.tensor(kept)
        inputs = mapped.view(len(kept), 3, size, size)
        return Samples(inputs, self.labels[rows]), self.is_target[rows]


def read_image_folder(folder: Path) -> tuple[ImageFiles, ImageFiles | None]:
    """List the images of a folder, without decoding any.

    Parameters
    ----------
    folder : Path
        As `rskernels.rsft.data.listed.folders.list_folder` says. With ``source`` and ``target``
        the files of both are those to train on.

    Returns
    -------
    (ImageFiles, ImageFiles or None)
        To train on and to test on; None where the folder does not say which are for the test.

    Raises
    ------
    DataError
        As there.
    """
    listed: Listed = list_folder(folder, SUFFIXES)
    test = listed.parts.get("test")
    train = [(name, part) for name, part in listed.parts.items() if part is not test]
    return _files(train), None if test is None else _files([("test", test)])


def _files(parts: Sequence[tuple[str, Listing]]) -> ImageFiles:
    is_target = [name == TARGET for name, part in parts for _ in part.paths]
    return ImageFiles(
        [path for _, part in parts for path in part.paths],
        torch.tensor([label for _, part in parts for label in part.labels]),
        torch.tensor(is_target),
    )


def decode(path: Path, size: int) -> np.ndarray | str:
    """Return the pixels of an image, uint8 ``[3, size, size]``, or why it has none.

    Raises
    ------
    ModuleNotFoundError
        If Pillow is not installed.
    """
    with train_extra():
        from PIL import Image, ImageOps, UnidentifiedImageError
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                return f"its pixels are of mode {image.mode}, accepted are those of 8 bits"
            # Of a large JPEG no more is decoded than twice the size.
            image.draft("RGB", (2 * size, 2 * size))
            upright = ImageOps.exif_transpose(image).convert("RGB")
            square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except UnidentifiedImageError:
        return "is no image"
    except Exception as error:  # Pillow's plugins raise much besides OSError for what is damaged
        return " ".join(f"{type(error).__name__}: {error}".split())
    return np.ascontiguousarray(np.moveaxis(np.asarray(square, np.uint8), 2, 0))
