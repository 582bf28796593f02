"""Files of a run: ``write`` makes them whole or absent, ``manifest`` says of which run they are.

``runs`` holds sorted records of each piece, and merges them in little memory; ``duplicates`` looks
for repeated ids in them. ``parquet`` joins files of that format.
"""

from rskernels.pipeline.store.duplicates import duplicates_in
from rskernels.pipeline.store.manifest import Manifest
from rskernels.pipeline.store.runs import Records, merged, starts_of, write_run
from rskernels.pipeline.store.write import atomic, join_parts, move_parts, write_part, write_whole

__all__ = [
    "Manifest",
    "Records",
    "atomic",
    "duplicates_in",
    "join_parts",
    "merged",
    "move_parts",
    "starts_of",
    "write_part",
    "write_run",
    "write_whole",
]
