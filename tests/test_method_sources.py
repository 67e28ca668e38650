"""docs/sources.md is the key to the ids S1 … S25 that docstrings, tests and docs cite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
KEY = PROJECT / "docs" / "sources.md"
ROWS = dict(re.findall(r"^\| (S\d+) \| (.*) \|$", KEY.read_text(), re.MULTILINE))
FILES = [
    path
    for folder in ("facemill", "tasks", "flows", "benchmarks", "tests", "docs", ".")
    for pattern in ("*.py", "*.md")
    for path in sorted((PROJECT / folder).glob(pattern) if folder == "." else (PROJECT / folder).rglob(pattern))
    if path not in (KEY, Path(__file__).resolve())
]


def cited(text: str) -> set[str]:
    """The ids in a text, those between the ends of a range such as S15–S19 included."""
    found = set[str]()
    for first, last in re.findall(r"\bS(\d{1,2})(?:[–-]S?(\d{1,2}))?\b", text):
        found |= {f"S{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def test_it_has_a_row_for_each_of_the_25_statements() -> None:
    assert set(ROWS) == {f"S{number}" for number in range(1, 26)}


def test_every_id_that_is_cited_has_a_row() -> None:
    unknown = {(path.relative_to(PROJECT).as_posix(), each) for path in FILES for each in cited(path.read_text())}
    assert {place for place in unknown if place[1] not in ROWS} == set()


@pytest.mark.parametrize("statement", ROWS)
def test_what_a_row_names_exists(statement: str) -> None:
    places = re.findall(r"`((?:facemill|tasks)/[^`]+)`", ROWS[statement])
    assert places
    assert [place for place in places if not (PROJECT / place).exists()] == []


def test_ranges_count_all_that_lie_between() -> None:
    assert cited("S1–S4 and (S15-S17), S22") == {"S1", "S2", "S3", "S4", "S15", "S16", "S17", "S22"}
