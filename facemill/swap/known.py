"""From tracks to the faces that are painted: everybody who is to be replaced in the frames of a segment."""

from __future__ import annotations

from collections.abc import Mapping

from facemill.swap.converter import KnownFaces
from facemill.swap.detail.tracks import TrackChoice
from facemill.swap.painter import WantedFace
from facemill.track.table import TrackedFiles, TrackedSegment, read_points


def wanted_of(who: Mapping[int, str | None], becomes: Mapping[str, str]) -> dict[int, str]:
    """Those of the tracks whose faces are replaced, with whose they are.

    Args:
        who: track → the identity that it is, None for somebody else.
        becomes: the identity that is replaced → the identity whose face is put there.
    """
    return {track: identity for track, identity in who.items() if identity is not None and identity in becomes}


def known_faces(
    files: TrackedFiles,
    tracked: TrackedSegment,
    wanted: Mapping[int, str],
    choices: Mapping[int, TrackChoice] | None = None,
) -> KnownFaces:
    """The faces of a segment's frames.

    Args:
        files: the tables of the video.
        wanted: track → whose face it is, of those that are replaced.
        choices: track → which exemplars its frames take, as `choose_for_tracks` makes it.
    """
    chosen = choices or {}
    points = read_points(files, tracked.segment, wanted)
    faces = {
        pts: tuple(
            WantedFace(wanted[track], landmarks, strength, chosen[track].at(pts) if track in chosen else None)
            for track, landmarks, strength in found
        )
        for pts, found in points.items()
    }
    return KnownFaces(faces=faces, errors=tracked.errors)
