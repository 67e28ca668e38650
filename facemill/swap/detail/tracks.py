"""What each frame of a tracked video takes from which exemplar: chosen over whole tracks, looked up by segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facemill.swap.detail.exemplars import Exemplars
from facemill.swap.detail.from_exemplars import FrameChoice
from facemill.swap.detail.path import Choice, choose, usual_shape
from facemill.track.table import TrackedFiles, read_points
from facemill.video import Segment


@dataclass(frozen=True)
class TrackChoice:
    """The choice of one track. `pts`: (T,) of its frames, rising."""

    pts: npt.NDArray[np.int64]
    choice: Choice

    def at(self, pts: int) -> FrameChoice | None:
        """What the frame with that time stamp takes; None where the track is not in it."""
        row = int(np.searchsorted(self.pts, pts))
        if row == len(self.pts) or self.pts[row] != pts:
            return None
        return FrameChoice(self.choice.index[row], self.choice.weight[row], self.choice.gain[row])


def choose_for_tracks(
    files: TrackedFiles,
    wanted: Mapping[int, str],
    becomes: Mapping[str, str],
    exemplars: Mapping[str, Exemplars],
    pixel_ratio: float = 1.0,
) -> dict[int, TrackChoice]:
    """The choices of all tracks that are replaced by somebody who has exemplars.

    The same for every segment of a video, since whole tracks are looked at: worth keeping for the next one.

    Args:
        files: the tables of the video.
        wanted: track → whose face it is.
        becomes: the identity that is replaced → the identity whose face is put there.
        exemplars: by identity; those of the one who is replaced say what that face's usual shape is.
        pixel_ratio: width of the video's pixels over their height.
    """
    tracks = {track: who for track, who in wanted.items() if exemplars.get(becomes[who])}
    found: dict[int, list[tuple[int, npt.NDArray[np.float32]]]] = {track: [] for track in tracks}
    for pts, faces in sorted(read_points(files, Segment(), tracks).items()) if tracks else ():
        for track, points, _ in faces:
            found[track].append((pts, points))
    choices = {}
    for track, rows in found.items():
        if rows:
            points = np.array([row[1] for row in rows]) * np.array([pixel_ratio, 1.0])
            own = exemplars.get(tracks[track])
            usual = usual_shape(own.landmarks if own else points)
            choice = choose(points, usual, exemplars[becomes[tracks[track]]].landmarks)
            choices[track] = TrackChoice(np.array([row[0] for row in rows], np.int64), choice)
    return choices
