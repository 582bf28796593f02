"""Compressed JSON lines: the rows and lines of what they hold, in pieces of any size."""

import pyarrow as pa
import pytest

from rskernels.pipeline import select
from rskernels.pipeline.read import packed
from rskernels.rsft.errors import DataError

from .. import files


@pytest.mark.parametrize(("suffix", "sizes"), [(".gz", (None, 9000)), (".zst", (9000,))])
def test_rows_are_those_of_what_is_compressed(suffix, sizes, tmp_path, monkeypatch):
    rows = files.table(400)
    plain = files.write(rows, tmp_path / "rows.jsonl")
    path = files.write(rows, tmp_path / f"rows.jsonl{suffix}")
    want, _ = files.kept(plain, tmp_path / "plain", pairs=1)
    begun = []
    stream = packed._stream
    monkeypatch.setattr(packed, "_stream", lambda *of: begun.append(of) or stream(*of))
    monkeypatch.setattr(packed, "BLOCK", 1000)
    for size in sizes:
        ids, _ = files.kept(path, tmp_path / f"packed-{size}", size=size, pairs=1)
        assert ids == want
        pairs = [tmp_path / name / "pairs.jsonl" for name in ("plain", f"packed-{size}")]
        assert pairs[0].read_bytes() == pairs[1].read_bytes()
        # For its columns and its pieces, and once a pass: ids are counted only of several pieces.
        assert len(begun) == (6 if size else 5)
        begun.clear()
    assert packed._thread._stream is None
    assert packed._thread._held is None


def test_lines_are_named_and_what_is_cut_off_is_refused(tmp_path):
    path = files.write(files.table(600), tmp_path / "rows.jsonl")
    text = path.read_bytes().replace(b'"prompt": "prompt 30:', b'"prompt": 7, "p": "', 1)
    whole = pa.compress(text, "gzip", asbytes=True)
    (tmp_path / "bad.jsonl.gz").write_bytes(whole)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-9])
    (tmp_path / "none.jsonl.zst").write_bytes(whole)
    refused = {
        "bad.jsonl.gz": r"bad\.jsonl\.gz: line 481: prompt must be text",
        "cut.jsonl.gz": r"cut\.jsonl\.gz cannot be read: Truncated",
        "none.jsonl.zst": r"none\.jsonl\.zst cannot be read",
    }
    for name, why in refused.items():
        with pytest.raises(DataError, match=why):
            select([tmp_path / name], tmp_path / "out", files.config_of("verifier"),
                   piece_size=20_000, overwrite=True)  # fmt: skip
