"""The tables' columns are frozen: a change here is a new version of that table."""

from __future__ import annotations

import hashlib

import pytest

from facemill import schema

FROZEN = {
    "raw": (1, "6332d284c71c"),
    "unique": (1, "84feb08e9f05"),
    "faces": (1, "62ccf533ebed"),
    "dataset": (1, "45a1a917bea5"),
    "videos": (1, "63f62f5afe07"),
    "conversions": (1, "7b72c3a70aa4"),
}


@pytest.mark.parametrize("name", schema.ALL)
def test_columns_change_only_with_the_version(name: str) -> None:
    table = schema.ALL[name]
    digest = hashlib.sha256(table.to_string(show_schema_metadata=False).encode()).hexdigest()[:12]
    assert (schema.version_of(table), digest) == FROZEN[name]


@pytest.mark.parametrize("name", schema.ALL)
def test_every_table_carries_its_name_and_a_state(name: str) -> None:
    assert schema.name_of(schema.ALL[name]) == name
    assert {"status", "error", "detail"} <= set(schema.ALL[name].names)
