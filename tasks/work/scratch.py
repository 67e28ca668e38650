"""Folders below `.work`, which no result depends on: deleted at any time, they cost the work to be done again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from facemill.errors import FacemillError
from facemill.files import is_full, sweep

WORK_FOLDER = ".work"


@contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder that workers on any machine of the project see, empty at first and gone after the block."""
    folder = root / WORK_FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_file(folder: Path) -> Iterator[BinaryIO]:
    """A file on the disk of that folder for what memory shall not hold; it has no name, so that nothing is left of it.

    Raises:
        FacemillError: the disk is full.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        if is_full(error):
            raise FacemillError(f"no space left in {folder}: free some and run the same command again") from error
        raise


def keyed_folder(root: Path, name: str, key: str) -> Path:
    """The folder of work that is known by its key, with what an earlier run left in it."""
    folder = root / WORK_FOLDER / name / key
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    return folder


def drop_other_folders(folder: Path) -> None:
    """Removes the folders beside this one, which belong to other keys."""
    for other in folder.parent.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other, ignore_errors=True)
