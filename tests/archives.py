"""An archive in, an archive out: parameters for converting test clips, and what was converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facemill import schema, tables
from tasks.params import Params, parse_params


def parameters(tracking: dict[str, Any] | None = None, **changes: Any) -> Params:
    person = {"rights": {"basis": "own", "evidence": "a test's own"}, "references": ["sample:hopper"]}
    person["sources"] = [{"kind": "sample", "person": "hopper"}]
    group: dict[str, Any] = {"becomes": {"hopper": "collins"}, "encoder": {"preset": "ultrafast"}}
    group |= {"detail": "match", "occlusion": "none"}
    values = {"identities": {"hopper": person, "collins": person}, "archive": {"kind": "sample"}}
    values |= {"convert": group | changes, "track": tracking or {}, "cluster": {"kind": "inline"}}
    return parse_params(values)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["video"]: row for row in tables.iterate_rows(folder, schema.CONVERSIONS)}


def stamps(folder: Path) -> dict[str, int]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".mp4", ".mkv", ".mov", ".avi")]
    # which file it is, since a converted video has the date of its source
    return {str(path.relative_to(folder)): path.stat().st_ino for path in found}
