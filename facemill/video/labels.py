"""What a container says of itself and its streams: titles, dates, languages, chapters, dispositions, timecode.

The tables are of what the muxers do with each (FFmpeg 8.1): what they write anew is left out, what they cannot hold is
named.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av.container
import av.error
from av.stream import Stream

from facemill.video.clock import Clock
from facemill.video.info import open_input

if TYPE_CHECKING:
    from av.container.core import Chapter  # in the stubs only

# Written anew by every muxer, or true of the old file only.
STALE = {
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "duration",
    "number_of_frames",
    "number_of_bytes",
    "bps",
    "variant_bitrate",
    "alpha_mode",
    "rotate",
}
ONLY_BOXES = {"vendor_id", "handler_name"}  # of MP4 and QuickTime
# ISO 639-2 has two codes for some languages; QuickTime's table knows the older one.
QUICKTIME_LANGUAGES = {
    "bod": "tib", "ces": "cze", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq", "fas": "per", "fra": "fre",
    "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac", "mri": "mao", "msa": "may", "mya": "bur", "nld": "dut",
    "ron": "rum", "slk": "slo", "sqi": "alb", "zho": "chi",
}  # fmt: skip


def copy_labels(source: Stream, target: Stream, container: str) -> None:
    """Language, title, disposition and what else a stream says of itself."""
    kept = _kept(source.metadata, container)
    if container in ("mp4", "mov") and "title" in kept:
        kept["handler_name"] = kept["title"]  # where QuickTime and its kin show the name of a track
    if container == "mov" and kept.get("language") in QUICKTIME_LANGUAGES:
        kept["language"] = QUICKTIME_LANGUAGES[kept["language"]]
    target.metadata.update(kept)
    target.disposition = source.disposition


def copy_container(
    source: av.container.InputContainer, output: av.container.OutputContainer, clock: Clock
) -> list[str]:
    """Title, dates, place, chapters and attachments. Returns what the output cannot hold, as far as that is known
    before it is written; `lost_labels` finds the rest."""
    output.metadata.update(_kept(source.metadata, output.format.name))
    _copy_chapters(source, output, clock)
    return _copy_attachments(source, output)


def lost_labels(source: Path, written: Path) -> list[str]:
    """What the source says of itself and the written file does not."""
    with open_input(source) as before, open_input(written) as after:
        container = "matroska" if "matroska" in after.format.name else "mp4"
        found = {key.lower() for key in after.metadata}
        for stream in after.streams:
            found |= {key.lower() for key in stream.metadata}
        lost = sorted(key for key in _kept(before.metadata, container) if key.lower() not in found)
        notes = [f"dropped the tags {', '.join(lost)}: the container has no place for them"] if lost else []
        missing = len(before.chapters()) - len(after.chapters())
        if missing > 0:
            notes.append(f"dropped {missing} chapters: the container does not hold them")
        named = {key.lower() for stream in before.streams for key in stream.metadata}  # Matroska shouts
        if "timecode" in named and "timecode" not in found:
            notes.append("dropped the timecode")
        return notes


def _copy_chapters(source: av.container.InputContainer, output: av.container.OutputContainer, clock: Clock) -> None:
    moved: list[Chapter] = []
    for chapter in source.chapters():
        shift = round(clock.origin_s / Fraction(chapter["time_base"] or 1))
        moved.append({**chapter, "start": chapter["start"] - shift, "end": chapter["end"] - shift})
    if moved:
        output.set_chapters(moved)


def _copy_attachments(source: av.container.InputContainer, output: av.container.OutputContainer) -> list[str]:
    notes = []
    for stream in source.streams:
        if stream.type != "attachment":
            continue
        attachment: Any = stream
        name = attachment.name or f"attachment {stream.index}"
        if output.format.name != "matroska":
            notes.append(f"dropped attachment {name}: {output.format.name} holds none")
            continue
        try:
            output.add_attachment(name, attachment.mimetype or "application/octet-stream", attachment.data or b"")
        except (av.error.FFmpegError, ValueError) as error:
            notes.append(f"dropped attachment {name}: {error}")
    return notes


def _kept(labels: Mapping[str, str], container: str) -> dict[str, str]:
    """Labels that are true of the new file, too, under the names that its muxer knows."""
    boxes = container in ("mp4", "mov")
    kept = {}
    for key, value in labels.items():
        plain = key.lower() if key.isupper() else key  # Matroska shouts (`ARTIST`), MP4 knows `artist` only
        stale = (
            plain in STALE
            or plain.startswith("_statistics")
            or value.startswith("Lavf")
            or (plain in ONLY_BOXES and not boxes)
        )
        if not stale:
            kept[plain] = value
    return kept
