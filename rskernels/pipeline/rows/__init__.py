"""What is read of rows: ``columns`` by name, ``hashing`` of text, ``keys``, and ``numbering``."""

from rskernels.pipeline.rows.columns import Columns, Found
from rskernels.pipeline.rows.keys import Keys, joined, keys_of
from rskernels.pipeline.rows.numbering import counts_of, numbered, write_counts_before

__all__ = [
    "Columns",
    "Found",
    "Keys",
    "counts_of",
    "joined",
    "keys_of",
    "numbered",
    "write_counts_before",
]
