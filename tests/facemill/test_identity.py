"""Embeddings: one person near, two people far."""

import numpy as np
import pytest

from facemill.detect import build_detector
from facemill.embeddings import SAME_PERSON, distance
from facemill.identity import Embedder, face_chips
from facemill.landmarks.dlib import DlibPredictor


@pytest.fixture(scope="module")
def embedder():
    return Embedder()


def landmarks_of(picture):
    boxes = build_detector("hog", min_face_px=60).detect([picture])[0].boxes_xyxy
    return DlibPredictor().predict(picture, boxes[:1])


def test_one_person_in_other_light_is_near_and_another_far(embedder, hopper, collins):
    dim = (hopper * 0.6).astype(np.uint8)
    mirrored = hopper[:, ::-1].copy()
    own, darker, other_side, other = (embedder.embed(p, landmarks_of(p))[0] for p in (hopper, dim, mirrored, collins))
    assert distance(own, darker) < SAME_PERSON / 2
    assert distance(own, other_side) < SAME_PERSON
    assert distance(own, other) > SAME_PERSON


def test_a_batch_gives_what_its_faces_give_alone(embedder, collins):
    points = landmarks_of(collins)
    both = np.concatenate([points, points + 3])
    together = embedder.embed(collins, both)
    assert together.shape == (2, 128)
    np.testing.assert_allclose(together[0], embedder.embed(collins, points)[0], atol=1e-5)


def test_no_face_gives_no_embedding(embedder, collins):
    assert embedder.embed(collins, np.zeros((0, 68, 2))).shape == (0, 128)
    assert face_chips(collins, np.zeros((0, 68, 2))) == []


def test_landmarks_of_one_face_without_the_first_axis_are_refused(embedder, collins):
    with pytest.raises(ValueError, match=r"\(N, 68, 2\)"):
        embedder.embed(collins, np.zeros((68, 2)))


def test_distances_are_broadcast():
    first, second = np.zeros((3, 1, 128)), np.zeros((4, 128))
    second[:, 0] = [0, 1, 2, 3]
    np.testing.assert_allclose(distance(first, second), [[0, 1, 2, 3]] * 3)
