"""Frames from videos: by the video's own clock, as many as wanted, and one failed item for a broken one."""

from pathlib import Path

import pytest

from facemill.errors import FacemillError
from facemill.pictures import decode
from facemill.reasons import Reason
from facemill.sources import Surroundings, Unit, fetch
from facemill.sources.sample.videos import Scene, write_sample_video
from facemill.sources.video import VideoSource


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one clip of 20 frames at 25 a second, and one that was cut off."""
    folder = tmp_path_factory.mktemp("videos") / "clips"
    write_sample_video(folder / "a talk.mp4", Scene(people=("hopper",)), 0.8, 1)
    write_sample_video(folder / "cut.mp4", Scene(people=("hopper",), cut=True), 0.2, 1)
    return folder


def plan(root: Path, path: str, **options: float) -> list[Unit]:
    source = VideoSource(path=path, **options)
    return source.plan("anna", "sample", Surroundings(place=lambda stated: root / stated))


def test_frames_are_taken_every_so_many_seconds(clips: Path) -> None:
    [unit] = plan(clips, "a talk.mp4", every_s=0.2)
    items = list(fetch(unit))
    times = [item.pts / int(item.url.rpartition("/")[2]) for item in items]
    assert times == pytest.approx([0, 0.2, 0.4, 0.6])
    assert items[1].url == f"a talk.mp4#pts={items[1].pts}@1/12800"
    assert decode(items[1].data).shape == (480, 480, 3)


def test_no_more_frames_than_wanted(clips: Path) -> None:
    [unit] = plan(clips, "a talk.mp4", every_s=0.001, max_frames=3)
    assert len(list(fetch(unit))) == 3


def test_a_broken_video_is_one_failed_item(clips: Path) -> None:
    units = plan(clips.parent, "clips")
    [item] = fetch(units[1])
    assert [unit.key for unit in units] == ["clips/a talk.mp4", "clips/cut.mp4"]
    assert (item.url, item.data, item.error) == ("clips/cut.mp4", None, Reason.VIDEO_TRUNCATED)


def test_a_folder_without_videos_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="no video in"):
        plan(tmp_path, ".")
