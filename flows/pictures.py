"""Small JPEG pictures of what the stages made, for the Prefect page. The report shows the same at length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from facemill import schema, sheets, tables
from facemill.errors import InputError
from facemill.media import open_media
from facemill.pictures import RGB, decode, encode_jpeg
from facemill.reasons import Reason, State
from tasks.catalogue import Data

FACES = 24
VIDEOS, FRAMES, LOOKED_AT_FRAMES = 4, 5, 250
_MAX_PIXELS = 4_000_000
_QUALITY = 80


def dataset_sheets(root: Path) -> Iterator[tuple[str, bytes]]:
    """For each identity the first accepted faces, then rejected ones with their reasons in the caption."""
    for identity, faces in sorted(_crops(root / Data.DATASET, State.OK).items()):
        yield f"{identity}: accepted", _sheet(faces)
    for reason, faces in sorted(_crops(root / Data.DATASET, State.REJECTED).items()):
        yield f"rejected, {reason}: {Reason(reason).sentence}", _sheet(faces)


def newest_preview(folder: Path) -> tuple[str, bytes] | None:
    """The training's last preview below a folder."""
    found = folder.glob("**/previews/step-*.jpg")
    newest = max(found, key=lambda path: (path.stat().st_mtime, path.name), default=None)
    if newest is None:
        return None
    return f"step {int(newest.stem.removeprefix('step-'))}", _jpeg(decode(newest.read_bytes(), max_pixels=_MAX_PIXELS))


def conversion_strips(pairs: list[tuple[str, Path, Path]]) -> Iterator[tuple[str, bytes]]:
    """Frames of the first videos, before above after.

    Args:
        pairs: (name, original, converted) of each video.
    """
    for name, before, after in pairs[:VIDEOS]:
        try:
            frames = _both(before, after)
        except (InputError, OSError):  # a picture is not worth a failure: the video's row says what it is
            continue
        if frames:
            yield f"{name}: before, after", _jpeg(sheets.before_after(frames, height_px=150))


def _both(before: Path, after: Path) -> list[tuple[RGB, RGB]]:
    """Frames spread over the beginning of both videos, which have the same frames."""
    with open_media(before) as left, open_media(after) as right:
        length = min(left.info.frames or LOOKED_AT_FRAMES, LOOKED_AT_FRAMES)
        wanted = {(2 * at + 1) * length // (2 * FRAMES) for at in range(FRAMES)}
        found = [
            (one.rgb, other.rgb)
            for index, (one, other) in enumerate(islice(zip(left, right, strict=False), length))
            if index in wanted
        ]
    return [(a, b) for a, b in found if a.shape == b.shape]


def _crops(dataset: Path, state: State) -> dict[str, list[RGB]]:
    """The first crops of each identity (accepted) or reason (rejected); of other parts no picture is read."""
    groups: dict[str, list[RGB]] = {}
    for part in tables.parts(dataset):
        states = tables.read_part(part, schema.DATASET, ["status", "identity", "error"])
        counts = Counter({name: len(faces) for name, faces in groups.items()})
        wanted = []
        for index, row in enumerate(tables.to_rows(states, schema.DATASET)):
            name = row["identity"] if state is State.OK else row["error"] or ""
            if row["status"] == state and counts[name] < FACES:
                counts[name] += 1
                wanted.append((index, name))
        if not wanted:
            continue
        crops = tables.read_part(part, schema.DATASET, ["crop"])["crop"]
        for index, name in wanted:
            crop = crops[index].as_py()
            if crop and crop["bytes"]:
                groups.setdefault(name, []).append(decode(crop["bytes"], max_pixels=_MAX_PIXELS))
    return groups


def _sheet(faces: list[RGB]) -> bytes:
    return _jpeg(sheets.contact_sheet(faces, columns=12, cell_px=72))


def _jpeg(picture: RGB) -> bytes:
    return encode_jpeg(picture, quality=_QUALITY)
