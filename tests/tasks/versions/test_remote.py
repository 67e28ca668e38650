"""The remote: what a person is told about it holds, run in a second clone, with the configuration that is shipped."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_versions import SECOND, curate, faces, git, make_project

from facemill.errors import FacemillError
from tasks.versions import dvc
from tasks.versions.comparison import compare_versions
from tasks.versions.remote import check_remote, describe_remote
from tasks.versions.store import restore_version, save_version

SHIPPED = Path(__file__).resolve().parents[3] / ".dvc" / "config"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions and the shipped configuration of DVC."""
    root = make_project(tmp_path_factory.mktemp("remote") / "first")
    shutil.copy(SHIPPED, root / ".dvc")
    git(root, "add", "--all")
    git(root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message=shipped")
    curate(root)
    save_version(root)
    (root / "params.yaml").write_text(SECOND)
    curate(root)
    save_version(root)
    return root


@pytest.fixture
def clones(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """That project, and a clone of it that has no data."""
    first = Path(shutil.copytree(made, tmp_path / "first"))
    git(tmp_path, "clone", "--quiet", str(first), "second")
    return first, tmp_path / "second"


def commands_in(text: str) -> list[str]:
    return re.findall(r"`(dvc [^`]+)`", text)


def run(root: Path, command: str, url: Path) -> None:
    """Runs a command of a hint as it stands there, with a place in place of URL."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = shlex.split(command.replace("URL", str(url)))
    subprocess.run(words, cwd=root, check=True, env=os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"})


@pytest.mark.parametrize(
    "wants_data",
    [lambda root: restore_version(root, "v1"), lambda root: compare_versions(root, "v1", "v2")],
    ids=["restore", "compare"],
)
def test_the_commands_of_a_hint_bring_the_data(
    clones: tuple[Path, Path], tmp_path: Path, wants_data: Callable[[Path], object]
) -> None:
    first, second = clones
    with pytest.raises(FacemillError, match="this clone has no DVC remote") as hint:
        wants_data(second)
    add, push, fetch = commands_in(str(hint.value))
    run(second, add, tmp_path / "store")
    with pytest.raises(FacemillError, match="this clone has the remote store") as hint:
        wants_data(second)
    assert commands_in(str(hint.value)) == [push, fetch]
    run(first, add, tmp_path / "store")
    run(first, push, tmp_path)
    run(second, fetch, tmp_path)
    wants_data(second)
    restore_version(second, "v2", force=True)
    assert faces(second) == faces(first) == ["a", "c", "d"]


def test_the_shipped_configuration_sends_nothing_anywhere(clones: tuple[Path, Path], tmp_path: Path) -> None:
    first, _ = clones
    told = describe_remote(first)
    assert told.startswith("none: the data lies on this disk alone")
    [add] = commands_in(told)
    run(first, add.replace("/folder/on/another/disk", "URL"), tmp_path / "store")
    assert describe_remote(first).startswith("store, to which each refresh copies what is new")


@pytest.mark.parametrize("path", ["../store", "store"])
def test_a_committed_relative_path_is_refused_with_the_way_out(clones: tuple[Path, Path], path: str) -> None:
    first, _ = clones
    dvc.call(first, "remote", "add", "--default", "away", path)
    with pytest.raises(FacemillError, match="'away' has the relative path") as hint:
        check_remote(first)
    remove, _ = commands_in(str(hint.value))
    run(first, remove, first)
    check_remote(first)


@pytest.mark.parametrize("url", ["/mnt/store", "s3://bucket/store", "ssh://me@host/store", "~/store"])
def test_other_places_are_taken(clones: tuple[Path, Path], url: str) -> None:
    first, _ = clones
    with (first / ".dvc" / "config").open("a") as config:
        config.write(f"['remote \"away\"']\n    url = {url}\n")
    check_remote(first)


def test_a_broken_configuration_is_named(clones: tuple[Path, Path]) -> None:
    first, _ = clones
    (first / ".dvc" / "config").write_text("no section\n")
    with pytest.raises(FacemillError, match=r"\.dvc/config is not as DVC writes it"):
        check_remote(first)
