"""Removes what the stages of a project have made, and their scratch. Which that is, the table of stages says.

The environment, params.yaml, dvc.lock, DVC's cache and the named versions stay, so that `dvc checkout` or `dvc repro`
brings back what had been finished. What is only in the scratch folder, such as a training that has not ended, is lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from facemill.errors import FacemillError
from tasks.params_file import no_project
from tasks.stages import STAGES, only_one
from tasks.work.scratch import WORK_FOLDER


def made(root: Path) -> list[tuple[Path, int]]:
    """What would be removed.

    Args:
        root: the project's folder.

    Returns:
        Each file or folder that is there, with its size in bytes; relative to `root`, in the order of the pipeline.

    Raises:
        FacemillError: `root` is no project.
    """
    if not (root / "dvc.yaml").is_file():
        raise no_project(root, "dvc.yaml")
    return [(path, sum(map(_bytes, _files(root / path)))) for path in _removed() if _exists(root / path)]


def clean(root: Path) -> None:
    """Removes it. A link is removed, and not what it leads to.

    Raises:
        FacemillError: a stage is running; or something cannot be removed, and what stood before it is gone.
    """
    with ExitStack() as held:
        for name in STAGES:
            held.enter_context(only_one(root, name))
        for path, _ in made(root):
            try:
                _remove(root / path)
            except OSError as error:
                raise FacemillError(f"{path} cannot be removed ({error}): see who owns it, and try again") from error


def _removed() -> Iterator[Path]:
    for stage in STAGES.values():
        yield from (Path(path) for path in (*stage.makes, stage.metrics) if path is not None)
    yield Path(WORK_FOLDER)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    elif path.name == WORK_FOLDER:  # the locks that are held lie in it
        for inner in path.iterdir():
            if inner.suffix != ".lock":
                _remove(inner)
    else:
        shutil.rmtree(path)


def _exists(path: Path) -> bool:
    if path.name == WORK_FOLDER:
        return any(inner.suffix != ".lock" for inner in path.glob("*"))
    return path.exists() or path.is_symlink()


def _files(path: Path) -> Iterator[Path]:
    yield from path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]


def _bytes(path: Path) -> int:
    return path.lstat().st_size if not path.is_dir() else 0
