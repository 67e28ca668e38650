"""Following faces against detecting them in every frame: time, agreement, ids; both in one run, decoding included.

    python benchmarks/track.py talk.mp4                       # MTCNN, a key frame every 10th
    python benchmarks/track.py street.mp4 --min-face-px 32 --every 5 10 --frames 100
    python benchmarks/track.py talk.mp4 --detector hog --min-face-px 80 --repeats 3
    python benchmarks/track.py talk.mp4 --tables              # what stage `track` takes, and bytes of its tables
    python benchmarks/track.py --truth                        # trembling, lag and roll of sample people

Agreement is with the detections of the same frame: IoU of the pairs (at 0.3 and more), faces that are missed or extra
in parts of all detections. The detector itself trembles and flickers: its boxes in neighbouring frames are compared in
the same way in the first line, and no following can agree better. An id switch is a face whose detections in two
neighbouring frames overlap by half, and whose ids differ.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import transform
from facemill.boxes import iou
from facemill.detect import Detector, Faces, build_detector
from facemill.sources.sample.animate import render
from facemill.sources.sample.videos import Scene, frame_pose, write_sample_video
from facemill.track import tracker
from facemill.track.join import join_tracks
from facemill.track.match import match
from facemill.track.models import FaceModels
from facemill.track.segment import track_frames, track_segment
from facemill.track.settings import TrackingSettings
from facemill.track.table import TrackedFiles, write_tracks
from facemill.track.tracker import FaceTracker, TrackedFrame, TrackSettings, whole_frames
from facemill.video import Frame, plan_segments, read_frames
from tasks.work.cluster import one_thread

BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--tables", action="store_true", help="track the clip as the stage does")
    parser.add_argument("--truth", action="store_true", help="measure on sample people, whose motion is known")
    parser.add_argument("--detector", default="mtcnn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--min-face-px", type=int, default=40)
    parser.add_argument("--every", type=int, nargs="+", default=[10], help="frames from one key frame to the next")
    parser.add_argument("--frames", type=int, default=None, help="only so many")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--association", action="store_true", help="without flow: straight lines between key frames")
    arguments = parser.parse_args()
    if arguments.association:
        vars(tracker)["flow"] = lambda before, after, boxes: np.full((len(boxes), 4), np.nan)
    one_thread()  # as in a worker
    if arguments.truth:
        measure_smoothing()
        measure_roll()
        return
    if arguments.clip is None:
        parser.error("name a clip, or --truth")
    if arguments.tables:
        measure_tables(arguments.clip)
        return
    detector = build_detector(arguments.detector, min_face_px=arguments.min_face_px, device=arguments.device)
    detector.detect([next(read_frames(arguments.clip)).rgb])  # the first call allocates

    def frames() -> Iterator[Frame]:
        return islice(read_frames(arguments.clip), arguments.frames)

    plain: list[Times] = []
    times: dict[int, list[Times]] = {every: [] for every in arguments.every}
    followed: dict[int, list[TrackedFrame]] = {}
    for _ in range(arguments.repeats):
        with timed(plain):
            found = detect_all(detector, frames())
        for every in arguments.every:
            with timed(times[every]):
                followed[every] = follow_all(detector, frames(), TrackSettings(every=every))
    own = median(plain)
    ms = f"{1000 * own.wall_s / len(found):.1f} ms a frame ({1000 * own.cpu_s / len(found):.1f} of CPU)"
    print(f"{arguments.clip.name}, {arguments.detector}: {len(found)} frames, {sum(map(len, found))} faces, {ms}")
    print(f"  {'neighbouring detections':<25}{trembling(found)}")
    for every in arguments.every:
        took, keys = median(times[every]), sum(frame.key for frame in followed[every])
        name = f"every {every}: {keys} key frames"
        print(f"  {name:<25}{compare(found, followed[every])}")
        ms = f"{1000 * took.wall_s / len(found):.1f} ms a frame ({1000 * took.cpu_s / len(found):.1f} of CPU)"
        print(f"  {'':<25}{ms}: {own.wall_s / took.wall_s:.1f}× as fast ({own.cpu_s / took.cpu_s:.1f}× by CPU)")


@dataclass(frozen=True)
class Times:
    """By the clock, and of all threads of this process: the latter hardly depends on who else is at work."""

    wall_s: float
    cpu_s: float


@contextmanager
def timed(times: list[Times]) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    times.append(Times(time.perf_counter() - wall, time.process_time() - cpu))


def median(times: Sequence[Times]) -> Times:
    return Times(statistics.median(one.wall_s for one in times), statistics.median(one.cpu_s for one in times))


@dataclass(frozen=True)
class Agreement:
    ious: list[float]
    detected: int
    missed: int
    extra: int
    ids: int
    switches: int

    def __str__(self) -> str:
        return (
            f"IoU {np.median(self.ious):.3f}, 5th percentile {np.percentile(self.ious, 5):.3f}; "
            f"missed {self.missed / self.detected:5.1%}, extra {self.extra / self.detected:5.1%}; "
            f"{self.ids} ids, {self.switches} switches"
        )


def compare(found: Sequence[Faces], followed: Sequence[TrackedFrame]) -> Agreement:
    """Pairs detections and followed faces frame by frame."""
    ious: list[float] = []
    missed = extra = switches = 0
    before: dict[int, int] = {}  # row of the last frame's detections -> track
    for index, (faces, frame) in enumerate(zip(found, followed, strict=True)):
        boxes = np.array([face.box_xyxy for face in frame.faces]).reshape(-1, 4)
        overlaps = iou(faces.boxes_xyxy, boxes)
        pairs = match(faces.boxes_xyxy, boxes)
        ious += [float(overlaps[pair]) for pair in pairs]
        missed += len(faces) - len(pairs)
        extra += len(boxes) - len(pairs)
        now = {row: frame.faces[column].track for row, column in pairs}
        if index:
            same = match(found[index - 1].boxes_xyxy, faces.boxes_xyxy, 0.5)
            switches += sum(
                before.get(old, -1) != now.get(new, -1) for old, new in same if old in before and new in now
            )
        before = now
    ids = {face.track for frame in followed for face in frame.faces}
    return Agreement(ious, sum(map(len, found)), missed, extra, len(ids), switches)


def trembling(found: Sequence[Faces]) -> str:
    """The same numbers between the detections of neighbouring frames."""
    ious: list[float] = []
    missed = extra = 0
    for before, after in pairwise(found):
        overlaps = iou(before.boxes_xyxy, after.boxes_xyxy)
        pairs = match(before.boxes_xyxy, after.boxes_xyxy)
        ious += [float(overlaps[pair]) for pair in pairs]
        missed, extra = missed + len(before) - len(pairs), extra + len(after) - len(pairs)
    total = max(1, sum(map(len, found)))
    return (
        f"IoU {np.median(ious):.3f}, 5th percentile {np.percentile(ious, 5):.3f}; "
        f"missed {missed / total:5.1%}, extra {extra / total:5.1%}"
    )


def detect_all(detector: Detector, frames: Iterator[Frame]) -> list[Faces]:
    found: list[Faces] = []
    while batch := [frame.region((0, 0, frame.width, frame.height))[0] for frame in islice(frames, BATCH)]:
        found += detector.detect(batch)
    return found


def follow_all(detector: Detector, frames: Iterator[Frame], settings: TrackSettings) -> list[TrackedFrame]:
    first: list[Frame] = []  # its pixels stand for all: holding every frame would be measured too
    followed = []
    for one in FaceTracker(whole_frames(detector), settings).follow(frames):
        first = first or [one.frame]
        followed.append(TrackedFrame(first[0], one.faces, one.scene, one.key, one.error))
    return followed


def measure_tables(clip: Path) -> None:
    """Seconds of tracking for each second of video, and bytes of the three tables for an hour of it."""
    settings, plan = TrackingSettings(), plan_segments(clip)
    models = FaceModels()
    models.find([next(read_frames(clip))], settings.min_face_px, settings.max_side_px)  # the first call allocates
    seen: list[Times] = []
    joined: list[Times] = []
    with timed(seen):
        pieces = [track_segment(clip, segment, models, settings) for segment in plan.segments]
    with tempfile.TemporaryDirectory() as folder:
        files = TrackedFiles(*(f"{folder}/{name}" for name in ("segments", "tracks", "points")))
        with timed(joined):
            found = join_tracks(pieces, settings)
            write_tracks(files, "0" * 64, plan, pieces, found)
        sizes = {name: Path(path).stat().st_size for name, path in vars(files).items()}
    seconds = float(found.seconds[-1] - found.seconds[0]) * len(found.seconds) / max(1, len(found.seconds) - 1)
    faces = sum(track.frames for track in found.tracks)
    print(f"{clip.name}: {seconds:.1f} s, {len(found.pts)} frames, {faces} faces in {len(found.tracks)} tracks")
    for name, times in (("looked at", seen), ("joined", joined)):
        one = times[0]
        print(f"  {name}: {one.cpu_s / seconds:.3f} s of CPU for each second ({one.wall_s / seconds:.3f} by clock)")
    hour = sum(sizes.values()) * 3600 / seconds / 1e6
    print(f"  tables: {sizes}: {hour:.1f} MB for an hour, {sizes['points'] / max(1, faces):.0f} bytes a face and frame")


def measure_smoothing(seconds: float = 8.0) -> None:
    """How much less landmarks tremble where the truth is calm, what is left of speech, and how late they are."""
    settings, models = TrackingSettings(), FaceModels()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "both.mp4"
        truth = write_sample_video(clip, Scene(people=("hopper", "collins"), sound=False), seconds, seed=3)
        piece = track_segment(clip, None, models, settings)
    rows = join_tracks([piece], settings).rows(0)
    for number, person in enumerate(("hopper", "collins")):
        true = np.array(truth.landmarks[person], float)
        raw, smooth = (one.points[one.track == number].astype(float) for one in (piece, rows))
        if len(raw) != len(true):
            print(f"{person}: {len(raw)} of {len(true)} frames")
            continue
        calm = np.linalg.norm(np.diff(true - true.mean(axis=1, keepdims=True), n=2, axis=0), axis=-1) < 0.25
        before, after = (
            float(np.sqrt((np.linalg.norm(np.diff(points - true, n=2, axis=0), axis=-1)[calm] ** 2).mean()))
            for points in (raw, smooth)
        )
        speed, error = np.gradient(true, axis=0), smooth - true - (smooth - true).mean(axis=0)
        lag = -float((error * speed).sum() / (speed**2).sum())
        opening = [np.linalg.norm(points[:, 62] - points[:, 66], axis=1) for points in (true, raw, smooth)]
        kept = np.polyfit(opening[0], opening[2], 1)[0] / np.polyfit(opening[0], opening[1], 1)[0]
        print(
            f"{person}: second difference {before:.2f} px, smoothed {after:.2f} ({before / after:.1f}× less); "
            f"lag {lag:+.3f} frames; {kept:.0%} of the mouth's opening"
        )


def measure_roll(step_deg: float = 2.0) -> None:
    """Frames with the face and landmark error (of the eyes' distance) at every 15° of a face that turns once."""
    settings = TrackingSettings()
    for name, models, own in (
        ("upright alone", _Upright(), replace(settings, turned_every=0)),
        ("any roll", FaceModels(), settings),
    ):
        for person, start_deg in (("hopper", 0.0), ("collins", 180.0)):
            clip, truth = turning(person, start_deg, step_deg)
            seen = track_frames(clip, models, own)
            assert seen is not None
            rows = join_tracks([seen], own).rows(0)
            by_angle: dict[int, list[float]] = {}
            for index, true in enumerate(truth):
                eyes = float(np.linalg.norm(true[36] - true[45]))
                found = rows.points[rows.pts == index]
                errors = np.linalg.norm(found - true, axis=2).mean(axis=1) / eyes
                angle = round((start_deg + step_deg * index) / 15) * 15 % 360
                by_angle.setdefault(angle, []).append(float(errors.min(initial=np.inf)))
            print(f"{name}, {person} from {start_deg:.0f}°: angle, frames with the face, median landmark error in them")
            for angle, all_errors in sorted(by_angle.items()):
                good = [error for error in all_errors if error < 0.1]
                median_error = f"{statistics.median(good):.3f}" if good else "-"
                print(f"  {angle:3d}°  {len(good) / len(all_errors):4.0%}  {median_error}")


class _Upright(FaceModels):
    """As it was before: a face that its detector loses is lost."""

    def again(self, frame: Frame, box: npt.NDArray[Any], roll: float) -> Faces:
        return Faces.empty(points=True)


def turning(person: str, start_deg: float, step_deg: float) -> tuple[list[Frame], list[npt.NDArray[np.float64]]]:
    """A sample person who talks while the picture turns once, clockwise, with the true landmarks."""
    clip: list[Frame] = []
    truth: list[npt.NDArray[np.float64]] = []
    for index in range(round(360 / step_deg) + 1):
        rgb, points = render(person, frame_pose(person, 3, index), (480, 480))
        turn = cv2.getRotationMatrix2D((239.5, 239.5), -(start_deg + step_deg * index), 0.9)
        turned: Any = cv2.warpAffine(rgb, turn, (480, 480), borderValue=(90, 90, 90))
        clip.append(Frame.from_rgb(turned, index, Fraction(1, 25)))
        truth.append(transform(points, np.asarray(turn, np.float64)))
    return clip, truth


if __name__ == "__main__":
    main()
