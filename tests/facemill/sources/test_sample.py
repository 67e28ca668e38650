"""The sample people: what they do is what the pose says, and the landmarks are where they are said to be."""

import numpy as np
import pytest

from facemill.errors import FacemillError
from facemill.sources.sample import Pose, load_portrait, people, render

BUSY = Pose(
    yaw_deg=12,
    pitch_deg=-6,
    roll_deg=8,
    scale=1.1,
    shift=(0.05, -0.03),
    mouth_open=0.5,
    smile=0.6,
    blink=0.5,
    brows=-0.5,
    light=0.5,
    light_from_deg=140,
    gamma=1.1,
    warmth=0.4,
    background=3,
    background_blur_px=2,
    grain=4,
    noise_seed=9,
)


@pytest.mark.parametrize("person", people())
def test_the_same_pose_gives_the_same_bytes(person: str) -> None:
    first, second = render(person, BUSY, (401, 387)), render(person, BUSY, (401, 387))
    assert first[0].shape == (387, 401, 3)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


@pytest.mark.parametrize("person", people())
def test_a_pose_of_zeros_is_the_portrait_itself(person: str) -> None:
    picture, landmarks = render(person, Pose())
    portrait = load_portrait(person)
    offset = portrait.landmarks[0] - landmarks[0]
    assert np.allclose(portrait.landmarks - offset, landmarks, atol=1e-3)
    # Half a pixel lies between both grids: compare where the other side of a pixel is the same.
    left, top = np.round(offset).astype(int)
    there = portrait.rgb[top : top + 512, left : left + 512].astype(int)
    assert np.median(np.abs(there - picture)) <= 2


@pytest.mark.parametrize("person", people())
def test_true_landmarks_agree_with_dlibs(person: str) -> None:
    """Within a tenth of the distance between the eyes, on average; dlib itself is off by 0.026 on real faces."""
    from facemill.detect import build_detector
    from facemill.landmarks.dlib import DlibPredictor

    picture, landmarks = render(person, Pose(yaw_deg=-8, roll_deg=6, mouth_open=0.3, background=5, scale=1.1))
    faces = build_detector("hog", min_face_px=80).detect([picture])[0]
    assert len(faces) == 1
    predicted = DlibPredictor().predict(picture, faces.boxes_xyxy)[0]
    eyes = np.linalg.norm(landmarks[36:42].mean(0) - landmarks[42:48].mean(0))
    assert np.linalg.norm(predicted - landmarks, axis=1).mean() / eyes < 0.1


def test_whatever_a_person_does_she_is_still_herself() -> None:
    from facemill.embeddings import SAME_PERSON, distance
    from facemill.identity import Embedder

    shown = [render(person, pose) for person in people() for pose in (Pose(), BUSY)]
    a, busy_a, b, busy_b = (Embedder().embed(picture, points[None])[0] for picture, points in shown)
    assert distance(a, busy_a) < SAME_PERSON - 0.05
    assert distance(b, busy_b) < SAME_PERSON - 0.05
    assert distance(a, b) > SAME_PERSON


@pytest.mark.parametrize("person", people())
def test_pixels_move_with_their_landmarks(person: str) -> None:
    """The same few pixels lie around the tip of the nose and the corner of an eye before and after a turn."""
    before, points = render(person, Pose())
    after, moved = render(person, Pose(yaw_deg=9, pitch_deg=4, shift=(0.04, 0.02)))
    for index in (30, 36, 45, 8):
        assert np.linalg.norm(points[index] - moved[index]) > 8
        there = _likeness(before, points[index], after, moved[index])
        assert there > 0.85, index
        assert there > _likeness(before, points[index], after, points[index]), index


@pytest.mark.parametrize("person", people())
def test_mouth_lids_and_brows_follow_the_pose(person: str) -> None:
    rest, talking = render(person, Pose())[1], render(person, Pose(mouth_open=0.6))[1]
    assert talking[66, 1] - talking[62, 1] > rest[66, 1] - rest[62, 1] + 15
    assert talking[8, 1] > rest[8, 1] + 10
    shut = render(person, Pose(blink=1))[1]
    assert _opening(shut) < 0.35 * _opening(rest)
    assert render(person, Pose(brows=1))[1][19, 1] < rest[19, 1] - 3
    smiling = render(person, Pose(smile=1))[1]
    assert smiling[54, 0] - smiling[48, 0] > rest[54, 0] - rest[48, 0] + 8


def test_a_face_at_the_edge_is_drawn_as_far_as_there_is_room() -> None:
    picture, landmarks = render("hopper", Pose(shift=(0.7, 0.6), blink=1, mouth_open=0.5), (64, 480))
    assert picture.shape == (480, 64, 3)
    assert landmarks[:, 0].max() > 64


def test_an_unknown_person_is_answered_with_the_known_ones() -> None:
    with pytest.raises(FacemillError, match="collins, hopper"):
        render("lovelace", Pose())


def _opening(points: np.ndarray) -> float:
    return float(np.mean(points[[40, 41, 46, 47], 1] - points[[38, 37, 44, 43], 1]))


def _likeness(one: np.ndarray, at: np.ndarray, other: np.ndarray, there: np.ndarray) -> float:
    """Correlation of two patches of 15 px, the better of a few whole-pixel places."""
    patch = _patch(one, np.round(at).astype(int))
    around = [np.add(np.round(there).astype(int), (x, y)) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    return max(float(np.corrcoef(patch, _patch(other, place))[0, 1]) for place in around)


def _patch(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
    x, y = at
    return picture[y - 7 : y + 8, x - 7 : x + 8].mean(2).ravel()
