"""Folders of noise, of two classes."""

import numpy as np
import torch
from PIL import Image

SIZES = (14, 12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def write(folder, sizes=SIZES, seed=0):
    """Noise, brighter in class 1."""
    draw = np.random.default_rng(seed)
    for label, size in enumerate(sizes):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        for number in range(size):
            pixels = draw.integers(0, 128, (8, 8, 3)) + 100 * label
            path = folder / f"class{label}" / f"{number:02}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(folder)
