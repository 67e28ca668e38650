"""A path that a person wrote lies where that person means it: one rule for params.yaml and for every command."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

from facemill.errors import FacemillError
from flows.command_line.main import app
from tasks.params import parse_params
from tasks.paths import EXISTING_PATH, PATH, PATH_TEXT, archive_folder, place, with_home

PROJECT = Path(__file__).resolve().parents[2]
RIGHTS = {"basis": "own", "evidence": "pictures made by this test"}
PERSON = {"rights": RIGHTS, "references": ["a.jpg"], "sources": [{"kind": "folder", "path": "a"}]}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("footage/anna", "{root}/footage/anna"),
        ("~/footage", "{home}/footage"),
        ("~", "{home}"),
        ("/srv/footage", "/srv/footage"),
        ("a~b/~", "{root}/a~b/~"),
        (".", "{root}"),
    ],
)
def test_home_is_home_and_the_rest_lies_in_the_project(home: Path, stated: str, found: str) -> None:
    root = Path("/project")
    assert place(stated, root) == Path(found.format(root=root, home=home))


@pytest.mark.parametrize(
    ("stated", "message"),
    [("", "the path is empty"), (" ", "the path is empty"), ("a\0b", "NUL"), ("~no such user/a", "no home folder")],
)
def test_what_cannot_be_a_path_is_one_clear_error(stated: str, message: str) -> None:
    with pytest.raises(FacemillError, match=message):
        place(stated, Path("/project"))


@pytest.mark.parametrize(
    ("archive", "folder"),
    [
        ({"kind": "sample"}, "/project/data/archive"),
        ({"kind": "folder", "path": "footage"}, "/project/footage"),
        ({"kind": "folder", "path": "~/footage"}, "{home}/footage"),
    ],
)
def test_the_archive_lies_where_params_say(home: Path, archive: dict[str, Any], folder: str) -> None:
    values = {"identities": {"a": PERSON, "b": PERSON}, "archive": archive, "convert": {"becomes": {"a": "b"}}}
    assert archive_folder(parse_params(values), Path("/project")) == Path(folder.format(home=home))


@pytest.mark.parametrize("folder", ["data/archive", "data/archive/mine", "./data/../data/converted", "data", "."])
def test_an_archive_never_lies_where_a_stage_empties_and_fills_a_folder(tmp_path: Path, folder: str) -> None:
    archive = {"kind": "folder", "path": folder}
    values = {"identities": {"a": PERSON, "b": PERSON}, "archive": archive, "convert": {"becomes": {"a": "b"}}}
    with pytest.raises(FacemillError, match=r"archive\.path: .* lie in each other: put the videos into"):
        archive_folder(parse_params(values), tmp_path)


def test_home_is_written_out_in_options_for_foreign_code(home: Path) -> None:
    options = {"log_directory": "~/logs", "job_extra": ["--chdir=/x", "~/y"], "cores": 2, "a": {"b": "~c"}}
    assert with_home(options) == {
        "log_directory": f"{home}/logs",
        "job_extra": ["--chdir=/x", f"{home}/y"],
        "cores": 2,
        "a": {"b": "~c"},
    }


def path_options() -> Iterator[tuple[str, Any]]:
    """(command and parameter, what Typer knows of it) for each parameter of a command that takes a path."""
    for group in (app, *(inner.typer_instance for inner in app.registered_groups)):
        assert group is not None
        for command in group.registered_commands:
            assert command.callback is not None
            hints = get_type_hints(command.callback, include_extras=True)
            for name in inspect.signature(command.callback).parameters:
                kind, info = get_args(hints[name])[:2] if hasattr(hints[name], "__metadata__") else (hints[name], None)
                if Path in (kind, *get_args(kind)) or name in ("root", "start", "vgg16"):
                    yield f"{command.callback.__name__}.{name}", info


@pytest.mark.parametrize(
    ("option", "info"), list(path_options()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_path_of_every_command_knows_home(option: str, info: Any) -> None:
    known = [keywords["parser"] for keywords in (PATH, PATH_TEXT, EXISTING_PATH)]
    assert isinstance(info, typer.models.ParameterInfo)
    assert info.parser in known


def test_a_home_that_no_shell_has_written_out_is_found(home: Path) -> None:
    (home / "project").mkdir()
    command = [sys.executable, "-m", "flows.command_line", "check", "--root=~/project"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert f"no params.yaml in {home}/project" in result.stderr


@pytest.mark.parametrize("stated", ["~/gone", "gone", ""])
def test_a_folder_that_is_not_there_is_wrong_usage(home: Path, tmp_path: Path, stated: str) -> None:
    arguments = ["convert", stated, str(tmp_path / "out"), "--root", str(PROJECT)]
    command = [sys.executable, "-m", "flows.command_line", *arguments]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert ("does not exist" if stated else "the path is empty") in result.stderr
