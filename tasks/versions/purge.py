"""Takes contents out of DVC's cache and out of a remote that is a folder: named versions that had them lose a part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from facemill.errors import FacemillError
from tasks.versions import dvc, git
from tasks.versions import dvc_lock as locks
from tasks.versions.dvc_lock import LOCK_FILE
from tasks.versions.store import Version, list_versions
from tasks.work.traces import Traces, holders


def purge(root: Path, traces: Traces) -> Iterator[str]:
    """Removes every object that holds a trace; says of which versions a part has gone, and what is out of reach.

    The version's other tables stay; bringing it back says what is missing. `dvc.lock` stays as it is: the next refresh
    writes it anew.

    Raises:
        FacemillError: as `dvc.cache_folder`; an object that nobody may delete.
    """
    folder = dvc.remote_folder(root)
    gone: set[str] = set()
    # Which version an object belongs to stands in the cache, so that is asked before anything is removed.
    objects = {version.name: _objects(root, version.tag) for version in _versions(root)}
    for place in filter(None, (dvc.cache_folder(root), folder)):
        for path in holders([place], traces):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise FacemillError(f"{path} cannot be removed ({error}): see who owns it, and try again") from error
            gone.add(path.parent.name + path.name)
    hit = sorted(name for name, own in objects.items() if own & gone)
    whose = f"; versions that can no longer be brought back whole: {', '.join(hit)}" if hit else ""
    yield f"{len(gone):,} objects of earlier tables are gone from DVC's cache{' and remote' if folder else ''}{whose}."
    remote = dvc.default_remote(root)
    if remote is not None and folder is None and gone:
        yield f"the remote {remote} may have copies of them: delete the objects {', '.join(sorted(gone))} there"


def _versions(root: Path) -> list[Version]:
    try:
        return list_versions(root)
    except FacemillError:  # no git
        return []


def _objects(root: Path, tag: str) -> set[str]:
    """DVC's hashes of all that a version's tables consist of, as far as the cache knows."""
    content, cache = git.show(root, tag, LOCK_FILE), dvc.cache_folder(root)
    found = set()
    for md5 in locks.cached_hashes(locks.parse(content)) if content else []:
        found.add(md5)
        path = cache / md5[:2] / md5[2:]
        if md5.endswith(".dir") and path.is_file():
            found.update(entry["md5"] for entry in json.loads(path.read_text()))
    return found
