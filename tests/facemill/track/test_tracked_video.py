"""Real videos whose true landmarks are known, tracked whole and in segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facemill.errors import InputError
from facemill.landmarks import MOUTH
from facemill.reasons import Reason
from facemill.sources.sample.videos import Scene, VideoTruth, write_sample_video
from facemill.track.join import join_tracks
from facemill.track.models import FaceModels
from facemill.track.naming import name_tracks
from facemill.track.segment import SegmentTracks, track_segment
from facemill.track.settings import TrackingSettings
from facemill.track.table import (
    TrackedFiles,
    read_looks,
    read_points,
    read_segments,
    write_failure,
    write_tracks,
)
from facemill.video import Segment, SegmentPlan, plan_segments
from tasks.work.cluster import one_thread

SETTINGS = TrackingSettings()
SECONDS = 5.0
SHA256 = "ab" * 32


@dataclass(frozen=True)
class Tracked:
    plan: SegmentPlan
    pieces: list[SegmentTracks]
    files: TrackedFiles

    @property
    def points(self) -> dict[int, list[tuple[int, np.ndarray, float]]]:
        """All of the video's: pts → (track, points, strength)."""
        return {
            pts: faces
            for one in read_segments(self.files)
            for pts, faces in read_points(self.files, one.segment, [*read_looks(self.files)]).items()
        }

    def of_track(self, track: int) -> np.ndarray:
        return np.stack([points for faces in self.points.values() for own, points, _ in faces if own == track])


def track(video: Path, folder: Path, models: FaceModels, plan: SegmentPlan) -> Tracked:
    folder.mkdir(exist_ok=True)
    pieces = [track_segment(video, segment, models, SETTINGS) for segment in plan.segments]
    files = TrackedFiles(*(str(folder / f"{name}.parquet") for name in ("segments", "tracks", "points")))
    write_tracks(files, SHA256, plan, pieces, join_tracks(pieces, SETTINGS))
    return Tracked(plan, pieces, files)


