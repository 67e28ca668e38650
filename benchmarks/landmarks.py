"""Landmark error from each detector's boxes, the constants that map them to HOG's, jittered boxes, and trembling.

    python benchmarks/landmarks.py FOLDER                              # error by detector; HELEN and AFW below FOLDER
    python benchmarks/landmarks.py FOLDER --fit                        # with constants fitted anew, which it prints
    python benchmarks/landmarks.py FOLDER --detectors hog --jitters 0 16
    python benchmarks/landmarks.py FOLDER --annotated VOC              # for boxes as annotators draw them (DSFD)
    python benchmarks/landmarks.py FOLDER --rolls --mesh WEIGHTS       # error by roll, of each predictor
    python benchmarks/landmarks.py --video CLIP…                       # how landmarks tremble over time

FOLDER/helen and FOLDER/afw hold pictures beside .pts files of 68 points. Constants come from every second picture,
errors from the others. Error: mean distance to the true points over that of the outer corners of the eyes, as 300-W
counts it. Annotators' boxes have no points: there the constants come from faces that HOG finds too, and the error is
that of HOG's boxes on HELEN, moved and scaled as the mapped annotations of the other half differ from HOG's.
By roll: pictures are turned about the face and asked for MTCNN's box and five points of the turned picture; a
predictor gets the box alone, then the five points too. HELEN and AFW are part of 300-W, on which the trees were
trained.
Trembling is what is left of a face that moves evenly: the mean second difference of its points over time, in parts of
the distance of the outer corners of the eyes; as conversion follows the face, before and after smoothing, against the
predictor asked for each frame from the detector's box alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facemill.align import resized, transform
from facemill.boxes import HOG_BOXES, LANDMARK_BOXES, BoxConvention, iou
from facemill.detect import Detector, build_detector
from facemill.detector_training.annotations import read_annotations
from facemill.landmarks import LandmarkPredictor, build_predictor, landmark_box
from facemill.landmarks.dlib import DlibPredictor
from facemill.mean_face import MIRRORED
from facemill.media.view import landmark_view
from facemill.pictures import RGB, decode
from facemill.track.models import FaceModels
from facemill.track.segment import track_frames
from facemill.track.settings import TrackingSettings
from facemill.track.smooth import smoothed
from facemill.video import VideoReader

MIN_FACE_PX = {"hog": 80, "mtcnn": 60, "mmod": 80, "dsfd": 60}
Box = npt.NDArray[np.float64]
Seen = tuple[RGB, npt.NDArray[np.float64], dict[str, Box]]
"""Picture, true points, the box of each detector that found the face."""
CONVENTIONS: dict[str, BoxConvention] = {"hog": HOG_BOXES, "landmarks": LANDMARK_BOXES}
"""Of each detector in use, as its class has it until --fit finds another."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Landmark error by detector, and the box constants.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--video", type=Path, nargs="+", default=[], help="clips that show one face from the start on")
    parser.add_argument(
        "--fit", action="store_true", help="fit box conventions on every second picture, print and use them"
    )
    parser.add_argument("--detectors", nargs="+", default=["hog", "mtcnn"], help="also: mmod, and dsfd with --weights")
    parser.add_argument("--weights", type=Path, help="DSFD's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rolls", action="store_true", help="turn the pictures by 0° to 345°")
    parser.add_argument("--mesh", type=Path, help="weights of the predictor `mesh`")
    parser.add_argument("--jitters", type=int, nargs="+", default=[0])
    parser.add_argument("--annotated", type=Path, help="a folder of pictures with annotated boxes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for clip in arguments.video:
        tremble(clip)
    if arguments.folder is None:
        return
    if arguments.rolls:
        by_roll(arguments.folder, arguments.mesh)
        return
    seen = list(look(arguments))
    if arguments.fit:
        fit([boxes for _, _, boxes in seen[::2]])
    measure(seen[1::2], arguments.jitters)
    if arguments.annotated:
        annotated(arguments.annotated, seen[1::2])


def look(arguments: argparse.Namespace) -> Iterator[Seen]:
    """HELEN and AFW with all boxes; half are mirrored, so that what differs between left and right cancels out."""
    options = {"dsfd": {"weights": arguments.weights}}
    detectors: dict[str, Detector] = {
        name: build_detector(name, min_face_px=MIN_FACE_PX[name], device=arguments.device, **options.get(name, {}))
        for name in dict.fromkeys(["hog", *arguments.detectors])
    }
    CONVENTIONS.update({name: detector.box_convention for name, detector in detectors.items()})
    files = [file for name in ("helen", "afw") for file in sorted((arguments.folder / name).glob("*.pts"))]
    for row, file in enumerate(files):
        picture, truth = decode(file.with_suffix(".jpg").read_bytes()), np.loadtxt(file)
        if row % 4 >= 2:
            picture = np.ascontiguousarray(picture[:, ::-1])
            truth = ([picture.shape[1] - 1, 0] + truth * [-1, 1])[MIRRORED]
        boxes = {name: box_of(detector, picture, truth) for name, detector in detectors.items()}
        around = landmark_box(truth[None])[0].astype(np.float64)
        yield picture, truth, {name: box for name, box in boxes.items() if box is not None} | {"landmarks": around}


def box_of(detector: Detector, picture: RGB, truth: npt.NDArray[np.float64]) -> Box | None:
    """The detected box around the face in question: its centre inside the true points' box and of like size.

    mmod, at 6.5 s a megapixel, is shown the surroundings only, with a face of 120 px.
    """
    low, high = truth.min(axis=0), truth.max(axis=0)
    if detector.name == "mmod" and (high - low).mean() > 130:
        around = np.concatenate([low, high]) + np.repeat([-0.6, 0.6], 2) * (high - low).mean()
        left, top, right, bottom = np.clip(around, 0, np.tile(picture.shape[1::-1], 2)).astype(int).tolist()
        small = 120 / float((high - low).mean())
        part = resized(picture[top:bottom, left:right], (round((right - left) * small), round((bottom - top) * small)))
        found = box_of(detector, part, (truth - [left, top]) * small)
        return None if found is None else found / small + [left, top, left, top]
    for box in detector.detect([picture])[0].boxes_xyxy.astype(np.float64):
        centre, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).mean()
        if (centre > low).all() and (centre < high).all() and 0.5 < size / (high - low).mean() < 2:
            return np.asarray(box)
    return None


