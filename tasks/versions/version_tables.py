"""The tables of a version as folders: links to where DVC's cache has their parts. Nothing is checked out or copied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facemill.errors import FacemillError
from facemill.schema import ALL
from tasks.catalogue import Data
from tasks.versions import dvc, dvc_lock, git
from tasks.versions.remote import how_to_get
from tasks.versions.store import Version, list_versions, named
from tasks.work.scratch import scratch_folder

_SUFFIX = ".dir"  # of DVC's hash of a folder


@contextmanager
def version_tables(root: Path, name: str) -> Iterator[Path]:
    """A folder in which the tables of a version lie as in a project, below `data`.

    Args:
        root: of the project.
        name: of the version.

    Raises:
        FacemillError: no such version, or its data is not in DVC's cache.
    """
    version = named(list_versions(root), name)
    lock = dvc_lock.parse(git.show(root, version.tag, dvc_lock.LOCK_FILE) or b"")
    outs = [out for entry in dvc_lock.stages(lock).values() for out in entry.get("outs", [])]
    with scratch_folder(root, "version-tables") as folder:
        for out in outs:
            path, md5 = str(out["path"]), str(out["md5"])
            if path.removeprefix(f"{Data.ALL}/") in ALL and md5.endswith(_SUFFIX):
                _link(root, version, md5, folder / path)
        yield folder


def _link(root: Path, version: Version, md5: str, folder: Path) -> None:
    cache = dvc.cache_folder(root)
    folder.mkdir(parents=True)
    try:
        listed = json.loads(_cached(cache, md5).read_bytes())
        names = {str(one["relpath"]): str(one["md5"]) for one in listed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _absent(root, version, error) from error
    for name, content in names.items():
        target = _cached(cache, content)
        if not target.is_file() or Path(name).name != name:
            raise _absent(root, version, name)
        (folder / name).symlink_to(target)


def _cached(cache: Path, md5: str) -> Path:
    return (cache / md5[:2] / md5[2:]).absolute()


def _absent(root: Path, version: Version, what: object) -> FacemillError:
    return FacemillError(
        f"the data of version {version.name} is not in DVC's cache ({what}): `dvc fetch --all-tags` brings it from the "
        f"remote; {how_to_get(root)}"
    )
