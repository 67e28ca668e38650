"""How near each way of alignment comes to that of the true landmarks: closed form, trimmed, point cloud (S9, S10).

    python benchmarks/alignment.py                       # the sample people in random poses, whose points are known
    python benchmarks/alignment.py --pictures 400
    python benchmarks/alignment.py --folder FOLDER       # HELEN and AFW below FOLDER, pictures beside .pts files

Landmarks come from HOG's box and dlib's predictor, as in extraction. A way's error is the mean distance between where
its map and the map of the true points (closed form) place the true points, in pixels of a 256 px crop of coverage 1.6.
With `covered` a grey patch hides a quarter of the face before it is looked at, so that some landmarks are guesses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facemill.align import ALIGNED, Affine, crop_affine, crop_points, transform
from facemill.detect import build_detector
from facemill.landmarks.dlib import DlibPredictor
from facemill.pictures import RGB, decode
from facemill.point_sets import apply, fit, fit_trimmed, register
from facemill.sources.sample.animate import render
from facemill.sources.sample.portraits import people
from facemill.sources.sample.pose import Pose

CROP_PX, COVERAGE = 256, 1.6
Points = npt.NDArray[np.float64]


def closed_form(points: Points, placed: Points) -> Affine:
    """Least squares of the points that belong together, as `facemill.align.crop_affine` has it."""
    return fit(points, placed)


def trimmed(points: Points, placed: Points) -> Affine:
    """The same without the third of the points that fits worst."""
    return fit_trimmed(points, placed, outliers=0.3)


def cloud(points: Points, placed: Points) -> Affine:
    """Point clouds: which point belongs to which is found anew, from the closed form's map on (S10)."""
    start = fit(points, placed)
    found = register(apply(start, points), placed, "similarity", any_turn=False).matrix
    return np.asarray(found @ np.vstack([start, [0, 0, 1]]))


WAYS: dict[str, Callable[[Points, Points], Affine]] = {
    "closed form": closed_form,
    "trimmed": trimmed,
    "point cloud": cloud,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Error of alignment against that of the true landmarks.")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="annotated pictures instead of the sample people")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    faces = list(islice(annotated(arguments.folder) if arguments.folder else sampled(), arguments.pictures))
    for name, pictures in (
        ("as they are", faces),
        ("covered", [covered(*face, row) for row, face in enumerate(faces)]),
    ):
        compare(name, pictures)


def compare(name: str, faces: list[tuple[RGB, Points]]) -> None:
    """Prints a line for each way: median, mean and 95 % of the errors, and the time for a face."""
    detector, predictor = build_detector("hog", min_face_px=80), DlibPredictor()
    errors: dict[str, list[float]] = {way: [] for way in WAYS}
    spent_s = dict.fromkeys(WAYS, 0.0)
    placed = crop_points(CROP_PX, COVERAGE)[ALIGNED]
    for picture, truth in faces:
        boxes = detector.detect([picture])[0].boxes_xyxy
        middle = truth.mean(axis=0)
        inside = ((boxes[:, :2] < middle) & (middle < boxes[:, 2:])).all(axis=1)
        if not inside.any():
            continue
        points = predictor.predict(picture, boxes[inside][:1])[0].astype(np.float64)
        wanted = transform(truth, crop_affine(truth, CROP_PX, COVERAGE))
        for way, align in WAYS.items():
            start = time.perf_counter()
            affine = align(points[ALIGNED], placed)
            spent_s[way] += time.perf_counter() - start
            errors[way].append(float(np.linalg.norm(transform(truth, affine) - wanted, axis=1).mean()))
    print(f"{name}: {len(errors['closed form'])} of {len(faces)} faces found")
    for way, found in errors.items():
        if found:
            middle, mean, most = np.median(found), np.mean(found), np.quantile(found, 0.95)
            each_ms = 1000 * spent_s[way] / len(found)
            print(f"  {way:12s} median {middle:.2f}  mean {mean:.2f}  95 % {most:.2f} px  {each_ms:.2f} ms a face")


def sampled() -> Iterator[tuple[RGB, Points]]:
    """The sample people in random poses, without end."""
    random = np.random.default_rng(0)
    for row in count():
        pose = Pose(
            yaw_deg=float(random.uniform(-20, 20)),
            pitch_deg=float(random.uniform(-12, 12)),
            roll_deg=float(random.uniform(-15, 15)),
            scale=float(random.uniform(0.7, 1.1)),
            mouth_open=float(random.uniform(0, 1)),
            smile=float(random.uniform(-0.5, 1)),
            blink=float(random.uniform(0, 1) > 0.8),
            light=float(random.uniform(0, 0.6)),
            light_from_deg=float(random.uniform(0, 360)),
            grain=float(random.uniform(0, 6)),
            noise_seed=row,
        )
        picture, truth = render(people()[row % 2], pose)
        yield picture, truth.astype(np.float64)


def annotated(folder: Path) -> Iterator[tuple[RGB, Points]]:
    """Pictures with 68 annotated points."""
    for file in sorted([*folder.glob("helen/*.pts"), *folder.glob("afw/*.pts")]):
        yield decode(file.with_suffix(".jpg").read_bytes()), np.loadtxt(file)


def covered(picture: RGB, truth: Points, row: int) -> tuple[RGB, Points]:
    """The picture with a grey patch over one quarter of the points' box."""
    low, high = truth.min(axis=0), truth.max(axis=0)
    corner = np.array([row % 2, row // 2 % 2])
    first = (low + corner * (high - low) / 2).round().astype(int).clip(0)
    last = (first + (high - low) / 2).round().astype(int)
    hidden: npt.NDArray[Any] = picture.copy()
    hidden[first[1] : last[1], first[0] : last[0]] = 128
    return hidden, truth


if __name__ == "__main__":
    main()