def fit(seen: list[dict[str, Box]]) -> None:
    """Medians of the shift and size of HOG's box against the others."""
    for name in sorted({name for boxes in seen for name in boxes} - {"hog"}):
        rows = [relation(boxes[name], boxes["hog"]) for boxes in seen if name in boxes and "hog" in boxes]
        keep(name, rows)


def keep(name: str, rows: list[npt.NDArray[np.float64]]) -> None:
    """Notes and prints the constants; a shift in x under 0.02 is chance, a larger one the detector's own bias."""
    shift_x, shift_y, side = (round(float(part), 3) for part in np.median(rows, axis=0))
    CONVENTIONS[name] = BoxConvention(shift_x if abs(shift_x) >= 0.02 else 0.0, shift_y, side)
    print(f"{name}: {CONVENTIONS[name]}, {len(rows)} faces; the shift in x was {shift_x:.3f}")


def relation(box: Box, target: Box) -> npt.NDArray[np.float64]:
    """Shift of the centre in x and y, and side, of `target` in parts of the mean side of `box`."""
    unit = (box[2:] - box[:2]).mean()
    shift = ((target[:2] + target[2:]) - (box[:2] + box[2:])) / 2 / unit
    return np.array([*shift, (target[2:] - target[:2]).mean() / unit], np.float64)


