"""Segments become one video: which face is which over borders, cuts and losses, and how strongly it is to be seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facemill.align import MEAN_FACE
from facemill.track.join import MOST_LOOKS, VideoTracks, join_tracks
from facemill.track.segment import SegmentTracks
from facemill.track.settings import TrackingSettings

SETTINGS = TrackingSettings(smoothing=0.0)
ANNA, BERT = np.eye(128, dtype=np.float32)[:2]  # √2 apart
Row = tuple[int, int, float]  # frame, track, x of its middle


def piece(rows: list[Row], frames: int, start: int = 0, **changes: Any) -> SegmentTracks:
    """Faces of 60 px at y = 100, 25 frames a second; `looks` by track, `light` of the whole frame."""
    light = changes.pop("light", 100.0)
    looks = changes.pop("looks", {})
    rows = sorted(rows)
    middles = np.array([[x, 100] for _, _, x in rows], np.float32).reshape(-1, 2)
    face = ((MEAN_FACE - 0.5) * 60).astype(np.float32)
    first = {track: next(frame for frame, other, _ in rows if other == track) for track in looks}
    made = SegmentTracks(
        time_base=np.array([1, 25]),
        size_wh=np.array([640, 480]),
        pts=np.arange(start, start + frames),
        scene=np.zeros(frames, np.int32),
        ends=np.full((2, 32, 32), light, np.float32),
        frame=np.array([frame for frame, _, _ in rows], np.int32),
        track=np.array([track for _, track, _ in rows], np.int32),
        box=np.concatenate([middles - 30, middles + 30], axis=1),
        points=middles[:, None] + face,
        yaw=np.zeros(len(rows), np.float32),
        doubt=np.full(len(rows), 0.02, np.float32),
        presence=np.full(len(rows), np.nan, np.float32),
        score=np.ones(len(rows), np.float32),
        detected=np.ones(len(rows), np.bool_),
        look_track=np.array([*looks], np.int32),
        look_pts=np.array([start + first[track] for track in looks], np.int64),
        looks=np.array([*looks.values()], np.float32).reshape(-1, 128),
    )
    return replace(made, **changes)


def still(track: int, x: float, frames: range) -> list[Row]:
    return [(frame, track, x) for frame in frames]


def runs(found: VideoTracks) -> list[tuple[tuple[int, int], ...]]:
    return [track.runs for track in found.tracks]


def test_faces_that_overlap_at_a_border_are_one_track() -> None:
    first = piece([*still(0, 100, range(20)), *still(1, 300, range(20))], 20)
    # the other way round there: places decide and not numbers
    second = piece([*still(0, 303, range(20)), *still(1, 98, range(20))], 20, start=20)
    found = join_tracks([first, second], SETTINGS)
    assert runs(found) == [((0, 39),), ((0, 39),)]
    rows = found.rows(1)
    assert {int(track): float(box[:2].mean()) for track, box in zip(rows.track, rows.box, strict=True)} == {
        0: pytest.approx((68 + 70) / 2),
        1: pytest.approx((273 + 70) / 2),
    }


def test_a_cut_at_a_border_ends_all_tracks() -> None:
    first = piece(still(0, 100, range(20)), 20)
    second = piece(still(0, 100, range(20)), 20, start=20, light=10.0)
    found = join_tracks([first, second], SETTINGS)
    assert runs(found) == [((0, 19),), ((20, 39),)]
    assert found.scene_starts(0) == [0]
    assert found.scene_starts(1) == [20]
    assert (found.rows(0).strength == 1).all()  # at a cut nothing fades
    assert (found.rows(1).strength == 1).all()


def test_somebody_else_at_the_same_place_is_another_track() -> None:
    first = piece(still(0, 100, range(20)), 20, looks={0: ANNA})
    second = piece(still(0, 100, range(20)), 20, start=20, looks={0: BERT})
    assert len(join_tracks([first, second], SETTINGS).tracks) == 2


def test_a_short_loss_over_a_border_is_bridged_and_marked() -> None:
    first = piece(still(0, 100, range(16)), 20, looks={0: ANNA})
    second = piece(still(0, 110, range(4, 20)), 20, start=20, looks={0: ANNA})
    found = join_tracks([first, second], SETTINGS)
    assert runs(found) == [((0, 39),)]
    assert found.tracks[0].bridged == 8
    before, after = found.rows(0), found.rows(1)
    assert before.pts[before.bridged].tolist() == [16, 17, 18, 19]
    assert after.pts[after.bridged].tolist() == [20, 21, 22, 23]
    middles = np.concatenate([before.box, after.box])[:, [0, 2]].mean(axis=1)
    assert middles[15:25] == pytest.approx(np.linspace(100, 110, 10), abs=1e-3)
    assert (np.concatenate([before.strength, after.strength]) == 1).all()


@pytest.mark.parametrize(("gap", "expected"), [(10, 1), (11, 2)])
def test_a_loss_is_bridged_up_to_four_tenths_of_a_second(gap: int, expected: int) -> None:
    rows = [*still(0, 100, range(20)), *still(0, 100, range(20 + gap, 60))]
    found = join_tracks([piece(rows, 60)], SETTINGS)
    assert len(found.tracks) == 1
    assert len(found.tracks[0].runs) == expected


def test_a_face_that_comes_back_soon_and_looks_alike_keeps_its_track() -> None:
    rows = [*still(0, 100, range(20)), *still(1, 120, range(38, 60))]
    alike = join_tracks([piece(rows, 60, looks={0: ANNA, 1: ANNA})], SETTINGS)
    assert runs(alike) == [((0, 19), (38, 59))]
    unlike = join_tracks([piece(rows, 60, looks={0: ANNA, 1: BERT})], SETTINGS)
    assert runs(unlike) == [((0, 19),), ((38, 59),)]
    far = join_tracks([piece([*rows[:20], *still(1, 500, range(38, 60))], 60, looks={0: ANNA, 1: ANNA})], SETTINGS)
    assert len(far.tracks) == 2


def test_faces_that_are_there_at_once_are_never_one_track() -> None:
    """A split screen: the same person twice."""
    rows = [*still(0, 100, range(30)), *still(1, 300, range(30))]
    assert len(join_tracks([piece(rows, 30, looks={0: ANNA, 1: ANNA})], SETTINGS).tracks) == 2


def test_the_strength_fades_within_a_scene_and_nowhere_else() -> None:
    found = join_tracks([piece(still(0, 100, range(20, 40)), 60)], SETTINGS)
    strength = found.rows(0).strength
    assert strength[:6] == pytest.approx(np.arange(1, 7) / 6, abs=1e-6)
    assert strength[-6:] == pytest.approx(np.arange(6, 0, -1) / 6, abs=1e-6)
    assert (strength[5:-5] == 1).all()
    whole = join_tracks([piece(still(0, 100, range(60)), 60)], SETTINGS)
    assert (whole.rows(0).strength == 1).all()


NO_FACE: list[dict[str, float]] = [{"doubt": 0.3}, {"presence": 2.0}, {"yaw": 95.0}, {"yaw": np.nan}]


def doubted(rows: list[Row], frames: range, wrong: dict[str, float], count: int = 60) -> SegmentTracks:
    """A piece whose points mean nothing in some frames, and lie 40 px beside the face there."""
    made = piece(rows, count)
    at = np.isin(made.frame, frames)
    changed = {name: np.where(at, value, getattr(made, name)).astype(np.float32) for name, value in wrong.items()}
    points = made.points + np.where(at, 40.0, 0.0)[:, None, None].astype(np.float32)
    return replace(made, points=points, **changed)


@pytest.mark.parametrize("wrong", NO_FACE, ids=str)
def test_points_that_mean_nothing_for_a_moment_lie_between_those_before_and_after(wrong: dict[str, float]) -> None:
    moving = [(frame, 0, 100.0 + frame) for frame in range(60)]
    found = join_tracks([doubted(moving, range(20, 30), wrong)], SETTINGS)
    rows = found.rows(0)
    assert rows.points.mean(axis=1)[:, 0] - rows.points[0].mean(axis=0)[0] == pytest.approx(np.arange(60), abs=1e-3)
    assert (rows.strength == 1).all()
    assert not rows.bridged.any()  # they were seen
    assert found.tracks[0].bridged == 0


@pytest.mark.parametrize("wrong", NO_FACE, ids=str)
def test_the_strength_fades_where_points_mean_nothing_for_longer(wrong: dict[str, float]) -> None:
    found = join_tracks([doubted(still(0, 100, range(60)), range(20, 31), wrong)], SETTINGS)
    rows = found.rows(0)
    assert (rows.strength[20:31] == 0).all()
    assert rows.strength[15:20] == pytest.approx(np.arange(5, 0, -1) / 5, abs=1e-6)
    assert rows.strength[31:36] == pytest.approx(np.arange(1, 6) / 5, abs=1e-6)
    assert (rows.strength[:15] == 1).all()
    assert (rows.strength[36:] == 1).all()
    assert runs(found) == [((0, 59),)]  # the face was there all the time


def test_a_moment_of_doubt_where_a_face_comes_or_goes_changes_nothing() -> None:
    found = join_tracks([doubted(still(0, 100, range(60)), range(8), {"doubt": 0.3})], SETTINGS)
    assert (found.rows(0).strength == 1).all()


def test_rows_tell_doubt_and_presence_but_for_bridged_ones() -> None:
    rows = [*still(0, 100, range(20)), *still(0, 100, range(25, 60))]
    told = replace(piece(rows, 60), presence=np.full(55, 17.0, np.float32))
    found = join_tracks([told], SETTINGS).rows(0)
    for values, expected in ((found.doubt, 0.02), (found.presence, 17.0)):
        assert np.isnan(values[found.bridged]).all()
        assert values[~found.bridged] == pytest.approx(expected)
    assert int(found.bridged.sum()) == 5


def test_nothing_is_smoothed_across_a_cut() -> None:
    face = still(0, 100, range(30))
    scenes = np.repeat([0, 1], 15).astype(np.int32)
    rows = [(frame, int(scenes[frame]), 100.0 + 5 * scenes[frame]) for frame, _, _ in face]
    found = join_tracks([piece(rows, 30, scene=scenes)], TrackingSettings(smoothing=1.0))
    middles = found.rows(0).points.mean(axis=1)[:, 0]
    assert middles[:15] == pytest.approx(middles[0], abs=1e-3)
    assert middles[15:] == pytest.approx(middles[15], abs=1e-3)
    assert middles[15] - middles[0] == pytest.approx(5, abs=1e-3)


def test_a_track_keeps_few_looks_spread_over_its_length() -> None:
    seen = piece(still(0, 100, range(100)), 100)
    many = replace(
        seen,
        look_track=np.zeros(50, np.int32),
        look_pts=np.arange(0, 100, 2, dtype=np.int64),
        looks=np.repeat(ANNA[None], 50, axis=0),
    )
    [track] = join_tracks([many], SETTINGS).tracks
    assert len(track.looks) == len(track.look_pts) == MOST_LOOKS
    assert (track.look_pts[0], track.look_pts[-1]) == (0, 98)


def test_a_video_without_a_face_has_frames_and_no_rows() -> None:
    found = join_tracks([piece([], 10), piece([], 10, start=10)], SETTINGS)
    assert found.tracks == ()
    assert len(found.rows(0).pts) == len(found.rows(1).pts) == 0
    assert len(found.pts) == 20


def test_a_face_half_outside_or_in_profile_is_less_visible() -> None:
    found = join_tracks([piece([*still(0, 0, range(3)), *still(1, 300, range(3))], 3)], SETTINGS)
    rows = found.rows(0)
    assert rows.visibility[rows.track == 0] == pytest.approx(0.5, abs=0.15)
    assert rows.visibility[rows.track == 1] == pytest.approx(1.0)
