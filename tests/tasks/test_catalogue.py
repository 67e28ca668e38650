"""Where the data of a project lie is said in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from facemill import schema
from facemill.model_folder import MODEL_FILE
from tasks.catalogue import Data, metrics_file, weights_file
from tasks.stages import STAGES

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("tasks", "flows") for path in sorted((PROJECT / folder).rglob("*.py"))]


def test_every_table_has_a_folder_of_its_name() -> None:
    found = {item.schema.name: str(item) for item in Data if item.schema is not None}
    assert found == {name: f"data/{name}" for name in schema.ALL}


def test_the_stages_keep_nothing_that_the_catalogue_does_not_name() -> None:
    named = {str(item) for item in Data} | {of(stage) for stage in STAGES for of in (metrics_file, weights_file)}
    kept = {path for stage in STAGES.values() for path in (*stage.reads, *stage.makes, stage.metrics) if path}
    assert kept - named == set()


def test_the_description_of_the_model_lies_in_its_folder() -> None:
    assert f"{Data.MODEL}/{MODEL_FILE}" == Data.MODEL_META


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_no_other_module_spells_a_path_below_data(path: Path) -> None:
    if path.name == "catalogue.py":
        pytest.skip("this one does")
    assert [text for text in strings(path) if text == "data" or text.startswith("data/")] == []


def strings(path: Path) -> Iterator[str]:
    """The string constants of a module, those that stand alone (docstrings, lines below a constant) left out."""
    tree = ast.parse(path.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value