def by_roll(folder: Path, mesh: Path | None) -> None:
    """Median error and failures (inner points over a tenth of the eyes' distance) by roll, on every fourth picture."""
    predictors: dict[str, LandmarkPredictor] = {"dlib": build_predictor("dlib")}
    if mesh is not None:
        predictors["mesh"] = build_predictor("mesh", weights=mesh)
    detector = build_detector("mtcnn", min_face_px=MIN_FACE_PX["mtcnn"])
    files = [file for name in ("helen", "afw") for file in sorted((folder / name).glob("*.pts"))][1::4]
    print("roll  found  " + "  ".join(f"{name + how:22s}" for name in predictors for how in (" box", " five points")))
    for degrees in range(0, 360, 15):
        wrong: dict[str, list[float]] = {}
        found = 0
        for file in files:
            picture, truth = turned_about(decode(file.with_suffix(".jpg").read_bytes()), np.loadtxt(file), degrees)
            faces = detector.detect([picture])[0]
            middles = (faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2
            near = np.linalg.norm(middles - truth[17:].mean(axis=0), axis=1)
            if not len(near) or near.min() > np.linalg.norm(truth[36] - truth[45]):
                continue
            found += 1
            face = faces[[int(near.argmin())]]
            for name, predictor in predictors.items():
                for how, points5 in ((" box", None), (" five points", face.points5)):
                    points = predictor.predict(picture, face.boxes_xyxy, detector.box_convention, points5=points5)[0]
                    off = np.linalg.norm(points - truth, axis=1)[17:].mean() / np.linalg.norm(truth[36] - truth[45])
                    wrong.setdefault(name + how, []).append(float(off))
        cells = (f"{np.median(each):.4f}, {sum(one > 0.1 for one in each):3d} failed   " for each in wrong.values())
        print(f"{degrees:3d}°  {found:3d}/{len(files)}  " + "  ".join(cells), flush=True)


def turned_about(picture: RGB, truth: npt.NDArray[np.float64], degrees: float) -> tuple[RGB, npt.NDArray[np.float64]]:
    """The surroundings of a face of 200 px, turned clockwise about it, and its points."""
    middle, scale = truth.mean(axis=0), 200 / float(np.ptp(truth, axis=0).max())
    turn = cv2.getRotationMatrix2D(middle, -degrees, scale).astype(np.float64)
    turn[:, 2] += 300 - middle
    turned = cv2.warpAffine(picture, turn, (600, 600), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8), transform(truth, turn)


def measure(seen: list[Seen], jitters: list[int]) -> None:
    """Error by detector, over the faces that all of them find, and over all that each finds."""
    names = list(dict.fromkeys(name for _, _, boxes in seen for name in boxes))
    common = [row for row in seen if len(row[2]) == len(names)]
    print(f"{len(seen)} faces, {len(common)} found by all")
    for name in names:
        alone = [row for row in seen if name in row[2]]
        unmapped = errors(DlibPredictor(), [(p, t, b[name]) for p, t, b in common], "hog")[0]
        for count in jitters:
            mapped, spent_ms = errors(DlibPredictor(count), [(p, t, b[name]) for p, t, b in common], name)
            every = errors(DlibPredictor(count), [(p, t, b[name]) for p, t, b in alone], name)[0]
            print(
                f"{name:10s} jitters {count:2d}  median {np.median(mapped):.4f}  mean {mapped.mean():.4f}  "
                f"95 % {np.quantile(mapped, 0.95):.4f}  "
                f"unmapped {np.median(unmapped):.4f}  {spent_ms:.1f} ms a face  "
                f"all {len(alone)} it finds: median {np.median(every):.4f}  mean {every.mean():.4f}"
            )


def errors(
    predictor: DlibPredictor, rows: list[tuple[RGB, npt.NDArray[np.float64], Box]], convention: str
) -> tuple[npt.NDArray[np.float64], float]:
    """Error of each face, and milliseconds a face."""
    start = time.perf_counter()
    way = CONVENTIONS[convention]
    found = [predictor.predict(picture, box[None], way)[0] for picture, _, box in rows]
    spent_ms = (time.perf_counter() - start) / len(rows) * 1e3
    return np.array([error(points, truth) for points, (_, truth, _) in zip(found, rows, strict=True)]), spent_ms


def error(points: npt.NDArray[Any], truth: npt.NDArray[np.float64]) -> float:
    eyes = truth[36] - truth[45]
    return float(np.linalg.norm(points - truth, axis=1).mean() / np.linalg.norm(eyes))


def tremble(clip: Path, count: int = 150) -> None:
    """Of the first frames of a clip, for the face in its first frame."""
    tools, predictor, settings = FaceModels("hog"), DlibPredictor(), TrackingSettings()
    with VideoReader(clip) as reader:
        frames = list(islice(reader, count))
    seen = track_frames(frames, tools, settings)
    assert seen is not None
    rows = np.flatnonzero(seen.track == seen.track[0])
    points, at = seen.points[rows], seen.frame[rows]
    alone = []
    for frame, box in zip((frames[index] for index in at), seen.box[rows], strict=True):
        view = landmark_view(frame, box.astype(float))
        alone.append(view.to_frame(predictor.predict(view.rgb, view.to_view(box.astype(float))[None])[0]))
    ways: dict[str, npt.NDArray[Any]] = {
        "tracked box alone": np.array(alone),
        "steadied": points,
        "steadied, smoothed": smoothed(seen.seconds[at], points, settings.smoothing),
    }
    for name, points in ways.items():
        eyes = np.linalg.norm(points[0][36] - points[0][45])
        second = np.linalg.norm(np.diff(points, n=2, axis=0), axis=2).mean(axis=1) / eyes
        print(
            f"{clip.name:16s} {name:22s} {len(points)} frames  median {np.median(second):.4f}  "
            f"95 % {np.quantile(second, 0.95):.4f}  worst {second.max():.4f}"
        )


def annotated(folder: Path, seen: list[Seen]) -> None:
    """Constants for annotators' boxes from half of the set, and the error that the other half's scatter makes."""
    detector = build_detector("hog", min_face_px=80)
    pairs: list[tuple[Box, Box]] = []
    for one in read_annotations(folder):
        found = detector.detect([decode(one.path.read_bytes())])[0]
        if not len(found) or not len(one.boxes_xyxy):
            continue
        overlap = iou(found.boxes_xyxy, one.boxes_xyxy)
        pairs += [
            (one.boxes_xyxy[overlap[row].argmax()].astype(np.float64), found.boxes_xyxy[row].astype(np.float64))
            for row in range(len(found))
            if overlap[row].max() > 0.3
        ]
    keep("dsfd", [relation(box, hog) for box, hog in pairs[::2]])
    scatter = np.array([relation(CONVENTIONS["dsfd"].to_hog(box[None])[0], hog) for box, hog in pairs[1::2]])
    overlap = np.array([iou(CONVENTIONS["dsfd"].to_hog(box[None]), hog[None])[0, 0] for box, hog in pairs[1::2]])
    print(
        f"annotated boxes, other half: IoU with HOG's, median {np.median(overlap):.3f}; scatter {scatter.std(axis=0)}"
    )
    rows = []
    for at, (picture, truth, boxes) in enumerate(row for row in seen if "hog" in row[2]):
        dx, dy, side = scatter[at % len(scatter)]
        unit = (boxes["hog"][2:] - boxes["hog"][:2]).mean() / side
        centre = (boxes["hog"][:2] + boxes["hog"][2:]) / 2 - np.array([dx, dy]) * unit
        rows.append((picture, truth, np.concatenate([centre - unit / 2, centre + unit / 2])))
    values, _ = errors(DlibPredictor(), rows, "hog")
    print(
        f"HOG's boxes scattered so: median {np.median(values):.4f}  mean {values.mean():.4f}  over {len(values)} faces"
    )


if __name__ == "__main__":
    main()
