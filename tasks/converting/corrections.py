"""What a person says of tracks, against what their looks say: `tracks.yaml` in the project's folder.

    interviews/talk.mp4:              # the video's path inside the archive
      - {track: 3, is: nobody}        # left as it is
      - {track: 5, is: anna}          # taken for Anna, who may be replaced

`facemill preview` shows the numbers. They hold as long as a video is tracked with the same settings; a number that no
track of its video has is refused, so that a correction never goes astray in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import file_sha256
from tasks.params_file import parse_params_text

CORRECTIONS_FILE = "tracks.yaml"
NOBODY = "nobody"

Corrections = Mapping[str, Mapping[int, str | None]]
"""Video → track → the identity that it is taken for, or None for nobody."""


def read_corrections(root: Path, identities: Collection[str]) -> Corrections:
    """The corrections of a project; none where there is no file of them.

    Args:
        root: of the project.
        identities: who may be named.

    Raises:
        FacemillError: the file cannot be read, or says something else than tracks; with the place.
    """
    path = root / CORRECTIONS_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FacemillError(f"{path} cannot be read: {error.strerror}") from error
    values = parse_params_text(data, str(path)) if data.strip() else {}
    return {video: _of_video(f"{path}: {video}", entries, identities) for video, entries in values.items()}


def hash_corrections(root: Path) -> dict[str, str]:
    """The file's name and its SHA-256, for whoever compares; nothing where there is none."""
    path = root / CORRECTIONS_FILE
    return {CORRECTIONS_FILE: file_sha256(path)} if path.is_file() else {}


def _of_video(place: str, entries: Any, identities: Collection[str]) -> dict[int, str | None]:
    shape = "write a list of `{track: 3, is: nobody}` or `{track: 3, is: NAME}`"
    if not isinstance(entries, list):
        raise FacemillError(f"{place}: {shape}")
    found: dict[int, str | None] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != {"track", "is"} or type(entry["track"]) is not int:
            raise FacemillError(f"{place}: {shape}, got {entry!r}")
        track, name = entry["track"], entry["is"]
        if name != NOBODY and name not in identities:
            known = ", ".join([NOBODY, *sorted(identities)])
            raise FacemillError(
                f"{place}: track {track} is {name!r}, whom params.yaml does not know; known are {known}"
            )
        if track in found:
            raise FacemillError(f"{place}: track {track} stands twice")
        found[track] = None if name == NOBODY else name
    return found
