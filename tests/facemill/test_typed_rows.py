"""mypy knows the columns of each table: what is wrong here is an error that names the column."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

HEAD = """from pathlib import Path

from facemill import tables
from facemill.schema import FACES, RAW, FaceRow, RawRow

folder = Path("data/faces")
"""
# What is written below the head -> what mypy says of it.
WRONG = {
    'next(tables.iterate_rows(folder, FACES))["sharpnes"]': 'TypedDict "FaceRow" has no key "sharpnes"',
    'tables.to_rows(tables.read_table(folder, RAW), RAW)[0]["yaw"]': 'TypedDict "RawRow" has no key "yaw"',
    'word: str = next(tables.iterate_rows(folder, FACES))["yaw"]': 'type "float", variable has type "str"',
    'late: int = next(tables.iterate_rows(folder, FACES))["pts"]': 'expression has type "int | None"',
    'row: RawRow = {"licens": "CC0"}': 'Extra key "licens" for TypedDict "RawRow"',
    'face: FaceRow = {"yaw": "left"}': 'TypedDict item "yaw" has type "float"',
    "tables.from_rows([RawRow(width=3)], FACES)": 'Cannot infer value of type parameter "Row" of "from_rows"',
}
RIGHT = """
good: RawRow = {"width": 3, "status": "ok"}
table = tables.from_rows([good], RAW)
widths: list[int] = [each["width"] for each in tables.to_rows(table, RAW)]
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Line -> what mypy says of it, with the project's settings."""
    file = tmp_path_factory.mktemp("typing") / "rows.py"
    file.write_text(HEAD + "\n".join(WRONG) + RIGHT)
    command = [sys.executable, "-m", "mypy", "--config-file", PROJECT / "pyproject.toml", "--no-pretty", file]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600, check=False)
    found = re.findall(r"rows\.py:(\d+): error: (.*)", done.stdout)
    assert done.returncode == (1 if found else 0), done.stdout + done.stderr
    return {int(line): text for line, text in found}


@pytest.mark.parametrize("statement", WRONG)
def test_a_wrong_column_is_an_error_of_mypy(said: dict[int, str], statement: str) -> None:
    line = HEAD.count("\n") + 1 + list(WRONG).index(statement)
    assert WRONG[statement] in said[line]


def test_right_rows_are_no_error(said: dict[int, str]) -> None:
    assert all(line <= HEAD.count("\n") + len(WRONG) for line in said)
