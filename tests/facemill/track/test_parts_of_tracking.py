"""Cuts, flow, matching and views, each alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from patches import RED, SIZE_HW, frames, picture

from facemill.media.view import Still, View, landmark_view
from facemill.track.flow import flow
from facemill.track.match import best_match, match
from facemill.video import read_frames
from facemill.video.cuts import CutDetector


def luma(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(rgb.mean(axis=2).astype(np.uint8))


@pytest.mark.parametrize(("dx", "dy", "grown"), [(0, 0, 0), (3.5, -2.25, 0), (9, 4, 0), (1, 1, 4), (-2, 0, -5)])
def test_flow_follows_a_move_and_a_growth_to_half_a_pixel(dx: float, dy: float, grown: float) -> None:
    before, after = (luma(picture({RED: place})) for place in ((100, 80, 60), (100 + dx, 80 + dy, 60 + grown)))
    [moved] = flow(before, after, np.array([[100, 80, 160, 140.0]]) - 0.5)
    wanted = [100 + dx, 80 + dy, 160 + dx + grown, 140 + dy + grown]
    assert moved + 0.5 == pytest.approx(wanted, abs=0.5)


def test_flow_says_when_a_face_is_gone() -> None:
    before, noise = luma(picture({RED: (100, 80, 60)})), np.random.default_rng(1).integers(0, 255, SIZE_HW, np.uint8)
    assert np.isnan(flow(before, noise, np.array([[100, 80, 160, 140.0]]))).all()


@pytest.mark.parametrize("box", [[-500, -500, -440, -440], [310, 230, 400, 320], [100, 100, 103, 103], [np.nan] * 4])
def test_flow_bears_boxes_that_it_cannot_follow(box: list[float]) -> None:
    grey = luma(picture({}))
    assert flow(grey, grey, np.array([box])).shape == (1, 4)
    assert flow(grey, grey, np.zeros((0, 4))).shape == (0, 4)


def test_flow_on_a_picture_of_one_pixel_loses_the_face() -> None:
    dot = np.zeros((1, 1), np.uint8)
    assert np.isnan(flow(dot, dot, np.array([[0, 0, 20, 20.0]]))).all()


def test_a_cut_is_another_picture_and_not_a_movement() -> None:
    detector = CutDetector()
    assert [detector.is_cut(luma(picture({RED: (80 + 8 * i, 80, 60)}))) for i in range(6)] == [False] * 6
    assert detector.is_cut(luma(picture({}, ground=30)))


def test_a_cut_between_two_dark_scenes_is_seen() -> None:
    y, x = np.mgrid[:120, :160]
    detector = CutDetector()
    assert not detector.is_cut((x // 4).astype(np.uint8))
    assert detector.is_cut(40 - (x // 4).astype(np.uint8))
    assert not detector.is_cut(41 - (x // 4).astype(np.uint8))
    assert y.max() == 119


def test_cuts_of_a_dim_stage_are_found_and_nothing_else(shared: Path) -> None:
    """Brightness alone, with the limit that portraits want, missed all three."""
    detector = CutDetector()
    stage = read_frames(shared / "data/videos/stage.mp4")
    assert [i for i, frame in enumerate(stage) if detector.is_cut(frame.luma)] == [20, 82, 211]


def test_matching_gives_each_box_one_partner_the_best_first() -> None:
    first = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [50, 50, 60, 60], [np.nan] * 4], float)
    second = np.array([[3, 0, 13, 10], [0, 0, 10, 10]], float)
    assert sorted(match(first, second)) == [(0, 1), (1, 0)]
    assert match(first[:0], second) == []
    assert best_match(first[2], second) is None
    assert best_match(first[1], second) == 0


def test_points_go_through_a_view_and_back() -> None:
    [frame] = frames([{RED: (100, 80, 60)}])
    for seen in (frame, Still(frame.rgb)):
        view = landmark_view(seen, np.array([100, 80, 160, 140.0]))
        points = np.array([[100, 80], [130.5, 110.25]])
        assert view.to_frame(view.to_view(points)) == pytest.approx(points)
        x, y = view.to_view(np.array([130.0, 110.0])).round().astype(int)
        assert view.rgb[y, x] == pytest.approx(frame.rgb[110, 130].astype(int), abs=12)


def test_a_view_outside_the_picture_is_empty() -> None:
    still = Still(picture({}))
    assert landmark_view(still, np.array([900, 900, 960, 960.0])).rgb.size == 0
    assert View.whole(still, 160).rgb.shape == (120, 160, 3)
