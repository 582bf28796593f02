"""Data sets as they lie in files: ``inputs`` finds them, ``pieces`` cuts them, the rest reads them.

``jsonl`` reads JSON lines, ``tables`` Parquet and Arrow; both have the same functions.
"""

from rskernels.pipeline.read.inputs import Dataset, dataset_of
from rskernels.pipeline.read.pieces import Batch, Piece, batches, kept_rows, place_of, split

__all__ = [
    "Batch",
    "Dataset",
    "Piece",
    "batches",
    "dataset_of",
    "kept_rows",
    "place_of",
    "split",
]
