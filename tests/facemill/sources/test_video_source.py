"""Frames from videos: those in which faces are best, or by the clock; what breaks off keeps what it gave."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clips import make_clip
from hypothesis import given
from hypothesis import strategies as st

from facemill.detect.mtcnn import build
from facemill.errors import FacemillError
from facemill.pictures import decode
from facemill.reasons import Reason
from facemill.sources import Item, Surroundings, Unit, fetch, reference_source, video
from facemill.sources._best_frames import FACES, FORGOTTEN, HELD, SHARED, _Shown, _Window
from facemill.sources._gallery import SAME_LOOK, Face, Gallery, differences
from facemill.sources._sampling import EveryFrame, Sampled
from facemill.sources.sample.animate import render
from facemill.sources.sample.pose import Pose
from facemill.sources.sample.videos import Scene, write_sample_video
from facemill.sources.video import REFERENCE_FRAMES, VideoSource
from facemill.video import Frame

Picture = np.ndarray[Any, Any]
RATE, WINDOW_S = 5, 0.6
"""Frames a second of the clips made here, each of which is looked at, and three of which make a window."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one clip of 20 frames at 25 a second, and one that was cut off."""
    folder = tmp_path_factory.mktemp("videos") / "clips"
    write_sample_video(folder / "a talk.mp4", Scene(people=("hopper",)), 0.8, 1)
    write_sample_video(folder / "cut.mp4", Scene(people=("hopper",), cut=True), 0.2, 1)
    return folder


def plan(root: Path, path: str, role: str = "sample", **options: Any) -> list[Unit]:
    source = VideoSource(path=path, **options)
    return source.plan("anna", role, Surroundings(place=lambda stated: root / stated))


def taken(clip: Path, role: str = "sample", **options: Any) -> list[Item]:
    [unit] = plan(clip.parent, clip.name, role, **{"every_s": WINDOW_S, **options})
    return list(fetch(unit))


def referred(clip: Path) -> list[Item]:
    """What a clip gives whose path stands among the references of an identity."""
    [unit] = reference_source(str(clip)).plan("anna", "reference", Surroundings())
    return list(fetch(unit))


def places(items: Sequence[Item]) -> list[int]:
    """The numbers of the frames that were taken from a clip of `RATE` frames a second."""
    return [round(item.pts * RATE * Fraction(item.url.partition("@")[2])) for item in items if item.pts is not None]


def person(name: str = "collins", side_px: int = 320, **pose: Any) -> Picture:
    return render(name, Pose(**pose), (side_px, side_px))[0]


def written(path: Path, pictures: Sequence[Picture], **options: Any) -> Path:
    return make_clip(path, frames=pictures, rate=RATE, sound=None, **options)


def blurred(picture: Picture) -> Picture:
    return np.asarray(cv2.blur(picture, (17, 1)))


def in_a_room(picture: Picture, beyond_px: int = 60) -> Picture:
    """In front of a wall that is so large that nothing which a person does looks like a cut; `beyond_px` columns of the
    picture lie outside of the frame."""
    wall = np.repeat(np.linspace(40, 220, 900).astype(np.uint8), 900 * 3).reshape(900, 900, 3)
    shown = picture[:, beyond_px:]
    wall[300 : 300 + len(shown), : shown.shape[1]] = shown
    return wall


HARMED = {
    "moving": in_a_room(blurred(person())),
    "with closed eyes": in_a_room(person(blink=1.0)),
    "in the dark": in_a_room(person(gamma=5.0)),
    "smaller": in_a_room(person(scale=0.8)),
    "partly out of the picture": in_a_room(person(), beyond_px=110),
    "away": in_a_room(np.full((320, 320, 3), 110, np.uint8)),
}


@pytest.mark.parametrize("harm", HARMED)
def test_of_each_window_the_frame_is_taken_in_which_the_face_is_best(harm: str, tmp_path: Path) -> None:
    worse, good, other = HARMED[harm], in_a_room(person()), in_a_room(person(yaw_deg=20))
    clip = written(tmp_path / "talk.mp4", [worse, good, worse, worse, worse, other])
    assert places(taken(clip)) == [1, 5]


