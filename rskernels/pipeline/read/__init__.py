"""Data sets as they lie in files: ``inputs`` finds them, ``pieces`` cuts them, the rest reads them.

``jsonl`` reads JSON lines, ``tables`` Parquet and Arrow, with the same functions; ``formats``
chooses between them.
"""

from rskernels.pipeline.read.formats import batches, kept_rows, names_of, place_of, schema_of, split
from rskernels.pipeline.read.inputs import Dataset, dataset_of, refuse_mixed, refuse_shared
from rskernels.pipeline.read.pieces import Batch, Piece

__all__ = [
    "Batch",
    "Dataset",
    "Piece",
    "batches",
    "dataset_of",
    "kept_rows",
    "names_of",
    "place_of",
    "refuse_mixed",
    "refuse_shared",
    "schema_of",
    "split",
]
