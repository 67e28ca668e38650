"""Clips to convert, which several files of tests take."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip


@pytest.fixture(scope="session")
def face(hopper: np.ndarray) -> list[np.ndarray]:
    """Four frames of 256×256 with Hopper in them."""
    small = cv2.resize(hopper[20:420, 60:460], (256, 256), interpolation=cv2.INTER_AREA)
    return [np.roll(small, index, axis=1) for index in range(4)]


@pytest.fixture(scope="session")
def originals(face: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of one stem, one in a folder with a name of its own kind, one without a face, one of an odd size, one
    cut off in the middle, two that are none."""
    folder = tmp_path_factory.mktemp("originals")
    (folder / "день 1 & 2").mkdir()
    make_clip(folder / "talk.mp4", frames=face)
    make_clip(folder / "talk.avi", frames=face, codec="mpeg4", sound=None)
    make_clip(folder / "день 1 & 2" / "日本 100%.mkv", frames=face, sound=None)
    make_clip(folder / "nobody.mp4", frames=3, size=(160, 128))
    make_clip(folder / "odd.mp4", frames=2, size=(255, 257), pix_fmt="yuv444p")
    whole = make_clip(folder / "cut.mkv", frames=40, sound=None).read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (folder / "letter.mp4").write_text("Dear Sir or Madam,\n" * 50)
    (folder / "empty.mov").write_bytes(b"")
    (folder / "notes.txt").write_text("not for us")
    return folder


@pytest.fixture
def archive(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "in"))