def test_a_still_head_gives_one_frame_and_a_turning_one_many(tmp_path: Path) -> None:
    still = [person(grain=2.0, noise_seed=at) for at in range(12)]
    turning = [person(yaw_deg=-20 + 40 * at / 11) for at in range(12)]
    assert len(taken(written(tmp_path / "still.mp4", still))) == 1
    assert len(taken(written(tmp_path / "turning.mp4", turning))) >= 3
    assert len(taken(written(tmp_path / "still.mp4", still), choose="every")) == 4


def test_what_was_not_taken_before_comes_first(tmp_path: Path) -> None:
    pictures = [*[in_a_room(person())] * 4, in_a_room(person(yaw_deg=18)), in_a_room(person())]
    _, second = places(taken(written(tmp_path / "talk.mp4", pictures)))
    assert second == 4


@pytest.mark.parametrize("choose", ["face", "every"])
def test_a_few_frames_are_of_the_whole_video(choose: str, tmp_path: Path) -> None:
    turning = [person(yaw_deg=-20 + 40 * at / 31, mouth_open=at % 4 / 4) for at in range(32)]
    items = taken(written(tmp_path / "talk.mp4", turning), choose=choose, every_s=0.2, max_frames=4)
    found = places(items)
    assert len(found) == 4
    assert min(found) < 10
    assert max(found) > 21


def test_no_window_reaches_across_a_cut(tmp_path: Path) -> None:
    pictures = [*[person("collins")] * 2, *[person("hopper", background=5)] * 2]
    items = taken(written(tmp_path / "film.mp4", pictures), every_s=10.0)
    assert [item.shot for item in items] == [0, 1]


def test_each_of_several_people_has_a_frame_in_which_it_is_clear(tmp_path: Path) -> None:
    def both(left: float, right: float) -> Picture:
        return np.hstack([person("collins", blink=left), person("hopper", blink=right)])

    pictures = [both(1, 1), both(0, 1), both(1, 0)]
    assert places(taken(written(tmp_path / "both.mp4", pictures))) == [1, 2]
    assert len(taken(written(tmp_path / "both.mp4", [both(0, 0)] * 3))) == 1  # one suits both


def test_who_is_seldom_there_is_not_crowded_out(tmp_path: Path) -> None:
    pictures = [person("collins", yaw_deg=-20 + 40 * at / 39, mouth_open=at % 5 / 5) for at in range(40)]
    pictures[20:22] = [person("hopper")] * 2
    items = taken(written(tmp_path / "talk.mp4", pictures), every_s=0.2, max_frames=5)
    assert {20, 21} & set(places(items))


def test_a_video_as_a_reference_gives_the_largest_face_from_the_front(tmp_path: Path) -> None:
    def both(yaw_deg: float) -> Picture:
        other = cv2.resize(person("hopper", yaw_deg=20 - yaw_deg), (160, 160))
        return np.hstack([person("collins", yaw_deg=yaw_deg), np.pad(other, ((0, 160), (0, 0), (0, 0)))])

    pictures = [both(yaw_deg) for yaw_deg in (20, 14, 7, 0)]
    assert places(referred(written(tmp_path / "both.mp4", pictures))) == [3]


@pytest.mark.parametrize(("often", "seldom"), [("collins", "hopper"), ("hopper", "collins")])
def test_who_is_seen_most_is_the_reference(often: str, seldom: str, tmp_path: Path) -> None:
    """Whether there are more looks than references or fewer; the other one is seen for two seconds, and clearer."""
    talking = [person(often, yaw_deg=24 * np.sin(at) ** 2 - 12, mouth_open=at % 5 / 5, gamma=1.5) for at in range(10)]
    still = [person(often, gamma=1.5)] * 10
    for name, pictures, full in (("talking", talking, True), ("still", still, False)):
        frames = [*pictures[:5], person(seldom), *pictures[5:]]
        items = referred(make_clip(tmp_path / f"{name}.mp4", frames=frames, rate=Fraction(1, 2), sound=None))
        times = [float((item.pts or 0) * Fraction(item.url.partition("@")[2])) for item in items]
        assert 10.0 not in times
        assert (len(times) == REFERENCE_FRAMES) == full


def test_a_small_face_is_a_reference_too(tmp_path: Path) -> None:
    small = np.pad(person(side_px=60), ((100, 100), (100, 100), (0, 0)))
    assert len(referred(written(tmp_path / "small.mp4", [small] * 2))) == 1
    [item] = referred(make_clip(tmp_path / "square.mp4", frames=25))
    assert item.error == Reason.NO_FACE
    assert "20 px" in item.detail
    assert "take a picture" in item.detail
    assert "choose" not in item.detail


