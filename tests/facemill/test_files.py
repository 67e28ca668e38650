"""Files appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from facemill import files
from facemill.errors import FacemillError


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="no space left"), files.atomic_path(tmp_path / "x") as temporary:
        temporary.write_bytes(b"half")
        # /dev/full is the kernel's own full disk
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error, files.atomic_path(tmp_path / "x"):
        raise OSError(errno.EACCES, "no")
    assert error.value.errno == errno.EACCES


def test_equal_values_give_equal_json_bytes(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"b": 1, "a": "ü"})
    files.write_json(tmp_path / "b", {"a": "ü", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [None, "{"])
def test_missing_or_broken_json_names_the_file(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "inventory.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FacemillError, match=r"inventory\.json"):
        files.read_json(path)


def test_link_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    files.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"


def test_folder_hash_sees_names_and_contents_but_not_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.folder_sha256(tmp_path)
    (tmp_path / ".gitignore").write_text("x")
    assert files.folder_sha256(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.folder_sha256(tmp_path) != first


def test_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".tmp-99-part").write_text("half")
    (tmp_path / "part").write_text("whole")
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["part"]
