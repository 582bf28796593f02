"""One schema for the files of a data set, found before any row is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rskernels._python.extras import data_extra
from rskernels.rsft.errors import DataError


def common_schema(files: Sequence[str], schemas: Sequence[Any], kind: str) -> Any:
    """Return the schema that the rows of all files are written with.

    Columns may come in another order, be missing (null then) or have narrower types than elsewhere.
    Dictionaries are decoded where Arrow's format, or files that differ, could not hold them.

    Parameters
    ----------
    files : sequence of str
        Their names, for errors.
    schemas : sequence of pyarrow.Schema
        Of each.
    kind : {"parquet", "arrow"}
        The format.

    Raises
    ------
    DataError
        If a column has types in two files that no type holds both of; names both and it.
    """
    with data_extra():
        import pyarrow as pa
    if kind == "arrow" or any(schema != schemas[0] for schema in schemas):
        schemas = [_decoded(schema) for schema in schemas]
    merged = schemas[0]
    for file, schema in zip(files, schemas, strict=True):
        if schema == merged:
            continue
        try:
            merged = pa.unify_schemas([merged, schema], promote_options="permissive")
        except (pa.ArrowException, TypeError) as error:
            raise DataError(_difference(merged, schema, file, files[0]) or str(error)) from error
    return merged


def conformed(table: Any, schema: Any, file: str) -> Any:
    """Return a table of a file with the columns and types of a schema.

    Raises
    ------
    DataError
        If a value does not fit the type that its column has in the schema.
    """
    with data_extra():
        import pyarrow as pa
    if table.schema == schema:
        return table
    is_same = table.schema.names == schema.names
    columns = []
    for number, field in enumerate(schema):
        at = number if is_same else table.schema.get_field_index(field.name)
        if at < 0:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table.column(at)
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise DataError(
                f"{file}: the column {field.name!r} is {column.type} here and {field.type} for "
                f"all files together, which does not hold it: {error}"
            ) from error
    return pa.table(columns, schema=schema)


def _decoded(schema: Any) -> Any:
    for number, field in enumerate(schema):
        schema = schema.set(number, field.with_type(_plain(field.type)))
    return schema


def _plain(kind: Any) -> Any:
    """Return a type with what its dictionaries stand for, also within lists and structs."""
    with data_extra():
        import pyarrow as pa
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    for is_list, make in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
    ):
        if is_list(kind):
            return make(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def _difference(merged: Any, schema: Any, file: str, first: str) -> str:
    """Return which column differs, and how."""
    with data_extra():
        import pyarrow as pa
    for field in schema:
        at = merged.get_field_index(field.name)
        if at < 0:
            continue
        try:
            pa.unify_schemas(
                [pa.schema([merged.field(at)]), pa.schema([field])], promote_options="permissive"
            )
        except (pa.ArrowException, TypeError):
            return (
                f"the column {field.name!r} is {field.type} in {file}, and "
                f"{merged.field(at).type} in {first} and up to there: no type holds both"
            )
    return ""
