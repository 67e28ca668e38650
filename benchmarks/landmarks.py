"""Landmark error from HOG's and MTCNN's boxes, and the constants that map one box to the other.

    python benchmarks/landmarks.py FOLDER            # error on HELEN (pictures beside .pts files of 68 points)
    python benchmarks/landmarks.py FOLDER --fit      # constants of facemill.landmarks.HOG_FROM

Error: mean distance to the true points over the distance of the outer corners of the eyes, as 300-W counts it; median
and mean over the faces that both detectors find.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facemill.detect import Detector, build_detector
from facemill.landmarks import Landmarks68, landmark_box
from facemill.pictures import decode


def main() -> None:
    parser = argparse.ArgumentParser(description="Landmark error by detector, or the box constants.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit", action="store_true", help="print HOG_FROM instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    (fit if arguments.fit else measure)(arguments.folder)


def fit(folder: Path) -> None:
    """Medians over HELEN and AFW of the shift and size of HOG's box against the others."""
    hog, mtcnn = build_detector("hog", min_face_px=80), build_detector("mtcnn", min_face_px=60)
    rows: dict[str, list[npt.NDArray[np.float64]]] = {"mtcnn": [], "landmarks": []}
    for picture, truth in faces(folder, "helen", "afw"):
        target = box_of(hog, picture, truth)
        for name, box in (("mtcnn", box_of(mtcnn, picture, truth)), ("landmarks", landmark_box(truth[None])[0])):
            if target is not None and box is not None:
                rows[name].append(relation(box, target))
    for name, found in rows.items():
        shift_x, shift_y, side = np.median(found, axis=0)
        print(f'    "{name}": ({shift_x:.3f}, {shift_y:.3f}, {side:.3f}),  # {len(found)} faces')


def measure(folder: Path) -> None:
    """Error on HELEN by detector, over the faces that both find."""
    detectors = [build_detector("hog", min_face_px=80), build_detector("mtcnn", min_face_px=60)]
    predictor, errors = Landmarks68(), []
    for picture, truth in faces(folder, "helen"):
        boxes = [box_of(detector, picture, truth) for detector in detectors]
        row = [
            error(predictor.predict(picture, box[None], detector.box_convention)[0], truth)
            for detector, box in zip(detectors, boxes, strict=True)
            if box is not None
        ]
        around = predictor.predict(picture, landmark_box(truth[None]), "landmarks")[0]
        errors += [[*row, error(around, truth)]] if len(row) == 2 else []
    for name, values in zip(("hog", "mtcnn", "landmarks"), np.array(errors).T, strict=True):
        print(f"{name:10s} median {np.median(values):.4f}  mean {values.mean():.4f}  over {len(values)} faces")


def faces(folder: Path, *names: str) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]]:
    files = [file for name in names for file in sorted((folder / name).glob("*.pts"))]
    return [(decode(file.with_suffix(".jpg").read_bytes()), np.loadtxt(file)) for file in files]


def box_of(
    detector: Detector, picture: npt.NDArray[np.uint8], truth: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32] | None:
    """The detected box around the face in question: its centre inside the true points' box and of like size."""
    low, high = truth.min(axis=0), truth.max(axis=0)
    for box in detector.detect([picture])[0].boxes_xyxy:
        centre, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).mean()
        if (centre > low).all() and (centre < high).all() and 0.5 < size / (high - low).mean() < 2:
            return box
    return None


def relation(box: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    unit = (box[2:] - box[:2]).mean()
    shift = ((target[:2] + target[2:]) - (box[:2] + box[2:])) / 2 / unit
    return np.array([*shift, (target[2:] - target[:2]).mean() / unit], np.float64)


def error(points: npt.NDArray[np.float32], truth: npt.NDArray[np.float64]) -> float:
    eyes = truth[36] - truth[45]
    return float(np.linalg.norm(points - truth, axis=1).mean() / np.linalg.norm(eyes))


if __name__ == "__main__":
    main()
