"""A whole video tracked in this process; archives are tracked segment by segment by workers (`tasks.track`)."""

from __future__ import annotations

from pathlib import Path

from facemill.files import file_sha256
from facemill.media import plan_segments
from facemill.track.join import join_tracks
from facemill.track.models import FaceModels
from facemill.track.segment import track_segment
from facemill.track.settings import TrackingSettings
from facemill.track.table import TrackedFiles, write_tracks


def track_video(path: Path, folder: Path, models: FaceModels, settings: TrackingSettings) -> TrackedFiles:
    """Finds, follows and joins all faces of a video.

    Args:
        path: of the video.
        folder: where its three tables go.
        models: what sees; settings: how faces are looked for.

    Raises:
        InputError: the video cannot be read.
        FacemillError: a full disk.
    """
    plan = plan_segments(path)
    pieces = [track_segment(path, segment, models, settings) for segment in plan.segments]
    files = TrackedFiles(*(str(folder / f"{name}.parquet") for name in ("segments", "tracks", "points")))
    write_tracks(files, file_sha256(path), plan, pieces, join_tracks(pieces, settings))
    return files
