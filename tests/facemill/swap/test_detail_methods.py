"""Methods of detail by name, and what a track's frames take."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from test_detail_exemplars import COVERAGE, NET_PX, Swapped, exemplars_of

from facemill import tables
from facemill.errors import FacemillError
from facemill.schema import TRACK_POINTS
from facemill.sources.sample import Pose, render
from facemill.swap.detail.from_exemplars import FrameChoice
from facemill.swap.detail.methods import METHODS, DetailNeeds, DrawnFace, detail_method
from facemill.swap.detail.path import KEPT, REGIONS
from facemill.swap.detail.tracks import choose_for_tracks
from facemill.swap.mask import face_mask
from facemill.track.table import TrackedFiles

POSES = (Pose(), Pose(mouth_open=0.6), Pose(yaw_deg=12))
CHOICE = FrameChoice(
    np.zeros((len(REGIONS), KEPT), np.int16),
    np.tile(np.array([1, 0, 0], np.float32), (len(REGIONS), 1)),
    np.ones(len(REGIONS), np.float32),
)


def needs(**exemplars: object) -> DetailNeeds:
    return DetailNeeds({"hopper": "collins"}, COVERAGE, 0.6, exemplars)  # type: ignore[arg-type]  # nobody looks into them


def finished(name: str, choice: FrameChoice | None, **exemplars: object) -> tuple[np.ndarray, np.ndarray]:
    """The drawing of a face after both turns of a method."""
    swapped = Swapped(Pose(yaw_deg=4))
    old = cv2.resize(swapped.truth, (NET_PX, NET_PX), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mask = face_mask(swapped.points, NET_PX, 0.1)
    drawn = DrawnFace("hopper", swapped.face, old, mask, swapped.points, swapped.affine, choice)
    method = detail_method(name, needs(**exemplars))
    return method.in_crop(drawn), method.in_frame(drawn, swapped.new, swapped.truth, swapped.weight)


def test_there_are_three_and_a_fourth_is_refused() -> None:
    assert METHODS.names() == ["exemplars", "match", "none"]
    with pytest.raises(FacemillError, match=r"'paint'.*exemplars, match, none"):
        detail_method("paint", needs())


def test_none_leaves_what_was_drawn() -> None:
    swapped = Swapped(Pose(yaw_deg=4))
    crop, frame = finished("none", CHOICE, collins=exemplars_of(*POSES))
    np.testing.assert_array_equal(crop, swapped.face)
    np.testing.assert_array_equal(frame, swapped.new)


@pytest.mark.parametrize("has_pictures", [True, False])
def test_without_a_choice_or_without_pictures_exemplars_are_as_match(has_pictures: bool) -> None:
    known = {"collins": exemplars_of(*POSES)} if has_pictures else {}
    for expected, found in zip(
        finished("match", None), finished("exemplars", None if has_pictures else CHOICE, **known), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_exemplars_add_in_the_frame_and_say_whose_are_missing() -> None:
    swapped = Swapped(Pose(yaw_deg=4))
    crop, frame = finished("exemplars", CHOICE, collins=exemplars_of(*POSES))
    np.testing.assert_array_equal(crop, swapped.face)
    assert swapped.error(frame) < 0.85 * swapped.error(swapped.new)
    assert detail_method("exemplars", needs(collins=exemplars_of(*POSES))).notes() == []
    [note] = detail_method("exemplars", needs()).notes()
    assert "no exemplars of collins" in note


def test_a_track_is_chosen_for_as_a_whole_and_looked_up_by_time_stamp(tmp_path: Path) -> None:
    opens = np.concatenate([np.zeros(6), np.full(6, 0.6)])
    points = np.array([render("hopper", Pose(mouth_open=value), (256, 256))[1] for value in opens])
    files = TrackedFiles(*(str(tmp_path / f"{name}.parquet") for name in ("segments", "tracks", "points")))
    rows = [
        {"pts": 40 * at, "track": track, "points": each.ravel().tolist(), "strength": 1.0, "status": "ok"}
        for at, each in enumerate(points)
        for track in (3, 8)
    ]
    table = pa.Table.from_pydict(
        {name: [row.get(name) for row in rows] for name in TRACK_POINTS.columns}, schema=TRACK_POINTS.arrow
    )
    tables.write_part(Path(files.points), table)
    exemplars = {"collins": exemplars_of(*POSES)}
    choices = choose_for_tracks(
        files, {3: "hopper", 8: "stranger"}, {"hopper": "collins", "stranger": "nobody"}, exemplars
    )
    assert list(choices) == [3]
    first, last = choices[3].at(0), choices[3].at(40 * 11)
    assert first is not None
    assert last is not None
    mouth = REGIONS.index("mouth")
    assert (int(first.index[mouth, 0]), int(last.index[mouth, 0])) == (0, 1)
    assert choices[3].at(20) is None
    assert choices[3].at(40 * 12) is None
    assert choose_for_tracks(files, {3: "hopper"}, {"hopper": "collins"}, {}) == {}
