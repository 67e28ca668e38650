"""The tables' columns are frozen: a change here is a new version of that table."""

from __future__ import annotations

import hashlib
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pytest

from facemill import schema

FROZEN = {
    "raw": (4, "e17be045f6c8"),
    "unique": (4, "95301f004989"),
    "faces": (7, "04071bfe95da"),
    "dataset": (9, "3889b56a61b9"),
    "videos": (1, "63f62f5afe07"),
    "segments": (1, "3b57ec3b09f3"),
    "tracks": (1, "1b4926802148"),
    "track_points": (2, "ff6b22af26d1"),
    "conversions": (3, "a0fd011a31df"),
}


@pytest.mark.parametrize("name", schema.ALL)
def test_columns_change_only_with_the_version(name: str) -> None:
    table = schema.ALL[name]
    digest = hashlib.sha256(table.arrow.to_string(show_schema_metadata=False).encode()).hexdigest()[:12]
    assert (table.version, digest) == FROZEN[name]


@pytest.mark.parametrize("name", schema.ALL)
def test_every_table_carries_its_name_and_a_state(name: str) -> None:
    table = schema.ALL[name]
    assert (schema.name_of(table.arrow), schema.version_of(table.arrow)) == (name, table.version)
    assert {"status", "error", "detail"} <= set(table.columns)


@pytest.mark.parametrize("name", schema.ALL)
def test_the_python_type_of_a_column_is_what_arrow_gives_for_it(name: str) -> None:
    table = schema.ALL[name]
    hints = get_type_hints(table.row)
    assert list(hints) == table.columns
    assert {column: without_none(hints[column]) for column in hints} == {
        field.name: python_type(field.type) for field in table.arrow
    }


def python_type(kind: pa.DataType) -> Any:
    """What `to_pylist` makes of a value."""
    if pa.types.is_struct(kind):
        fields = {field.name: python_type(field.type) for field in kind}
        hints = {one: get_type_hints(one) for one in (schema.EncodedPicture, schema.PairOfIdentities)}
        [found] = [one for one in hints if {name: without_none(hint) for name, hint in hints[one].items()} == fields]
        return found
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return list[python_type(kind.value_type)]
    return type(pa.array([0]).cast(kind)[0].as_py()) if kind != pa.binary() else bytes


def without_none(hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if NoneType in get_args(hint) else [hint]
    [kind] = kinds
    return kind
