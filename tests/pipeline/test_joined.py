"""Parquet parts are one file: every row in order, in row groups that other readers find."""

import base64
import io

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
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


class Keys(pe.KmsClient):
    """Wraps keys as they are."""

    def __init__(self, of):
        super().__init__()

    def wrap_key(self, key, name):
        return base64.b64encode(key)

    def unwrap_key(self, key, name):
        return base64.b64decode(key)


def test_an_encrypted_file_is_refused_though_its_footer_can_be_read(tmp_path):
    config = pe.EncryptionConfiguration("f", column_keys={"k": ["n"]}, plaintext_footer=True)
    of_file = pe.CryptoFactory(Keys).file_encryption_properties(pe.KmsConnectionConfig(), config)
    path, table = tmp_path / "0.parquet", pa.table({"n": range(20), "m": range(20)})
    with pq.ParquetWriter(path, table.schema, encryption_properties=of_file) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match="the file is encrypted"):
        join_parts(tmp_path / "joined.parquet", "parquet", [path, path])


def test_page_indexes_are_left_out_and_bloom_filters_moved(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LEAST_ROWS", 1)
    paths, joined = [tmp_path / f"{n}.parquet" for n in range(2)], tmp_path / "joined.parquet"
    for number, path in enumerate(paths):
        table = pa.table({"n": range(number * 500, number * 500 + 500)})
        pq.write_table(
            table, path, write_page_index=True, row_group_size=200, bloom_filter_options={"n": True}
        )
    join_parts(joined, "parquet", paths)
    of = pq.read_metadata(joined)
    columns = [of.row_group(n).column(0) for n in range(of.num_row_groups)]
    assert not any(column.has_offset_index or column.has_column_index for column in columns)
    assert pq.read_metadata(paths[0]).row_group(0).column(0).has_offset_index
    assert ds.dataset(joined).to_table(filter=ds.field("n") == 640)["n"].to_pylist() == [640]
    filters = []
    for path in (*paths, joined):
        with path.open("rb") as file:
            data = file.read()
            groups = parquet.read_footer(file).groups
        chunks = [group[parquet.COLUMNS][1][1][0] for group in groups]
        places = [chunk[parquet.META_DATA][1][14][1] for chunk in chunks]
        filters.append([data[place : place + 140] for place in places])
    assert [*filters[0], *filters[1]] == filters[2]


def test_types_that_arrow_alone_knows_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LEAST_ROWS", 1)
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    zones = [pa.timestamp("us", tz=zone) for zone in ("UTC", "Asia/Tokyo")]
    for kinds in (zones, [pa.string(), pa.dictionary(pa.int32(), pa.string())]):
        for kind, path in zip(kinds, paths, strict=True):
            values = pa.array([1, 1], kind) if kinds is zones else pa.array(["x", "y"]).cast(kind)
            pq.write_table(pa.table({"x": values}), path)
        with pytest.raises(ValueError, match="columns that differ"):
            join_parts(tmp_path / "joined.parquet", "parquet", paths)
    # What the items of a list are called is no type, nor is what else is said of a column.
    for name, path in zip(("item", "element"), paths, strict=True):
        of_list = pa.list_(pa.field(name, pa.int64()))
        schema = pa.schema([pa.field("x", of_list, metadata={"name": name})])
        pq.write_table(pa.table({"x": pa.array([[1], []], of_list)}, schema=schema), path)
    join_parts(tmp_path / "joined.parquet", "parquet", paths)
    assert pq.read_table(tmp_path / "joined.parquet")["x"].to_pylist() == [[1], [], [1], []]


def test_a_broken_footer_is_refused(tmp_path):
    pq.write_table(pa.table({"n": range(20), "text": ["a"] * 20}), tmp_path / "0.parquet")
    whole = (tmp_path / "0.parquet").read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    draw, refused = np.random.default_rng(0), 0
    broken = [b"", b"\x15" * 20, b"\x1c" * 3000, b"\x19\xfc" + b"\xff" * 9 + b"\x01"]
    for _ in range(300):
        footer = np.frombuffer(whole[-8 - length : -8], np.uint8).copy()
        footer[draw.integers(0, length, 3)] = draw.integers(0, 256, 3)
        broken.append(footer.tobytes())
    for number, footer in enumerate(broken):
        file = io.BytesIO(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        try:
            parquet.read_footer(file)
        except ValueError:
            refused += 1
        else:
            assert number >= 4
    assert refused > 30
