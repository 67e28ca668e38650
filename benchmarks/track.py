"""Following faces against detecting them in every frame: time, agreement, ids; both in one run, decoding included.

    python benchmarks/track.py talk.mp4                       # MTCNN, a key frame every 10th
    python benchmarks/track.py street.mp4 --min-face-px 32 --every 5 10 --frames 100
    python benchmarks/track.py talk.mp4 --detector hog --min-face-px 80 --repeats 3

Agreement is with the detections of the same frame: IoU of the pairs (at 0.3 and more), faces that are missed or extra
in parts of all detections. The detector itself trembles and flickers: its boxes in neighbouring frames are compared in
the same way in the first line, and no following can agree better. An id switch is a face whose detections in two
neighbouring frames overlap by half, and whose ids differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from facemill.boxes import iou
from facemill.detect import Detector, Faces, build_detector
from facemill.track import tracker
from facemill.track.match import match
from facemill.track.tracker import FaceTracker, TrackedFrame, TrackSettings, whole_frames
from facemill.video import Frame, read_frames
from tasks.work.cluster import one_thread

BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clip", type=Path)
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


if __name__ == "__main__":
    main()
