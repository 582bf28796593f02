"""Rows that are listed before they are read: images in folders, and texts.

A split needs labels alone, so that only the rows which it chooses are read. `folders` lists files
by class, `images` decodes them into a mapped file, `texts` reads texts, `bad` counts what is
malformed.
"""

from rskernels.rsft.data.listed.bad import Bad
from rskernels.rsft.data.listed.images import ImageFiles, read_image_folder
from rskernels.rsft.data.listed.texts import Texts, read_texts

__all__ = ["Bad", "ImageFiles", "Texts", "read_image_folder", "read_texts"]
