"""Planted in a clip, with the real predictors: a face that is covered, half out of the picture, or there again."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from facemill.detect import Faces
from facemill.quality import LEAST_PRESENCE, LEAST_VISIBLE
from facemill.track.join import PointRows, join_tracks
from facemill.track.models import FaceModels
from facemill.track.segment import track_frames
from facemill.track.settings import TrackingSettings
from facemill.video import Frame

Picture = npt.NDArray[np.uint8]
FRAMES, HIDDEN = 36, range(12, 24)


class Believing(FaceModels):
    """Its detector finds the face where it was planted, whatever is to be seen there."""

    def __init__(self, box: npt.NDArray[np.float32], weights: Path | None) -> None:
        chosen = {"landmarks": "mesh", "landmark_options": {"weights": weights}} if weights else {}
        super().__init__("hog", **chosen)  # type: ignore[arg-type]  # of two kinds
        self.box = box

    def find(self, frames: Sequence[Frame], min_face_px: int, max_side_px: int) -> list[Faces]:
        return [Faces(self.box[None], np.ones(1, np.float32)) for _ in frames]


@pytest.fixture(scope="module")
def face(collins: Picture) -> Picture:
    return cv2.resize(collins[0:300, 80:380], (400, 400), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module", params=["dlib", "mesh"])
def models(request: pytest.FixtureRequest, face: Picture) -> Believing:
    weights = request.getfixturevalue("mesh_weights") if request.param == "mesh" else None
    [box] = FaceModels("hog").search(face, 80)[:1]
    return Believing(box.astype(np.float32), weights)


def rows_of(models: FaceModels, pictures: Sequence[Picture]) -> PointRows:
    clip = [Frame.from_rgb(each, at, Fraction(1, 25)) for at, each in enumerate(pictures)]
    seen = track_frames(clip, models, TrackingSettings(every=1, turned_every=0))
    assert seen is not None
    found = join_tracks([seen], TrackingSettings())
    assert len(found.tracks) == 1
    return found.rows(0)


def test_a_covered_face_fades_and_is_found_again_at_once(models: Believing, face: Picture) -> None:
    """dlib lays the mean face over whatever is there and finds it again at the same place: it does not tell."""
    covered = face.copy()
    noise = np.random.default_rng(5).integers(0, 256, (9, 9, 3), np.uint8)
    covered[60:330, 60:340] = cv2.resize(noise, (280, 270))
    rows = rows_of(models, [covered if at in HIDDEN else face for at in range(FRAMES)])
    hidden = np.isin(rows.pts, HIDDEN)
    assert len(rows.pts) == FRAMES
    if models.predictor.startswith("dlib"):
        assert np.isnan(rows.presence).all()
        assert rows.doubt[hidden].min() > 2 * rows.doubt[~hidden].max()
        return
    assert rows.presence[hidden].max() < LEAST_PRESENCE < rows.presence[~hidden].min()
    assert (rows.strength[hidden] == 0).all()
    np.testing.assert_allclose(rows.strength[5:12], [1, 1, 1, 0.8, 0.6, 0.4, 0.2], atol=1e-6)
    np.testing.assert_allclose(rows.strength[24:31], [0.2, 0.4, 0.6, 0.8, 1, 1, 1], atol=1e-6)
    eyes = np.linalg.norm(rows.points[0, 36] - rows.points[0, 45])
    assert np.linalg.norm(rows.points[~hidden] - rows.points[0], axis=2).max() < 0.05 * eyes


def test_an_open_face_is_trusted_throughout(models: Believing, face: Picture) -> None:
    rows = rows_of(models, [face] * 12)
    assert (rows.strength == 1).all()
    assert rows.visibility.min() == 1
    assert rows.doubt.max() < 0.02


def test_a_face_half_out_of_the_picture_is_less_visible(models: Believing, face: Picture) -> None:
    whole, left = models.box, int(models.box[[0, 2]].mean())
    models.box = whole - np.array([left, 0, left, 0], np.float32)
    rows = rows_of(models, [np.ascontiguousarray(face[:, left:])] * 6)
    models.box = whole
    assert 0.3 < rows.visibility.mean() < LEAST_VISIBLE
