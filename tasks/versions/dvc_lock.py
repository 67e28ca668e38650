"""dvc.lock, read and merged: which bytes each stage had and made."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from tasks.catalogue import Data
from tasks.stages import REFRESH_STAGES

LOCK_FILE = "dvc.lock"
_CONFLICT = re.compile(rb"^(<{7} |>{7} )", re.MULTILINE)

Lock = dict[str, Any]


def read(root: Path) -> Lock:
    """The project's lock as plain values; a file that is missing is an empty lock. Raises as `parse`."""
    path = root / LOCK_FILE
    return parse(path.read_bytes()) if path.exists() else {}


def parse(content: bytes) -> Lock:
    """The lock as plain values; an empty file is an empty lock.

    Raises:
        FacemillError: it is not YAML, or not a lock; it holds a merge conflict.
    """
    return deepcopy(_parsed(content))


@lru_cache(maxsize=2)
def _parsed(content: bytes) -> Lock:
    """A night asks for the same lock five times, at 30 ms each."""
    from ruamel.yaml import YAML  # as DVC has it: to another reader, a hash such as 12e34… is a number
    from ruamel.yaml.error import YAMLError

    if _CONFLICT.search(content):
        raise FacemillError(
            f"{LOCK_FILE} holds a merge conflict: take one side with `git checkout --ours {LOCK_FILE}` (or --theirs), "
            "then run `dvc repro`, which redoes what that side lacks"
        )
    try:
        lock: Any = YAML(typ="safe").load(content.decode()) or {}
        _check(lock)
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        raise FacemillError(
            f"{LOCK_FILE} cannot be read ({' '.join(str(error).split())}): bring it back with "
            f"`git checkout {LOCK_FILE}`, or delete it; then run `dvc repro`"
        ) from error
    return dict(lock)


def is_conflict(path: Path) -> bool:
    """Whether git has left both sides of a merge in it, for a person to choose."""
    return path.exists() and _CONFLICT.search(path.read_bytes()) is not None


def dump(lock: Lock) -> bytes:
    """The lock as the bytes of a dvc.lock."""
    from ruamel.yaml import YAML

    stream = BytesIO()
    YAML().dump(lock, stream)
    return stream.getvalue()


def stages(lock: Lock) -> dict[str, Any]:
    """Stage name → what it had (`deps`, `params`) and made (`outs`)."""
    found: dict[str, Any] = lock.get("stages", {})
    return found


def refresh_stages(lock: Lock) -> list[str]:
    """Names of the refresh stages that the lock has an entry for, since they have run."""
    return [name for name in REFRESH_STAGES if name in stages(lock)]


def dataset_stage(lock: Lock) -> str | None:
    """Name of the stage that made the dataset."""
    return next((name for name, entry in stages(lock).items() if _out_hash(entry, Data.DATASET)), None)


def dataset_hash(lock: Lock) -> str | None:
    """DVC's hash of the dataset; None where there is none yet."""
    return next((found for entry in stages(lock).values() if (found := _out_hash(entry, Data.DATASET))), None)


def metrics_files(lock: Lock) -> list[str]:
    """What the refresh stages made below data/metrics: small files that DVC does not keep in its cache."""
    outs = [out for name in refresh_stages(lock) for out in stages(lock)[name].get("outs", [])]
    return [out["path"] for out in outs if out["path"].startswith(f"{Data.METRICS}/")]


def cached_hashes(lock: Lock) -> list[str]:
    """DVC's hashes of what the refresh stages made, metrics left out."""
    outs = [out for name in refresh_stages(lock) for out in stages(lock)[name].get("outs", [])]
    return [out["md5"] for out in outs if not out["path"].startswith(f"{Data.METRICS}/")]


def merged(present: Lock, wanted: Lock) -> Lock:
    """The refresh stages of the wanted lock, every other stage as it is at present."""
    later = {name: entry for name, entry in stages(present).items() if name not in REFRESH_STAGES}
    refresh = {name: entry for name, entry in stages(wanted).items() if name in REFRESH_STAGES}
    return wanted | {"stages": refresh | later}


def _check(lock: Any) -> None:
    """Raises ValueError unless each stage lists what it had and made by path, and its outputs by hash, too."""
    found = lock.get("stages", {}) if isinstance(lock, dict) else None
    if not isinstance(found, dict):
        raise ValueError("no table of stages")
    for name, entry in found.items():
        if not isinstance(entry, dict):
            raise ValueError(f"stage {name} is no table")
        for part, keys in (("deps", {"path"}), ("outs", {"path", "md5"})):
            listed = entry.get(part, [])
            if not isinstance(listed, list) or not all(isinstance(one, dict) and keys <= one.keys() for one in listed):
                raise ValueError(f"stage {name} does not list its {part} by {' and '.join(sorted(keys))}")
        params = entry.get("params", {})
        if not isinstance(params, dict) or not all(isinstance(values, dict) for values in params.values()):
            raise ValueError(f"stage {name} does not list its params by file")


def _out_hash(entry: dict[str, Any], path: str) -> str | None:
    return next((out["md5"] for out in entry.get("outs", []) if out["path"] == path), None)
