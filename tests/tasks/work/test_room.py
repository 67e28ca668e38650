"""What cannot be written, or is full, is said in one sentence that names the folder and the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from facemill.errors import FacemillError
from tasks.work import room
from tasks.work.room import check_room

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("wants the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_what_is_left_is_told_once_for_each_disk(tmp_path: Path) -> None:
    left = check_room(tmp_path)
    assert 1 <= len(left) <= 2  # a second one for temporary files
    assert all(one.free_bytes > room.LEAST_BYTES for one in left)
    assert list(tmp_path.iterdir()) == []


def test_a_small_rest_counts_as_full(small_disk: Path) -> None:
    with pytest.raises(FacemillError, match=r"where Prefect keeps its history, has only 1 MiB left: free some, or set"):
        check_room(small_disk)


def test_a_full_disk_is_said(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(small_disk / "home"))
    (small_disk / "much").write_bytes(bytes(2**20))
    with pytest.raises(FacemillError, match=r"is full \(No space left on device\): free some, or set PREFECT_HOME"):
        check_room(small_disk.parent)


def test_a_disk_without_room_for_files_is_said(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=1g,nr_inodes=50", small_disk], check=True)
    with pytest.raises(FacemillError, match=r"takes only \d+ more files: delete some"):
        check_room(small_disk)


def test_a_disk_that_is_read_only_is_said(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(small_disk))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(FacemillError, match=r"cannot be written \(Read-only file system\): make it writable, or set"):
        check_room(small_disk.parent)


@pytest.mark.parametrize("command", [["run", "refresh"], ["serve"], ["check"]])
def test_every_start_says_it_at_once(small_disk: Path, tmp_path: Path, command: list[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.command_line", *command],
        cwd=tmp_path,
        env=others | {"PREFECT_HOME": str(small_disk / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "where Prefect keeps its history, cannot be written (Read-only file system): make it writable" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "params.yaml"]
