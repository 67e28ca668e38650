"""Which landmark predictor serves best, on faces that none of them has learned from: sample people in known motion.

    python benchmarks/predictors.py --mesh WEIGHTS
    python benchmarks/predictors.py --mesh WEIGHTS --faces 120 --frames 75

The pictures are drawn from two portraits of public agencies (facemill/sources/sample); how each point moves from one to
the next is exact, where the portrait's own points lie was set by hand. So what a predictor shifts always by the same
amount counts for nothing here (crops of one predictor are not mixed with another's), and what it shifts differently
from face to face counts in full:

    crop        how far the crop's content moves from face to face, in % of the crop's side (coverage 1.2), after the
                predictor's own mean shift of each person is taken off; `covered`: with a quarter of the face hidden
    failed      faces whose inner points are off by more than a tenth of the eyes' distance, likewise
    roll        the same, turned by 0° to 345° with the five points of the turned truth
    still       a still frame with noise (sd 4), seen again and again: mean second difference of the points, in % of the
                eyes' distance
    clip        a face that moves evenly: mean second difference of what the points are off by
    ms          of processor: a face alone, and in a picture with nine of them

Boxes and five points are those of MTCNN, as it finds them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from alignment import covered, sampled

from facemill.align import crop_affine, five_points, transform
from facemill.boxes import LANDMARK_BOXES
from facemill.detect import Detector, build_detector
from facemill.landmarks import LandmarkPredictor, build_predictor, upright_boxes
from facemill.pictures import RGB
from facemill.sources.sample import Pose, people, render

CROP_PX, COVERAGE = 256, 1.2
FAILED = 0.1
Points = npt.NDArray[np.float64]
Find = Callable[[RGB], Points | None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Landmark predictors compared on the sample people.")
    parser.add_argument("--mesh", type=Path, required=True, help="weights of the predictor `mesh`")
    parser.add_argument("--faces", type=int, default=120)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--only", nargs="+", default=["dlib", "dlib, 16 jitters", "mesh"], help="of these predictors")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    predictors: dict[str, LandmarkPredictor] = {
        "dlib": build_predictor("dlib"),
        "dlib, 16 jitters": build_predictor("dlib", jitters=16),
        "mesh": build_predictor("mesh", weights=arguments.mesh),
    }
    detector = build_detector("mtcnn", min_face_px=60)
    faces = list(islice(sampled(), arguments.faces))
    for name in arguments.only:
        predictor = predictors[name]
        find = finder(detector, predictor)
        plain = compare(find, faces)
        hidden = compare(find, [covered(*face, row) for row, face in enumerate(faces)])
        print(f"{name:17s} open     {plain}", flush=True)
        print(f"{name:17s} covered  {hidden}", flush=True)
        print(f"{name:17s} roll     {by_roll(predictor)}", flush=True)
        print(f"{name:17s} still    {still(find):.2f} %  clip {clip(find, arguments.frames):.2f} %", flush=True)
        print(f"{name:17s} ms       {spent(predictor)}", flush=True)


def finder(detector: Detector, predictor: LandmarkPredictor) -> Find:
    """The points of the largest face that the detector finds; None where it finds none."""

    def find(picture: RGB) -> Points | None:
        found = detector.detect([picture])[0]
        if not len(found.scores):
            return None
        at = int(found.size_px.argmax())
        points = predictor.predict(
            picture, found.boxes_xyxy[at : at + 1], detector.box_convention,
            points5=None if found.points5 is None else found.points5[at : at + 1],
        )  # fmt: skip
        own: Points = points[0].astype(np.float64)
        return own

    return find


def compare(find: Find, faces: Sequence[tuple[RGB, Points]]) -> str:
    """Median and 95 % of the crop's shift, and how many failed."""
    seen = [
        (at % 2, points, truth) for at, (picture, truth) in enumerate(faces) if (points := find(picture)) is not None
    ]
    shifts, off = steadied(seen)
    return (
        f"crop {np.median(shifts):.2f} / {np.quantile(shifts, 0.95):.2f} %  "
        f"failed {int((off > FAILED).sum())} of {len(seen)} (found of {len(faces)})"
    )


