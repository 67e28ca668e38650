"""A face is followed at any roll, and seen for the first time at any roll."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from patches import RED, HueDetector, frames, picture

from facemill.align import five_points
from facemill.detect import Faces
from facemill.landmarks import Square, five_in, roll_of
from facemill.track.join import join_tracks
from facemill.track.models import FaceModels
from facemill.track.segment import track_frames
from facemill.track.settings import TrackingSettings
from facemill.track.tracker import FaceTracker, TrackSettings, whole_frames
from facemill.video import Frame
from tasks.work.cluster import one_thread

SIDE_PX = 400


@pytest.fixture(scope="module", autouse=True)
def as_in_a_worker() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    one_thread()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels("hog")


@pytest.mark.parametrize("start_deg", [0, 180])
def test_a_face_that_turns_through_half_a_circle_keeps_its_track_and_its_landmarks(
    collins: np.ndarray, models: FaceModels, start_deg: int
) -> None:
    face = cv2.resize(collins[0:300, 80:380], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    upright = models.landmarks(face, models.search(face, 80)[:1])[0].astype(float)
    middle, size_wh = ((SIDE_PX - 1) / 2, (SIDE_PX - 1) / 2), (SIDE_PX, SIDE_PX)
    turns = [cv2.getRotationMatrix2D(middle, -(start_deg + 3.0 * index), 0.9) for index in range(61)]
    clip = [
        Frame.from_rgb(np.asarray(cv2.warpAffine(face, turn, size_wh), np.uint8), index, Fraction(1, 25))
        for index, turn in enumerate(turns)
    ]
    seen = track_frames(clip, models, TrackingSettings())
    assert seen is not None
    found = join_tracks([seen], TrackingSettings())
    [track] = [track for track in found.tracks if track.frames > 5]
    assert track.runs == ((0, 60),)
    rows = found.rows(0)
    true = np.stack([upright @ turn[:, :2].T + turn[:, 2] for turn in turns])
    eyes = np.linalg.norm(true[:, 36] - true[:, 45], axis=1)
    errors = np.linalg.norm(rows.points[rows.track == track.track] - true, axis=2).mean(axis=1) / eyes
    assert errors.max() < 0.1
    assert np.median(errors) < 0.03


def test_turned_frames_are_searched_now_and_then_and_only_where_nobody_is_upright(models: FaceModels) -> None:
    asked = []

    class Counting(FaceModels):
        def find_turned(self, frames: list[Frame], *others: int) -> list[Faces]:  # type: ignore[override]  # whatever else
            asked.append(frames[0].pts)
            return super().find_turned(frames, *others)

    counting = Counting("hog")
    nobody = frames([{}] * 161)
    track_frames(nobody, counting, TrackingSettings(every=10, every_s=10.0, turned_every=8))
    assert asked == [0, 80, 160]
    asked.clear()
    track_frames(nobody[:41], counting, TrackingSettings(every=10, every_s=10.0, turned_every=0))
    assert asked == []


@given(roll=st.floats(-np.pi, np.pi), side=st.floats(20, 500))
def test_five_points_tell_the_roll_that_they_were_placed_with(roll: float, side: float) -> None:
    found = roll_of(five_in(Square(np.array([100.0, 50.0]), side, roll)))
    assert (found - roll + np.pi) % (2 * np.pi) - np.pi == pytest.approx(0, abs=1e-3)


def test_an_upright_face_has_its_five_points_where_the_mean_face_has(collins: np.ndarray, models: FaceModels) -> None:
    box = models.search(collins, 80)[0]
    placed = five_in(Square((box[:2] + box[2:]) / 2, float(box[2] - box[0])))
    points = five_points(models.landmarks(collins, box[None])[0])
    assert np.linalg.norm(placed - points, axis=1).max() < 0.15 * (box[2] - box[0])


def test_a_face_that_the_detector_loses_is_asked_for_at_its_place_and_keeps_its_id() -> None:
    """Blind from the second key frame on; whoever looks again sees it, and says how it is rolled."""
    detector, asked = HueDetector(), []
    detector.blind = {1, 2}

    def again(frame: Frame, box: np.ndarray, roll: float) -> Faces:
        asked.append((frame.pts, roll))
        [seen] = HueDetector().detect([picture({RED: (60 + frame.pts, 40, 60)})])
        box = seen.boxes_xyxy[0]
        five = five_in(Square((box[:2] + box[2:]) / 2, 60.0, 1.0))
        return Faces(seen.boxes_xyxy, seen.scores, five[None])

    clip = frames([{RED: (60 + index, 40, 60)} for index in range(25)])
    tracker = FaceTracker(whole_frames(detector), TrackSettings(every=8, every_s=10.0), again)
    followed = list(tracker.follow(clip))
    assert [{face.track for face in frame.faces} for frame in followed] == [{0}] * 25
    assert [pts for pts, _ in asked][:2] == [8, 16]
    assert asked[1][1] == pytest.approx(1.0, abs=1e-3)


def test_an_error_of_looking_again_costs_neither_the_frame_nor_the_video() -> None:
    detector = HueDetector()
    detector.blind = {1}

    def again(frame: Frame, box: np.ndarray, roll: float) -> Faces:
        raise RuntimeError("nothing to be seen")

    clip = frames([{RED: (60, 40, 60)}] * 17)
    followed = list(FaceTracker(whole_frames(detector), TrackSettings(every=8, every_s=10.0), again).follow(clip))
    assert len(followed) == 17
    assert not [frame.error for frame in followed if frame.error]
