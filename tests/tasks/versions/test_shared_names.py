"""Names of versions in several clones of one repository."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from test_versions import FIRST, SECOND, curate, git, make_project

from tasks.versions import shared_names
from tasks.versions.store import list_versions, save_version

THIRD = SECOND.replace("[d,", "[e,")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with one version, v1, and the clone that named it."""
    folder = tmp_path_factory.mktemp("shared")
    first = make_project(folder / "first")
    git(folder, "clone", "--quiet", "--bare", "first", "origin.git")
    git(first, "remote", "add", "origin", str(folder / "origin.git"))
    curate(first)
    save_version(first)
    git(first, "push", "--quiet", "origin", "dataset/v1")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of all that, to change."""
    copy = Path(shutil.copytree(made, tmp_path / "copy", symlinks=True))
    git(copy / "first", "remote", "set-url", "origin", str(copy / "origin.git"))
    return copy


def clone(folder: Path, *options: str) -> Path:
    git(folder, "clone", "--quiet", *options, f"file://{folder}/origin.git", "second")
    return folder / "second"


def named(root: Path, params: str, *, push: bool = False) -> tuple[str, bool, list[str]]:
    """What the dataset of these parameters is named, whether that name is new, and what was told."""
    (root / "params.yaml").write_text(params)
    curate(root)
    told: list[str] = []
    version = save_version(root, tell=told.append)
    if push:
        git(root, "push", "--quiet", "origin", f"dataset/{version.name}")
    return version.name, version.is_new, told


@pytest.mark.parametrize("options", [(), ("--no-tags",), ("--depth=1",), ("--depth=1", "--no-tags")], ids=" ".join)
def test_data_that_has_a_name_elsewhere_gets_no_second_one(folder: Path, options: tuple[str, ...]) -> None:
    second = clone(folder, *options)
    assert named(second, FIRST) == ("v1", False, [])
    assert named(second, SECOND) == ("v2", True, [])


def test_a_name_that_another_clone_has_shared_is_not_given_again(folder: Path) -> None:
    second = clone(folder)
    assert named(folder / "first", SECOND, push=True) == ("v2", True, [])
    assert named(second, THIRD) == ("v3", True, [])


def test_two_versions_of_one_name_are_told_with_the_way_out(folder: Path) -> None:
    first, second = folder / "first", clone(folder)
    named(second, THIRD)  # not shared: nobody can know
    named(first, SECOND, push=True)
    name, is_new, [told] = named(second, THIRD)
    assert (name, is_new) == ("v2", False)
    assert "Version v2 here and version v2 of the git remote origin are not the same" in told
    mine = list_versions(second)[-1].dataset
    for command in re.findall(r"`(git [^`]+)`", told):
        subprocess.run(shlex.split(command), cwd=second, check=True, capture_output=True)
    known = {version.name: version.dataset for version in list_versions(second)}
    assert known.keys() == {"v1", "v2", "v2-2"}
    assert known["v2-2"] == mine
    assert known["v2"] == list_versions(first)[-1].dataset
    assert named(second, THIRD) == ("v2-2", False, [])


def test_a_remote_that_is_away_is_told_and_the_night_goes_on(folder: Path) -> None:
    second = clone(folder, "--no-tags", "--depth=1")
    (folder / "origin.git").rename(folder / "away")
    name, is_new, [told] = named(second, SECOND)
    assert (name, is_new) == ("v1", True)
    assert "could not be asked" in told
    assert "even v1 may be taken" in told


def test_a_remote_that_does_not_answer_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_names, "_ASK_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        git(folder / "first", "remote", "set-url", "origin", f"git://127.0.0.1:{silent.getsockname()[1]}/x")
        name, _, [told] = named(folder / "first", SECOND)
    assert name == "v2"
    assert "did not end within 1 s" in told


def test_a_shallow_clone_without_a_remote_says_what_it_cannot_know(folder: Path) -> None:
    second = clone(folder, "--depth=1", "--no-tags")
    git(second, "remote", "remove", "origin")
    assert named(second, SECOND)[2] == [
        "This clone is shallow and has no remote: versions that were named elsewhere are not known here."
    ]