def steadied(seen: Sequence[tuple[int, Points, Points]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """For (person, points, truth): the crop's shift in % of its side and the error of the inner points over the eyes'
    distance, each after the person's median has been taken off in the face's own frame of reference."""
    in_crop = [transform(points, crop_affine(truth, CROP_PX, COVERAGE)) for _, points, truth in seen]
    wanted = [transform(truth, crop_affine(truth, CROP_PX, COVERAGE)) for _, _, truth in seen]
    who = np.array([person for person, _, _ in seen])
    away = np.array(in_crop) - np.array(wanted)  # (N, 68, 2) in pixels of the true crop
    for person in np.unique(who):
        away[who == person] -= np.median(away[who == person], axis=0)
    shifts, off = [], []
    for own, truth in zip(away, wanted, strict=True):
        moved = transform(truth, crop_affine(truth + own, CROP_PX, COVERAGE))
        straight = transform(truth, crop_affine(truth, CROP_PX, COVERAGE))
        shifts.append(100 * np.linalg.norm(moved - straight, axis=1).mean() / CROP_PX)
        off.append(np.linalg.norm(own[17:], axis=1).mean() / np.linalg.norm(truth[36] - truth[45]))
    return np.array(shifts), np.array(off)


def by_roll(predictor: LandmarkPredictor, each: int = 8) -> str:
    """Failures at 0° to 345° in steps of 15, of so many faces at each, with the turned truth's five points."""
    cells = []
    for degrees in range(0, 360, 15):
        seen = []
        for row in range(each):
            person = people()[row % 2]
            pose = Pose(roll_deg=degrees, yaw_deg=5.0 * (row - each // 2), smile=0.1 * row, scale=0.6, noise_seed=row)
            picture, truth = render(person, pose)
            points = truth.astype(np.float64)
            box, fives = upright_boxes(points[None]), five_points(points)[None]
            found = predictor.predict(picture, box, LANDMARK_BOXES, points5=fives)[0].astype(np.float64)
            seen.append((row % 2, found, points))
        shifts, off = steadied(seen)
        cells.append((float(np.median(shifts)), int((off > FAILED).sum())))
    worst = max(range(len(cells)), key=lambda at: cells[at][0])
    return (
        f"crop {np.median([shift for shift, _ in cells]):.2f} % (at worst {cells[worst][0]:.2f} %, at {15 * worst}°)  "
        f"failed {sum(failed for _, failed in cells)} of {each * len(cells)}"
    )


def still(find: Find, copies: int = 40) -> float:
    """Mean over both people of the mean second difference of the inner points, in % of the eyes' distance."""
    found = []
    for person in people():
        picture, truth = render(person, Pose())
        random = np.random.default_rng(0)
        noisy = (picture + random.normal(0, 4, picture.shape) for _ in range(copies))
        points = np.array([find(np.clip(np.rint(one), 0, 255).astype(np.uint8)) for one in noisy])
        found.append(trembling(points, truth))
    return float(np.mean(found))


def clip(find: Find, frames: int) -> float:
    """The same of what the points of an evenly moving face are off by."""
    found = []
    for person in people():
        times = np.arange(frames) / 25
        off, truths = [], []
        for at, second in enumerate(times):
            pose = Pose(
                yaw_deg=14 * np.sin(1.7 * second), pitch_deg=7 * np.sin(1.1 * second + 1), roll_deg=6 * np.sin(second),
                shift=(0.03 * np.sin(1.3 * second), 0.02 * np.cos(second)), mouth_open=0.4 + 0.4 * np.sin(6 * second),
                grain=3.0, noise_seed=at,
            )  # fmt: skip
            picture, truth = render(person, pose)
            points = find(picture)
            off.append(np.full_like(truth, np.nan) if points is None else points - truth)
            truths.append(truth)
        found.append(trembling(np.array(off), truths[0]))
    return float(np.mean(found))


def trembling(points: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Median over time of the mean second difference of the inner points, in % of the eyes' distance."""
    second = np.linalg.norm(np.diff(points[:, 17:], n=2, axis=0), axis=2).mean(axis=1)
    return float(100 * np.nanmedian(second) / np.linalg.norm(truth[36] - truth[45]))


def spent(predictor: LandmarkPredictor, rounds: int = 8) -> str:
    """Milliseconds of processor a face, of one and of nine in a picture."""
    picture, truth = render(people()[0], Pose(scale=0.9))
    many, size = np.tile(picture, (3, 3, 1)), picture.shape[0]
    places = [(column * size, row * size) for row in range(3) for column in range(3)]
    all_points = np.array([truth + np.array(place) for place in places])
    told = []
    for name, image, points in (("alone", picture, truth[None]), ("of nine", many, all_points)):
        boxes, fives = upright_boxes(points), np.array([five_points(each) for each in points])
        best = min(timed(predictor, image, boxes, fives) for _ in range(rounds))
        told.append(f"{1000 * best / len(points):.1f} {name}")
    return ", ".join(told)


def timed(predictor: LandmarkPredictor, picture: RGB, boxes: Points, fives: Points) -> float:
    start = time.process_time()
    predictor.predict(picture, boxes, LANDMARK_BOXES, points5=fives)
    return time.process_time() - start


if __name__ == "__main__":
    main()
