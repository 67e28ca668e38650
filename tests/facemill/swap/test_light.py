"""Light that no picture of a person shows: the net is shown a face as it knows it, and the frame keeps its light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from test_detail_exemplars import COVERAGE, NET_PX, exemplars_of
from test_hard_faces import SIDE, painted, painter_with

from facemill.align import crop_affine, warp
from facemill.pictures import encode_png
from facemill.sources.sample import Pose, render
from facemill.swap.light import BLACK, MOST_FACTOR, KnownLight, Light, OneTone
from facemill.swap.swapper import Swapper

Change = Callable[[np.ndarray], np.ndarray]
GREY = np.array([0.299, 0.587, 0.114])
POSES = tuple(Pose(yaw_deg=yaw, smile=smile) for yaw in (-8, 0, 8) for smile in (0.0, 0.3))
OTHER: dict[str, Change] = {
    "half": lambda face: 0.5 * face,
    "an eighth": lambda face: 0.125 * face,
    "red": lambda face: face * [1.0, 0.35, 0.3],
    "blue": lambda face: face * [0.35, 0.45, 1.0],
    "black and white": lambda face: np.repeat((face @ GREY)[..., None], 3, axis=2),
    "fading to white": lambda face: 255 - 0.4 * (255 - face),
    "haze": lambda face: 0.4 * face + 90,
}


def levels(picture: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def crop_of(pose: Pose, who: str = "collins") -> np.ndarray:
    picture, landmarks = render(who, pose, (SIDE, SIDE))
    return warp(picture, crop_affine(landmarks, NET_PX, COVERAGE), NET_PX)


@pytest.fixture(scope="module")
def known() -> KnownLight:
    return KnownLight(exemplars_of(*POSES), NET_PX, COVERAGE)


def brought(known: KnownLight, crop: np.ndarray) -> np.ndarray:
    light = known.light_of(crop)
    assert light is not None
    return light.known(crop)


def away(one: np.ndarray, other: np.ndarray) -> float:
    inner = slice(NET_PX // 4, -NET_PX // 4)
    return float(np.abs(one.astype(float) - other)[inner, inner].mean())


@pytest.mark.parametrize("name", OTHER)
def test_a_face_in_other_light_is_shown_as_the_net_knows_it(known: KnownLight, name: str) -> None:
    face = crop_of(Pose(yaw_deg=4, smile=0.15))
    lit = levels(OTHER[name](face.astype(float)))
    assert away(brought(known, lit), face) < min(15, 0.5 * away(lit, face))


@pytest.mark.parametrize("name", OTHER)
def test_what_was_drawn_comes_back_in_the_frames_light(known: KnownLight, name: str) -> None:
    face = crop_of(Pose(yaw_deg=4, smile=0.15))
    lit = levels(OTHER[name](face.astype(float)))
    light = known.light_of(lit)
    assert light is not None
    shown = light.known(lit)
    back = 255 * light.back(np.asarray(shown / 255, np.float32))
    whole = (shown > 0) & (shown < 255)
    assert whole.mean() > 0.6
    np.testing.assert_allclose(back[whole], lit[whole], atol=1.1)


@pytest.mark.parametrize("pose", [Pose(), Pose(yaw_deg=14), Pose(mouth_open=1.0), Pose(smile=0.6, yaw_deg=-10)])
def test_in_usual_light_not_a_pixel_changes_whatever_the_pose(known: KnownLight, pose: Pose) -> None:
    crop = crop_of(pose)
    assert brought(known, crop) is crop


@pytest.mark.parametrize("tone", [(255, 255, 255), (0, 0, 0), (20, 160, 40)])
@pytest.mark.parametrize("rows", [slice(0, 20), slice(42, 64), slice(26, 40)])
def test_a_thing_in_front_of_a_third_of_the_face_is_no_light(
    known: KnownLight, tone: tuple[int, int, int], rows: slice
) -> None:
    face = crop_of(Pose(yaw_deg=4))
    covered = face.copy()
    covered[rows] = tone
    np.testing.assert_array_equal(brought(known, covered), covered)
    shown = brought(known, levels(0.4 * covered)).copy()
    shown[rows] = face[rows]
    assert away(shown, face) < 10


def test_light_that_one_of_the_pictures_shows_is_known() -> None:
    exemplars = exemplars_of(*POSES)
    warm = [encode_png(levels(exemplars.crop(number) * [1.0, 0.8, 0.5])) for number in range(len(exemplars))]
    both = replace(
        exemplars,
        ids=exemplars.ids * 2,
        encoded=(*exemplars.encoded, *warm),
        landmarks=np.concatenate([exemplars.landmarks] * 2),
    )
    lit = levels(crop_of(Pose(yaw_deg=4)) * [1.0, 0.8, 0.5])
    np.testing.assert_array_equal(brought(KnownLight(both, NET_PX, COVERAGE), lit), lit)
    assert not np.array_equal(brought(KnownLight(exemplars, NET_PX, COVERAGE), lit), lit)


def test_the_black_shows_nobody_and_noise_is_not_made_a_face(known: KnownLight) -> None:
    face = crop_of(Pose())
    without = KnownLight(None, NET_PX, COVERAGE)
    for one in (known, without):
        assert one.light_of(levels(face * (BLACK - 2) / 255)) is None
        dark = one.light_of(levels(face * 0.07))
        assert dark is not None
        assert dark.factor.max() <= MOST_FACTOR
    same = without.light_of(face)
    assert same is not None
    assert same.known(face) is face


@pytest.mark.parametrize("tone", [0, 14, 128, 255])
def test_a_crop_without_a_face_in_it_breaks_nothing(known: KnownLight, tone: int) -> None:
    random = np.random.default_rng(tone)
    for crop in (np.full((NET_PX, NET_PX, 3), tone), random.integers(0, tone + 1, (NET_PX, NET_PX, 3))):
        light = known.light_of(np.asarray(crop, np.uint8))
        if light is not None:
            assert np.isfinite(light.factor).all()
            assert (light.factor > 0).all()
            assert np.isfinite(light.back(np.zeros((4, 4, 3), np.float32))).all()


def test_pictures_that_are_flat_or_black_tell_no_light() -> None:
    """Of a person whose few pictures show nothing, nothing is known, and nothing breaks."""
    exemplars = exemplars_of(Pose(), Pose(yaw_deg=8))
    for tone in (0, 128):
        flat = replace(exemplars, encoded=(encode_png(np.full((256, 256, 3), tone, np.uint8)),) * 2)
        light = KnownLight(flat, NET_PX, COVERAGE).light_of(crop_of(Pose()))
        assert isinstance(light, Light)
        assert np.isfinite(light.factor).all()


@pytest.mark.parametrize("name", OTHER)
def test_a_frame_in_other_light_gets_a_face_in_that_light(swapper: Swapper, name: str) -> None:
    """The net gives back what it is shown, somewhat softer: the frame comes out as it went in."""
    new = exemplars_of(Pose(), Pose(yaw_deg=8))
    picture, landmarks = render("hopper", Pose(), (SIDE, SIDE))
    lit = levels(OTHER[name](picture.astype(float)))
    after, told = painted(painter_with(swapper, new), lit, landmarks, new)
    assert told.swapped == ("hopper",)
    np.testing.assert_allclose(after.mean(axis=(0, 1)), lit.mean(axis=(0, 1)), atol=3)
    assert np.abs(after.astype(float) - lit).mean() < 4


TONES: dict[str, Change] = {
    "black and white": lambda face: np.repeat((face @ GREY)[..., None], 3, axis=2),
    "sepia": lambda face: (face @ GREY)[..., None] * [1.07, 0.9, 0.65],
    "cyanotype": lambda face: (face @ GREY)[..., None] * [0.5, 0.8, 0.9] + [0, 20, 25],
}


@pytest.mark.parametrize("name", TONES)
def test_a_film_in_one_tone_gets_a_face_in_that_tone(swapper: Swapper, name: str) -> None:
    """Though the net draws a coloured one."""
    new = exemplars_of(Pose(), Pose(yaw_deg=8))
    picture, landmarks = render("hopper", Pose(), (SIDE, SIDE))
    toned = levels(TONES[name](picture.astype(float)))
    after, _ = painted(painter_with(swapper, new), toned, landmarks, new)
    tone = OneTone.of(toned)
    assert tone is not None
    wanted = 255 * tone.of_brightness(np.asarray(after / 255, np.float32))
    assert np.abs(after - wanted).mean() < 1.5
    assert np.abs(after.astype(float) - toned).mean() < 4


@pytest.mark.parametrize("name", TONES)
def test_a_tone_is_told_from_colours(name: str) -> None:
    face = crop_of(Pose()).astype(float)
    assert OneTone.of(levels(TONES[name](face))) is not None
    assert OneTone.of(levels(face)) is None
    assert OneTone.of(levels(OTHER["red"](face))) is None  # a lamp leaves skin and lips their difference
    assert OneTone.of(np.full((NET_PX, NET_PX, 3), 90, np.uint8)) is None
    assert OneTone.of(levels((face @ GREY)[..., None] * [-0.7, 1, 0.5] + [200, 0, 0])) is None  # of no film