@pytest.fixture(scope="module", autouse=True)
def as_in_a_worker() -> Iterator[None]:
    """Nets that are so small, and pictures, want one thread: more cost more than they bring."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    one_thread()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels("hog")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VideoTruth]:
    """Collins on the left and Hopper on the right talk for five seconds."""
    path = tmp_path_factory.mktemp("clip") / "both.mp4"
    return path, write_sample_video(path, Scene(people=("collins", "hopper")), SECONDS, seed=3)


@pytest.fixture(scope="module")
def whole(clip: tuple[Path, VideoTruth], models: FaceModels, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    plan = plan_segments(clip[0])
    assert len(plan.segments) == 1
    return track(clip[0], tmp_path_factory.mktemp("whole"), models, plan)


@pytest.fixture(scope="module")
def in_segments(clip: tuple[Path, VideoTruth], models: FaceModels, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    plan = plan_segments(clip[0], least_s=1.0, most_s=2.0)
    assert len(plan.segments) >= 2
    return track(clip[0], tmp_path_factory.mktemp("segments"), models, plan)


def second_difference(points: np.ndarray, where: np.ndarray) -> float:
    return float(np.sqrt((np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1)[where] ** 2).mean()))


@pytest.mark.parametrize(("number", "person"), [(0, "collins"), (1, "hopper")])
def test_points_tremble_three_times_less_and_do_not_lag(
    clip: tuple[Path, VideoTruth], whole: Tracked, number: int, person: str
) -> None:
    true = np.stack([points for points in clip[1].landmarks[person] if points is not None]).astype(float)
    [piece] = whole.pieces
    raw, smooth = piece.points[piece.track == number].astype(float), whole.of_track(number).astype(float)
    assert raw.shape == smooth.shape == true.shape

    # Where the true points hardly change their speed, beyond what the whole face does, whatever does is trembling
    own = true - true.mean(axis=1, keepdims=True)
    calm = np.linalg.norm(np.diff(own, n=2, axis=0), axis=-1) < 0.25
    assert second_difference(smooth - true, calm) < second_difference(raw - true, calm) / 3

    # How much of a frame later than the truth: what is missing, over how fast the truth moves
    speed = np.gradient(true, axis=0)
    error = smooth - true - (smooth - true).mean(axis=0)
    assert abs(float((error * speed).sum() / (speed**2).sum())) < 0.25

    def opening(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, MOUTH.start + 14] - points[:, MOUTH.start + 18], axis=1)

    given, kept = (np.polyfit(opening(true), opening(found), 1)[0] for found in (raw, smooth))
    assert kept > 0.8 * given  # of how far the mouth opens


def test_segments_give_the_tracks_of_the_whole(whole: Tracked, in_segments: Tracked) -> None:
    pieces = in_segments
    assert [(one.segment, one.frames) for one in read_segments(pieces.files)] == [
        (segment, segment.frames) for segment in pieces.plan.segments
    ]
    assert sorted(pieces.points) == sorted(whole.points)
    for pts, faces in whole.points.items():
        others = pieces.points[pts]
        assert [face[0] for face in others] == [face[0] for face in faces]
        assert [face[2] for face in others] == [face[2] for face in faces]
    apart = np.concatenate([np.abs(pieces.of_track(number) - whole.of_track(number)) for number in (0, 1)])
    assert apart.mean() < 0.5


def test_the_same_segments_give_the_same_bytes_in_any_order(
    clip: tuple[Path, VideoTruth], in_segments: Tracked, tmp_path: Path
) -> None:
    plan = in_segments.plan
    plan = SegmentPlan(plan.time_base, plan.segments[:2], plan.whole, plan.clock)
    models = FaceModels("hog")  # as in another worker
    backwards = {at: track_segment(clip[0], plan.segments[at], models, SETTINGS) for at in (1, 0)}
    written = []
    for name, seen in (("forwards", dict(enumerate(in_segments.pieces))), ("backwards", backwards)):
        (tmp_path / name).mkdir()
        files = TrackedFiles(*(str(tmp_path / name / one) for one in ("segments", "tracks", "points")))
        pieces = [seen[0], seen[1]]
        write_tracks(files, SHA256, plan, pieces, join_tracks(pieces, SETTINGS))
        written.append([Path(path).read_bytes() for path in vars(files).values()])
    assert written[0] == written[1]


def test_each_track_is_named_once_by_its_looks(
    whole: Tracked, models: FaceModels, hopper: np.ndarray, collins: np.ndarray
) -> None:
    references = {
        name: models.embed(picture, models.landmarks(picture, models.search(picture, 80)[:1]))
        for name, picture in (("hopper", hopper), ("collins", collins))
    }
    looks = read_looks(whole.files)
    assert min(len(own) for own in looks.values()) >= SECONDS - 1  # about one a second
    assert name_tracks(looks, references, 0.55) == {0: "collins", 1: "hopper"}
    assert name_tracks(looks, {"hopper": references["hopper"]}, 0.55) == {0: None, 1: "hopper"}


def test_two_faces_of_one_person_are_two_tracks_of_that_person(
    models: FaceModels, collins: np.ndarray, tmp_path: Path
) -> None:
    video = tmp_path / "split screen.mp4"
    write_sample_video(video, Scene(people=("collins", "collins"), sound=False), 1.0, seed=5)
    twice = track(video, tmp_path, models, plan_segments(video))
    references = {"collins": models.embed(collins, models.landmarks(collins, models.search(collins, 80)[:1]))}
    assert name_tracks(read_looks(twice.files), references, 0.55) == {0: "collins", 1: "collins"}
    assert [len(faces) for faces in twice.points.values()] == [2] * 25


def test_a_piece_survives_being_written_down(whole: Tracked, tmp_path: Path) -> None:
    [piece] = whole.pieces
    np.savez(tmp_path / "piece.npz", **piece.arrays())  # type: ignore[arg-type]  # the names are those of its fields
    with np.load(tmp_path / "piece.npz") as arrays:
        back = SegmentTracks.of(dict(arrays), piece.facts())
    for name, value in vars(piece).items():
        assert (
            np.array_equal(getattr(back, name), value, equal_nan=value.dtype.kind == "f")
            if isinstance(value, np.ndarray)
            else value == getattr(back, name)
        )


def test_a_video_that_cannot_be_tracked_says_why(tmp_path: Path, models: FaceModels) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    with pytest.raises(InputError) as raised:
        track_segment(broken, Segment(), models, SETTINGS)
    files = TrackedFiles(*(str(tmp_path / name) for name in ("segments", "tracks", "points")))
    write_failure(files, SHA256, raised.value.reason, raised.value.detail)
    with pytest.raises(InputError) as again:
        read_segments(files)
    assert again.value.reason == Reason.NOT_A_VIDEO
    assert read_looks(files) == {}
