"""What is wanted of a source as rows of `raw`: a picture, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemill.errors import InputError
from facemill.files import file_sha256
from facemill.pictures import decode, sha256_hex, sniff
from facemill.reasons import Reason, State
from facemill.schema import EncodedPicture, RawRow, StateColumns
from facemill.sources import Item, Unit
from tasks.work.forgotten import Forgotten


@dataclass(frozen=True)
class PictureSettings:
    """What every shard of pictures needs to know."""

    max_pixels: int
    forgotten: Forgotten


@dataclass(frozen=True)
class Wanted:
    """A unit of the inventory: None where its file has gone since. `sha256` is the file's, where it has one."""

    entry: Mapping[str, Any]
    unit: Unit | None
    sha256: str | None
    key: str

    @property
    def is_single(self) -> bool:
        """Whether it is bound to give one row."""
        return self.unit is None or self.unit.single


def picture_row(item: Item, settings: PictureSettings) -> RawRow:
    """An item as a row: three ways out, and no fourth."""
    row: RawRow = {
        "identity": item.identity,
        "role": item.role,
        "source": item.source,
        "url": item.url,
        "page": item.page,
        "pts": item.pts,
        "shot": item.shot,
        "licence": item.licence,
        "author": item.author,
        "rights": item.rights,
    }
    if item.data is None:
        return {**row, **_problem(item.error or Reason.PROCESSING_ERROR, item.detail)}
    row["sample_id"] = sha256_hex(item.data)
    try:
        height, width = decode(item.data, max_pixels=settings.max_pixels).shape[:2]
    except InputError as problem:
        return {**row, **_problem(problem.reason, problem.detail)}
    image: EncodedPicture = {"bytes": item.data, "path": f"{row['sample_id'][:16]}.{sniff(item.data)}"}
    read: RawRow = {"width": width, "height": height, "image": image, "status": State.OK}
    return {**row, **read}


def _problem(reason: Reason, detail: str) -> StateColumns:
    return {"status": reason.state, "error": reason, "detail": detail}


def lost_row(wanted: Wanted, reason: Reason, detail: str) -> RawRow:
    """The row of a unit that gave nothing, which says why."""
    entry = wanted.entry
    where: RawRow = {
        "identity": entry["identity"],
        "role": entry["role"],
        "source": entry["source"],
        "url": entry["name"],
        "unit": wanted.key,
    }
    return {**where, **_problem(reason, detail)}


def forgotten_row(wanted: Wanted) -> RawRow:
    """The row of a picture that is not kept: nothing that tells which it was."""
    where: RawRow = {**lost_row(wanted, Reason.FORGOTTEN, ""), "url": ""}
    return where


def is_forgotten(row: RawRow, forgotten: Forgotten) -> bool:
    """Whether forgotten.yaml names a row's picture, by its identity, its bytes, its addresses or its author."""
    return forgotten.covers(
        identity=row.get("identity"),
        sample_id=row.get("sample_id"),
        addresses=[row.get("url"), row.get("page")],
        author=row.get("author"),
    )


def has_changed(path: Path | None, sha256: str | None) -> bool:
    """Whether a file has other bytes than when the inventory looked; not where either is unknown."""
    try:
        return path is not None and sha256 is not None and file_sha256(path) != sha256
    except OSError:
        return False  # whoever reads it says so
