"""dlib's CNN detector: sizes, batches, and the word about its speed."""

import dlib
import numpy as np
import pytest

from facemill.align import resized
from facemill.detect import build_detector, mmod


@pytest.fixture(scope="module")
def face(collins):
    """240×240 around Eileen Collins' face of 95 px."""
    return np.ascontiguousarray(collins[10:250, 100:340])


@pytest.mark.skipif(dlib.DLIB_USE_CUDA, reason="this dlib has CUDA, so there is nothing to warn of")
def test_a_process_without_cuda_is_told_once_how_slow_it_is(recwarn):
    mmod._warn_without_cuda.cache_clear()
    for _ in range(2):
        build_detector("mmod", min_face_px=80)
    assert [str(one.message)[:31] for one in recwarn] == ["dlib was built without CUDA: it"]
    assert "s for each megapixel" in str(recwarn[0].message)


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_the_same_face_is_found_at_the_size_that_is_asked_for(face, factor):
    """Smaller than the net's window of 80 px the picture is enlarged, larger it is shrunk; boxes come back in it."""
    side = round(240 * factor)
    picture = resized(face, (side, side))
    best = build_detector("mmod", min_face_px=round(85 * factor)).detect([picture])[0].boxes_xyxy[0]
    assert np.abs(best / factor - [68, 59, 163, 154]).max() < 16


def test_a_batch_of_equal_and_other_sizes_equals_single_pictures(face):
    detector = build_detector("mmod", min_face_px=80)
    pictures = [face, np.ascontiguousarray(face[20:220]), np.ascontiguousarray(face[:, ::-1])]
    alone = [detector.detect([picture])[0] for picture in pictures]
    for together, one in zip(detector.detect(pictures), alone, strict=True):
        np.testing.assert_allclose(together.boxes_xyxy, one.boxes_xyxy, atol=1)
        np.testing.assert_allclose(together.scores, one.scores, atol=1e-3)
    assert min(map(len, alone)) == 1


def test_a_huge_picture_is_searched_at_the_size_that_memory_bears(collins):
    large = resized(collins, (400, 400))
    detector = build_detector("mmod", min_face_px=20, max_mpx=0.15)
    assert detector._size_wh(large.shape) == (387, 387)
    assert detector._size_wh((60_000, 60_000)) == (387, 387)


def test_a_threshold_above_every_margin_finds_nothing(face):
    assert len(build_detector("mmod", min_face_px=80, threshold=9.0).detect([face])[0]) == 0
