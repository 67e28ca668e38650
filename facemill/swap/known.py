"""From tracks to the faces that are painted: everybody who is to be replaced in the frames of a segment."""

from __future__ import annotations

from collections.abc import Mapping

from facemill.swap.converter import KnownFaces
from facemill.swap.painter import WantedFace
from facemill.track.table import TrackedFiles, TrackedSegment, read_points


def known_faces(files: TrackedFiles, tracked: TrackedSegment, wanted: Mapping[int, str]) -> KnownFaces:
    """The faces of a segment's frames.

    Args:
        files: the tables of the video.
        wanted: track → whose face it is, of those that are replaced.
    """
    points = read_points(files, tracked.segment, wanted)
    faces = {
        pts: tuple(WantedFace(wanted[track], landmarks, strength) for track, landmarks, strength in found)
        for pts, found in points.items()
    }
    return KnownFaces(faces=faces, errors=tracked.errors)