def test_of_a_reference_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = written(tmp_path / "film.mp4", [in_a_room(blurred(person()))] * 5 + [in_a_room(person())] * 5)
    assert places(referred(clip)) == [5]
    monkeypatch.setattr(video, "REFERENCE_S", 1.0)
    assert places(referred(clip))[0] < 5
    assert places(taken(clip, every_s=2.0))[0] >= 5


def test_a_video_that_shows_nobody_says_so(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "square.mp4", frames=25)
    [item] = taken(clip)
    assert (item.error, item.data) == (Reason.NO_FACE, None)
    assert "80 px" in item.detail
    assert "choose: every" in item.detail
    small = written(tmp_path / "small.mp4", [np.pad(person(side_px=120), ((100, 100), (100, 100), (0, 0)))] * 2)
    assert taken(small)[0].error == Reason.NO_FACE
    assert len(taken(small, min_face_px=40)) == 1
    assert len(taken(clip, choose="every")) == 2


def test_what_was_read_before_a_video_breaks_off_is_kept(tmp_path: Path) -> None:
    turning = [person(yaw_deg=-20 + 40 * at / 31) for at in range(32)]
    clip = written(tmp_path / "talk.mkv", turning)
    whole = taken(clip)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    *items, last = taken(clip)
    assert last.error == Reason.VIDEO_TRUNCATED
    assert 1 < len(items) < len(whole)
    assert [item.url for item in items[:-1]] == [item.url for item in whole[: len(items) - 1]]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_gives_upright_faces(rotation: int, tmp_path: Path) -> None:
    lying = np.ascontiguousarray(np.rot90(person(side_px=320)[:, 40:], -rotation // 90))
    [item] = taken(written(tmp_path / "phone.mp4", [lying] * 2, rotation=rotation))
    assert item.data is not None
    picture = decode(item.data)
    assert picture.shape == (320, 280, 3)
    [faces] = build(min_face_px=80).detect([picture])
    assert len(faces) == 1


def test_pixels_that_are_not_square_are_stretched_before_a_face_is_judged(tmp_path: Path) -> None:
    narrow = np.asarray(cv2.resize(person(side_px=320), (160, 320), interpolation=cv2.INTER_AREA))
    clip = written(tmp_path / "dv.mp4", [narrow] * 2, tags={"sample_aspect_ratio": Fraction(2)})
    [item] = taken(clip, min_face_px=100)
    assert item.data is not None
    assert decode(item.data).shape == (320, 320, 3)


def test_the_same_frames_come_whatever_torch_may_use(clips: Path) -> None:
    def once(threads: int) -> list[Item]:
        torch.set_num_threads(threads)
        return taken(clips / "a talk.mp4", every_s=0.1)

    before = torch.get_num_threads()
    try:
        assert once(1) == once(4)
    finally:
        torch.set_num_threads(before)


def test_frames_are_taken_every_so_many_seconds(clips: Path) -> None:
    items = taken(clips / "a talk.mp4", choose="every", every_s=0.2)
    times = [item.pts / int(item.url.rpartition("/")[2]) for item in items if item.pts is not None]
    assert times == pytest.approx([0, 0.2, 0.4, 0.6])
    assert items[1].url == f"a talk.mp4#pts={items[1].pts}@1/12800"
    assert items[1].data is not None
    assert decode(items[1].data).shape == (480, 480, 3)


@given(count=st.integers(1, 60), most=st.integers(1, 12))
def test_where_there_are_too_many_what_stays_lies_at_even_distances(count: int, most: int) -> None:
    choice = EveryFrame(1.0, most)
    for at in range(count):
        choice.offer(Frame.from_rgb(np.zeros((2, 2, 3), np.uint8), at, Fraction(1)), 0)
    times = [sampled.pts for sampled in choice.chosen()]
    assert min(count, (most + 1) // 2) <= len(times) <= most
    assert times[0] == 0
    assert len(set(np.diff(times))) <= 1


@given(
    faces=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=40),
    most=st.integers(1, 6),
    together=st.integers(1, 3),
)
def test_a_gallery_has_neither_near_copies_nor_more_than_it_holds(
    faces: list[tuple[float, int]], most: int, together: int
) -> None:
    gallery, shown = Gallery(most), dict[int, list[Face]]()
    for at in range(0, len(faces), together):
        shown[at] = [Face(clear, np.full(640, level, np.uint8)) for clear, level in faces[at : at + together]]
        gallery.offer(shown[at], lambda at=at: Sampled(at, str(at), 0, b""))  # type: ignore[misc]
        assert len(gallery.pictures()) <= most
    kept = [sampled.pts for sampled in gallery.pictures()]
    assert bool(kept) == bool(faces)
    for one in kept:  # at least one face of each picture is like none of the others
        others = [face.look for other in kept if other != one for face in shown[other]]
        assert together > 1 or not others or differences(others, shown[one][0].look).min() > SAME_LOOK


SIDE_PX = 100.0


def square(place: float) -> Picture:
    """(4,) a box that overlaps no other whose place is another whole number."""
    return np.array([2 * place * SIDE_PX, 0, (2 * place + 1) * SIDE_PX, SIDE_PX])


def window(looks: Sequence[Sequence[tuple[float, float, float]]]) -> tuple[_Window, list[_Shown]]:
    """A window to which looks were added, each with faces as (place, clearness, what it adds)."""
    made, shown = _Window(), list[_Shown]()
    for at, faces in enumerate(looks):
        shown.append(_Shown(Frame.from_rgb(np.zeros((2, 2, 3), np.uint8), at, Fraction(1)), 0))
        judged = [Face(clearness, np.full(640, int(place), np.uint8)) for place, clearness, _ in faces]
        boxes = np.array([square(place) for place, _, _ in faces]).reshape(-1, 4)
        made.add(shown[-1], boxes, judged, [adds for _, _, adds in faces])
    return made, shown


@pytest.mark.parametrize("first", [(0, 0.5, 0.0), (0, 0.5, 3.0)], ids=["nothing is new", "another one adds"])
@pytest.mark.parametrize("second", [(1, 0.5, 0.0), (1, 0.0, 0.0)], ids=["its look is known", "it is not clear"])
def test_a_face_that_adds_nothing_is_taken_from_a_frame_that_shows_it(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> None:
    made, (one, other) = window([[first], [second]])
    best = made.best()
    assert [shown for shown, _ in best] == [one, other]
    assert [len(faces) for _, faces in best] == [1, 1]


@given(
    looks=st.lists(
        st.dictionaries(st.integers(0, 7), st.sampled_from([0.0, 0.5, 0.9, 1.0]), max_size=FACES), max_size=12
    )
)
def test_of_a_window_each_face_has_one_frame_in_which_it_adds_enough(looks: list[dict[int, float]]) -> None:
    made, shown = window([[(place, 0.5, adds) for place, adds in look.items()] for look in looks])
    best = made.best()
    assert len(best) <= HELD
    number_of = {id(each): at for at, each in enumerate(shown)}
    seen = [(number_of[id(each)], int(face.look[0])) for each, faces in best for face in faces]
    assert all(place in looks[at] for at, place in seen)
    if len(looks) <= min(FORGOTTEN, HELD):  # each place is one face, and no frame had to leave
        assert sorted(place for _, place in seen) == sorted({place for look in looks for place in look})
        assert all(looks[at][place] >= SHARED * max(look.get(place, 0) for look in looks) for at, place in seen)


def test_a_face_is_forgotten_some_looks_after_it_was_seen_last() -> None:
    here: list[tuple[float, float, float]] = [(0, 0.5, 3.0)]
    for away, frames in ((FORGOTTEN - 1, 1), (FORGOTTEN, 2)):
        made, _ = window([here, *[[]] * away, here])
        assert len(made.best()) == frames
    moving = [[(at * FACES + face, 0.5, 3.0) for face in range(FACES)] for at in range(30)]
    made, _ = window(moving)
    assert len(made._last) <= (FORGOTTEN + 1) * FACES


def test_a_broken_video_is_one_failed_item(clips: Path) -> None:
    units = plan(clips.parent, "clips")
    [item] = fetch(units[1])
    assert [unit.key for unit in units] == ["clips/a talk.mp4", "clips/cut.mp4"]
    assert (item.url, item.data, item.error) == ("clips/cut.mp4", None, Reason.VIDEO_TRUNCATED)


def test_a_folder_without_videos_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="no video in"):
        plan(tmp_path, ".")
