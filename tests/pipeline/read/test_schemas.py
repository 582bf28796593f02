"""Tables whose files differ in their columns: brought together, or refused before any is read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rskernels.pipeline import Columns, Reward, ScoreConfig, score
from rskernels.rsft.errors import DataError

from .. import files, rewards


def part(start, count=40):
    return files.table(200).slice(start, count).drop_columns(["note"])


def write(folder, tables):
    folder.mkdir(exist_ok=True)
    for number, table in enumerate(tables):
        path = folder / f"{number}{folder.suffix}"
        if folder.suffix == ".parquet":
            pq.write_table(table, path, row_group_size=20)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as of:
                for start in range(0, len(table), 20):
                    of.write_table(table.slice(start, 20))
    return folder


def replaced(table, name, column):
    return table.set_column(table.schema.names.index(name), name, column)


def integers(table):
    return replaced(table, "reward", table["reward"].cast(pa.int64()))


DIFFERENT = {
    "order": lambda table: table.select(table.schema.names[::-1]),
    "more": lambda table: table.append_column("more", pa.array(["x"] * len(table))),
    "integers": integers,
    "large": lambda table: replaced(table, "prompt", table["prompt"].cast(pa.large_string())),
    "dictionary": lambda table: replaced(
        table, "prompt", table["prompt"].combine_chunks().dictionary_encode()
    ),
}


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("name", DIFFERENT)
def test_files_that_differ_are_brought_together(name, suffix, tmp_path):
    tables = [part(0), DIFFERENT[name](part(40)), DIFFERENT[name](part(80))]
    columns = Columns(id="id")
    for first, given in enumerate((tables, tables[::-1])):
        folder = write(tmp_path / f"data-{first}{suffix}", given)
        out = tmp_path / f"out-{first}"
        ids, report = files.kept(folder, out, size=20, pairs=2, columns=columns)
        assert (report["rows"], report["pairs"] > 0) == (120, True)
        kept = {row["id"]: row for row in files.read(out)}
        assert list(kept) == ids
        want = {row["id"]: row for row in part(0, 120).to_pylist()}
        assert {n: {k: v for k, v in row.items() if k != "more"} for n, row in kept.items()} == {
            n: want[n] for n in ids
        }
        if name == "more":
            assert {row["more"] for row in kept.values()} == {None, "x"}
            assert kept[ids[0]]["more"] == (None if first == 0 else "x")


def test_dictionaries_that_are_replaced_within_a_stream(tmp_path):
    tables = [DIFFERENT["dictionary"](part(n, 20)) for n in (0, 20, 40)]
    (tmp_path / "rows").mkdir()
    path = tmp_path / "rows" / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, tables[0].schema) as of:
        for table in tables:
            of.write_table(table)
    ids, _ = files.kept(path, tmp_path / "out", size=20, columns=Columns(id="id"), pairs=1)
    assert {row["id"]: row["prompt"] for row in files.read(tmp_path / "out")} == {
        row["id"]: row["prompt"] for row in part(0, 60).to_pylist() if row["id"] in ids
    }


def test_dictionaries_within_messages(tmp_path):
    role = pa.dictionary(pa.int32(), pa.string())
    kind = pa.list_(pa.struct([("role", role), ("content", pa.string())]))

    def rows(role, n):
        turns = [{"role": role, "content": f"q{n}"}, {"role": "assistant", "content": "a"}]
        columns = {"messages": pa.array([turns] * 4, kind), "reward": [0, 1, 0, 1]}
        return pa.table({**columns, "id": range(n, n + 4)})

    folder = write(tmp_path / "data.arrow", [rows("user", 0), rows("system", 4)])
    ids, _ = files.kept(folder, tmp_path / "out", beta=0.0, columns=Columns(id="id"))
    assert ids == [1, 3, 5, 7]
    roles = [row["messages"][0]["role"] for row in files.read(tmp_path / "out")]
    assert roles == ["user", "user", "system", "system"]


def test_scores_of_files_that_differ(tmp_path):
    tables = [DIFFERENT["more"](part(0)), DIFFERENT["order"](part(40))]
    folder = write(tmp_path / "data.parquet", tables)
    config = ScoreConfig(Reward(f"{rewards.__name__}:answers"), "new")
    report = score([folder], tmp_path / "out", config, piece_size=20)
    rows = files.read(tmp_path / "out", "scored")
    assert report["scored"] == len(rows) == 80
    assert [row["more"] for row in rows] == ["x"] * 40 + [None] * 40
    assert all(row["new"] == int(row["completion"].split()[1]) / 8 for row in rows)


def test_types_that_do_not_fit_are_refused_with_file_and_column(tmp_path):
    text = replaced(part(40), "score", pa.array(["x"] * 40))
    folder = write(tmp_path / "data.parquet", [part(0), text])
    why = r"the column 'score' is string in .*1\.parquet, and double in .*0\.parquet"
    with pytest.raises(DataError, match=why):
        files.kept(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fraction = replaced(part(40), "id", pa.array([n + 0.5 for n in range(40)]))
    wide = replaced(part(0), "id", pa.array([2**60 + n for n in range(40)]))
    folder = write(tmp_path / "wide.parquet", [wide, fraction])
    with pytest.raises(DataError, match=r"0\.parquet: the column 'id' is int64 here and double"):
        files.kept(folder, tmp_path / "out")
