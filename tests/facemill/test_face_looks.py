"""Which faces repeat others: copies in any guise, and within a video the same pose, expression and light."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.align import crop_affine, transform, warp
from facemill.detect import build_detector
from facemill.face_looks import LOOK_BYTES, FaceLooks, copies, face_look, repeats, same_looks
from facemill.identity import Embedder
from facemill.landmarks.dlib import DlibPredictor
from facemill.pictures import decode, encode_jpeg

COVERAGE = 1.6


@pytest.fixture(scope="module")
def looks_of() -> Any:
    """Makes the looks of the largest face of each picture, as `extract` would."""
    detector, landmarks, embedder = build_detector("hog", min_face_px=60), DlibPredictor(), Embedder()

    def look(picture: np.ndarray) -> FaceLooks:
        boxes = detector.detect([picture])[0].boxes_xyxy[:1]
        points = landmarks.predict(picture, boxes)
        affine = crop_affine(points[0], 256, COVERAGE)
        return FaceLooks(
            look=np.frombuffer(face_look(warp(picture, affine, 256), COVERAGE), np.uint8)[None],
            points=transform(points[0], affine)[None].astype(np.float32),
            angles_deg=np.zeros((1, 2), np.float32),
            embedding=embedder.embed(picture, points),
            video=np.array([-1]),
        )

    return lambda *pictures: joined([look(picture) for picture in pictures])


def joined(parts: list[FaceLooks]) -> FaceLooks:
    return FaceLooks(**{name: np.concatenate([getattr(one, name) for one in parts]) for name in vars(parts[0])})


def cropped(picture: np.ndarray) -> np.ndarray:
    # by whole cells of HOG: its box hops with them, in one picture of a hundred further than a copy may differ
    return np.ascontiguousarray(picture[16:-16, 32:])


def captioned(picture: np.ndarray) -> np.ndarray:
    found = picture.copy()
    found[-picture.shape[0] // 8 :] = 0
    cv2.putText(found, "An agency 1984", (9, len(found) - 9), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255), 2)
    return found


# Pictures of another size are found by the hash of the whole picture.
CHANGES = {
    "compressed": lambda picture: decode(encode_jpeg(picture, 40)),
    "cropped": cropped,
    "brighter": lambda picture: np.clip(picture * 1.2 + 10.0, 0, 255).astype(np.uint8),
    "captioned": captioned,
    "framed": lambda picture: cv2.copyMakeBorder(picture, 32, 32, 32, 32, cv2.BORDER_CONSTANT, value=(255,) * 3),
    "mirrored": lambda picture: picture[:, ::-1].copy(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_picture_is_a_copy_and_another_person_is_none(
    name: str, looks_of: Any, hopper: Any, collins: Any
) -> None:
    looks = looks_of(hopper, collins, CHANGES[name](hopper), CHANGES[name](collins))
    assert copies(looks).tolist() == [0, 1, 0, 1]


def drawn(count: int, seed: int = 0) -> FaceLooks:
    chance = np.random.default_rng(seed)
    return FaceLooks(
        look=chance.integers(0, 255, (count, LOOK_BYTES), np.uint8),
        points=chance.normal(0, 1, (count, 68, 2)).astype(np.float32),
        angles_deg=np.zeros((count, 2), np.float32),
        embedding=np.zeros((count, 128), np.float32),
        video=np.full(count, -1),
    )


def test_the_best_of_a_chain_stays_and_what_only_resembles_a_fallen_one_stays_too() -> None:
    ramp = np.linspace(0, 200, LOOK_BYTES)
    noise = np.random.default_rng(1).normal(0, 14, (2, LOOK_BYTES))
    chain = np.stack([ramp, ramp + noise[0], ramp + noise[0] + noise[1]]).clip(0, 255).astype(np.uint8)
    looks = replace(drawn(3), look=chain, embedding=np.eye(3, 128, dtype=np.float32) / 5)
    assert copies(looks).tolist() == [0, 0, 2]


def test_flat_faces_are_copies_of_nothing() -> None:
    looks = replace(drawn(3), look=np.full((3, LOOK_BYTES), 90, np.uint8))
    assert copies(looks).tolist() == [0, 1, 2]


@given(st.integers(0, 40), st.integers(1, 3), st.integers(0, 2**16))
def test_comparing_in_blocks_finds_what_comparing_one_by_one_finds(count: int, kinds: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    looks = drawn(kinds, seed)
    rows = chance.integers(0, kinds, count)
    looks = FaceLooks(**{name: column[rows] for name, column in vars(looks).items()})
    first = {kind: int(np.flatnonzero(rows == kind)[0]) for kind in set(rows.tolist())}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facemill.face_looks._COMPARED_AT_ONCE", 3)
        assert copies(looks).tolist() == [first[kind] for kind in rows.tolist()]


def test_frames_of_one_video_fall_where_pose_expression_and_light_are_the_same() -> None:
    one = drawn(1)
    one = replace(one, points=one.points * 0 + np.arange(68, dtype=np.float32)[None, :, None], video=np.array([0]))
    turned = replace(one, angles_deg=one.angles_deg + 4)
    smiling = replace(
        one, points=one.points + np.where(np.arange(68) >= 48, 1.0, 0.0)[None, :, None].astype(np.float32)
    )
    lit = replace(one, look=np.clip(one.look.astype(int) + 20, 0, 255).astype(np.uint8))
    elsewhere, still = replace(one, video=np.array([1])), replace(one, video=np.array([-1]))
    looks = joined([one, one, turned, smiling, lit, elsewhere, still, still])
    assert same_looks(looks, 1.0).tolist() == [0, 0, 2, 3, 4, 5, 6, 7]
    assert same_looks(looks, 0.0).tolist() == list(range(8))
    assert same_looks(looks, 10.0).tolist() == [0, 0, 0, 0, 0, 5, 6, 7]


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4, st.integers(-1, 1)), max_size=24), st.sampled_from([0.0, 1.0, 3.0]))
def test_every_face_that_falls_names_one_that_stays_and_no_two_that_stay_repeat_each_other(
    kinds: list[tuple[int, ...]], step: float
) -> None:
    base, steps = drawn(3), np.array(kinds, np.int64).reshape(-1, 5)
    looks = FaceLooks(
        look=np.clip(base.look[steps[:, 0]].astype(int) + 5 * steps[:, 1, None], 0, 255).astype(np.uint8),
        points=base.points[0] * 0 + np.arange(68, dtype=np.float32)[None, :, None] + np.zeros((len(steps), 1, 2), "f"),
        angles_deg=2 * steps[:, 2:3].repeat(2, axis=1).astype(np.float32),
        embedding=0.3 * np.eye(128, dtype=np.float32)[0] * steps[:, 3, None].astype(np.float32),
        video=steps[:, 4],
    )
    stands = repeats(looks, step)
    assert (stands[stands] == stands).all()
    assert (stands <= np.arange(len(looks))).all()
    kept = np.flatnonzero(stands == np.arange(len(looks)))
    left = FaceLooks(**{name: column[kept] for name, column in vars(looks).items()})
    assert copies(left).tolist() == same_looks(left, step).tolist() == list(range(len(kept)))
    for at in np.flatnonzero(stands != np.arange(len(looks))).tolist():
        pair = FaceLooks(**{name: column[[stands[at], at]] for name, column in vars(looks).items()})
        assert 0 in (copies(pair)[1], same_looks(pair, step)[1])
    for pinned in (1, len(looks) // 2, len(looks)):
        now = repeats(looks, step, pinned)
        stays = (now == np.arange(len(looks))) | (np.arange(len(looks)) < pinned)
        assert stays[now].all()
        assert (now[:pinned] < max(pinned, 1)).all()
        for one in np.flatnonzero(stays[pinned:]) + pinned:  # repeats nobody who stays before it
            before = np.append(np.flatnonzero(stays[:one]), one)
            some = FaceLooks(**{name: column[before] for name, column in vars(looks).items()})
            assert repeats(some, step, len(before))[-1] == len(before) - 1


def test_columns_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="look: expected"):
        replace(drawn(2), look=np.zeros((2, 9), np.uint8))
