"""A private folder is its owner's alone, or it is an error that names it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from facemill.errors import FacemillError
from facemill.private_folders import private_folder

NOBODY = 65534


def test_it_is_made_closed_or_closed(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "above" / "made", "secrets", "")
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    for folder in (made, private_folder(tmp_path / "open", "secrets", "")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_of_our_own_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    private_folder(tmp_path / "link", "secrets", "")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "disk").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_what_somebody_else_owns_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    (tmp_path / "ours").mkdir(mode=0o755)
    (tmp_path / "to ours").symlink_to("ours")
    os.lchown(tmp_path / "to ours", NOBODY, NOBODY)
    for name in ("theirs", "to ours"):
        with pytest.raises(FacemillError, match=f"{name} belongs to the user with the number 65534, who could read se"):
            private_folder(tmp_path / name, "secrets", "")
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o755
