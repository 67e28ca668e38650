"""Stage `inventory`: what lies in the sources, the references and the archive, by content.

Out: `data/inventory.json`, and `data/weights.json` for the files that `train` is given. It runs each time
(`always_changed` in dvc.yaml) and both are written the same while the files are the same, so that what follows is
redone only if something else lies there. A file is read again only when its size or its time has changed: the hashes
are kept in `.work/inventory.json`, which no other stage looks at.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import file_sha256, read_json, stamp, write_json
from facemill.reasons import State
from tasks.catalogue import Data
from tasks.check import check_project
from tasks.collect import archive_videos, plan_units
from tasks.params import Params, SampleArchive
from tasks.paths import archive_folder
from tasks.training.weight_files import weight_files
from tasks.work.progress import track
from tasks.work.shards import WORK_FOLDER, Totals

FORMAT = 1
UNREADABLE = "unreadable"


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Lists and hashes every file. Raises FacemillError where a source or the archive is missing or empty."""
    start = time.monotonic()
    check_project(params, root)
    units = plan_units(params, root)
    files = {unit.path for unit in units if unit.path is not None}
    videos = archive_videos(params, root)
    hashes = _hash_all(root, sorted({*files, *videos}))
    entries = [
        {"identity": unit.identity, "role": unit.role, "source": unit.source, "name": unit.key}
        | ({"sha256": hashes[unit.path]} if unit.path is not None else {})
        for unit in units
    ]
    folder = archive_folder(params, root)
    archive = [{"name": path.relative_to(folder).as_posix(), "sha256": hashes[path]} for path in videos]
    written = {"format": FORMAT, "sources": entries, "archive": archive, "portraits": _portraits(params)}
    write_json(root / Data.INVENTORY, written)
    write_json(root / Data.WEIGHTS, weight_files(params.train, root))
    rows = len(entries) + len(archive)
    return Totals("inventory", rows, {State.OK: {"": rows}}, time.monotonic() - start)


def _hash_all(root: Path, files: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file; of those that changed since the last time, or were never seen, by reading them."""
    cache_file = root / WORK_FOLDER / "inventory.json"
    old = _read_cache(cache_file)
    stamps = {path: _stamp(path) for path in files}
    hashes = {path: old[str(path)][1] for path, now in stamps.items() if now and old.get(str(path), [None])[0] == now}
    unread = [path for path in stamps if path not in hashes]
    if unread:
        with track("inventory", len(unread), "files") as progress:
            for path in unread:
                hashes[path] = _hash(path)
                progress.advance(note=path.name)
    cache = {str(path): [stamps[path], hashes[path]] for path in stamps if hashes[path] != UNREADABLE}
    if cache != old:
        write_json(cache_file, cache)
    return hashes


def _hash(path: Path) -> str:
    """An unreadable file is named so: collecting it gives its row the reason."""
    try:
        return file_sha256(path)
    except OSError:
        return UNREADABLE


def _stamp(path: Path) -> dict[str, int] | None:
    try:
        return stamp(path)
    except OSError:
        return None


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        cache = read_json(path)
    except FacemillError:
        return {}
    return cache if isinstance(cache, dict) else {}


def _portraits(params: Params) -> dict[str, str]:
    """Hashes of the portraits that a sample archive is drawn from: another version of their wheel may bring others."""
    if not isinstance(params.archive, SampleArchive):
        return {}
    from facemill.sources.sample.portraits import people, portrait_file

    return {person: file_sha256(portrait_file(person)) for person in people()}
