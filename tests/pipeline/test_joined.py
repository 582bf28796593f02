"""Parquet parts are one file: every row in order, in row groups that other readers find."""

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from rskernels.pipeline.store import parquet, write
from rskernels.pipeline.store.write import join_parts


def parts_of(folder, sizes):
    """Write parts of so many rows, some columns of which have dictionaries, lists and nulls."""
    tables, paths, start = [], [], 0
    for number, size in enumerate(sizes):
        at = range(start, start + size)
        columns = {
            "n": pa.array(at, pa.int64()),
            "text": pa.array([f"row {n % 5}" for n in at], pa.string()),
            "list": pa.array([[n] * (n % 3) for n in at], pa.list_(pa.int64())),
            "struct": pa.array(
                [{"x": None if n % 7 else n / 2, "y": n % 2 == 0} for n in at],
                pa.struct([("x", pa.float64()), ("y", pa.bool_())]),
            ),
        }
        tables.append(pa.table(columns))
        paths.append(folder / f"{number}.parquet")
        pq.write_table(tables[-1], paths[-1], row_group_size=40)
        start += size
    return pa.concat_tables(tables), paths


def test_parts_are_joined_as_they_are_but_for_small_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LEAST_ROWS", 50)
    monkeypatch.setattr(write, "GROUP_ROWS", 90)
    monkeypatch.setattr(parquet, "MOST_ORDINAL", 5)
    monkeypatch.setattr(parquet, "COPIED", 1000)
    sizes = (10, 20, 0, 100, 50, 49, 49, 30, 120, 0)
    want, paths = parts_of(tmp_path, sizes)
    path = tmp_path / "joined.parquet"
    join_parts(path, "parquet", paths)
    assert pq.read_table(path).equals(want)
    of = pq.read_metadata(path)
    rows = [of.row_group(n).num_rows for n in range(of.num_row_groups)]
    assert rows == [30, 40, 40, 20, 40, 10, 98, 30, 40, 40, 40]
    # Statistics lead to the rows, and a row group is found by itself.
    assert ds.dataset(path).count_rows(filter=ds.field("n") >= 300) == sum(sizes) - 300
    assert pq.ParquetFile(path).read_row_group(10)["n"].to_pylist() == [*range(388, 428)]
    names = ("dictionary_page_offset", "data_page_offset")
    pages = [getattr(of.row_group(n).column(1), name) for n in range(11) for name in names]
    assert pages == sorted(pages)


def test_a_part_that_is_no_parquet_or_has_other_columns_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LEAST_ROWS", 1)
    _, paths = parts_of(tmp_path, (20, 20))
    pq.write_table(pa.table({"n": [1.5]}), paths[1])
    with pytest.raises(ValueError, match="columns that differ"):
        join_parts(tmp_path / "joined.parquet", "parquet", paths)
    paths[1].write_bytes(b"PAR1 and no footer")
    with pytest.raises(ValueError, match="does not end as Parquet does"):
        join_parts(tmp_path / "joined.parquet", "parquet", paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", "1.parquet"]
