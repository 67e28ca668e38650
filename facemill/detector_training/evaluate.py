"""How good a detector is: average precision as Pascal VOC and as WIDER FACE define it, and a run over a set.

The two differ in more than the name. VOC ranks all detections of the set and takes the area under the envelope of
precision over recall (or its mean at 11 recalls). WIDER FACE's tool first stretches the scores of the set to 0…1, reads
precision and recall at 1,000 thresholds, counts pictures without faces or without detections only in the number of
faces, and measures easy, medium and hard by lists of the faces that count; a detection on another face is neither right
nor wrong. Its boxes include their last pixel. Both are tested against values worked out by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from facemill.boxes import iou as overlaps
from facemill.detect import Detector, Faces
from facemill.detector_training.annotations import AnnotatedPicture
from facemill.errors import FacemillError, InputError
from facemill.pictures import decode

__all__ = [
    "SUBSET_HEIGHTS_PX",
    "Precision",
    "Report",
    "Subset",
    "average_precision",
    "evaluate",
    "subsets_by_height",
    "wider_average_precision",
]

SUBSET_HEIGHTS_PX = {"easy": 50.0, "medium": 30.0, "hard": 10.0}
"""Smallest height of a face that counts, where no official lists are at hand. WIDER FACE's own subsets come from how
many faces EdgeBox proposals reach; each contains the one before, and face height is what decides most of it."""
WIDER_THRESHOLDS = 1000
Array = npt.NDArray[Any]
Subset = list[npt.NDArray[np.bool_]]
"""For each picture (G,) which faces count."""


@dataclass(frozen=True)
class Precision:
    """A precision-recall curve and its area.

    ap: 0…1. recall_at_default: recall when every detection counts, as the detector gives them by default.
    precision, recall: (D,) float64 after each detection that counts, strongest first; scores: (D,) theirs.
    faces: how many there were to find.
    """

    ap: float
    recall_at_default: float
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    faces: int

    def at(self, score: float) -> tuple[float, float]:
        """Recall and precision when detections from this score on count; (0, 0) when there are none."""
        last = int((self.scores >= score).sum()) - 1
        return (float(self.recall[last]), float(self.precision[last])) if last >= 0 else (0.0, 0.0)


def average_precision(
    found: Sequence[Faces],
    truths: Sequence[AnnotatedPicture],
    iou: float = 0.5,
    min_side_px: float = 0,
    style: Literal["area", "voc11"] = "area",
) -> Precision:
    """VOC's average precision over a set.

    A detection belongs to the face that it overlaps most. With at least `iou` it is right, or wrong if a stronger one
    took that face already; with an ignored face, or one whose shorter side is under `min_side_px`, it is neither.

    Args:
        found: one for each picture.
        truths: the same pictures in the same order.
        iou: smallest overlap of a hit.
        min_side_px: smaller faces are ignored.
        style: "area" under the envelope (VOC 2010 on), or "voc11", its mean at recalls 0, 0.1 … 1 (VOC 2007).

    Raises:
        ValueError: the two differ in length, or the style is unknown.
    """
    if style not in ("area", "voc11"):
        raise ValueError(f"style must be 'area' or 'voc11', got {style!r}")
    scores, verdicts, total = [np.zeros(0)], [np.zeros(0, np.int8)], 0
    for faces, truth in zip(found, truths, strict=True):
        counts = ~truth.ignore & (truth.side_px >= min_side_px)
        total += int(counts.sum())
        scores.append(faces.scores.astype(np.float64))
        verdicts.append(_verdicts(faces, truth.boxes_xyxy, counts, iou))
    score, verdict = np.concatenate(scores), np.concatenate(verdicts)
    order = np.argsort(-score, kind="stable")
    order = order[verdict[order] != NEITHER]
    right = np.cumsum(verdict[order] == RIGHT)
    precision, recall = right / np.arange(1, len(right) + 1), right / max(total, 1)
    area = _eleven_points(precision, recall) if style == "voc11" else _area(precision, recall)
    return Precision(area, float(recall[-1]) if len(recall) else 0.0, precision, recall, score[order], total)


def wider_average_precision(found: Sequence[Faces], truths: Sequence[AnnotatedPicture], subset: Subset) -> float:
    """Average precision at IoU 0.5 over the faces that `subset` names, as WIDER FACE's evaluation tool computes it."""
    every = np.concatenate([np.zeros(0, np.float32), *(faces.scores for faces in found)]).astype(np.float64)
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    thresholds = 1 - np.arange(1, WIDER_THRESHOLDS + 1) / WIDER_THRESHOLDS
    proposals, hits, total = np.zeros(WIDER_THRESHOLDS), np.zeros(WIDER_THRESHOLDS), 0
    for faces, truth, counts in zip(found, truths, subset, strict=True):
        total += int(counts.sum())
        if not len(faces) or not len(counts):
            continue  # as the tool does: pictures without faces cannot make a detection wrong
        score = (faces.scores.astype(np.float64) - low) / max(high - low, 1e-12)
        order = np.argsort(-score, kind="stable")
        verdict = _wider_verdicts(faces[order].boxes_xyxy, truth.boxes_xyxy, counts)
        taken = np.searchsorted(-score[order], -thresholds, side="right")  # detections at or over each threshold
        proposals += np.append(0, np.cumsum(verdict != NEITHER))[taken]
        hits += np.append(0, np.cumsum(verdict == RIGHT))[taken]
    return _area(hits / np.maximum(proposals, 1), hits / max(total, 1))


def subsets_by_height(
    truths: Sequence[AnnotatedPicture], heights_px: Mapping[str, float] = SUBSET_HEIGHTS_PX
) -> dict[str, Subset]:
    """Easy, medium and hard for sets without official lists: faces of at least so many pixels height, none ignored."""
    tall = [truth.boxes_xyxy[:, 3] - truth.boxes_xyxy[:, 1] for truth in truths]
    return {
        name: [(height >= least) & ~truth.ignore for height, truth in zip(tall, truths, strict=True)]
        for name, least in heights_px.items()
    }


@dataclass(frozen=True)
class Report:
    """What a detector does on a set; `numbers` is flat, for a table or a curve."""

    numbers: dict[str, float]
    unreadable: tuple[str, ...]  # pictures that could not be decoded, left out on both sides

    def describe(self) -> str:
        """The report as one line for a person."""
        told = f"; {len(self.unreadable)} unreadable, first {self.unreadable[0]}" if self.unreadable else ""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items()) + told


def evaluate(
    detector: Detector,
    truths: Sequence[AnnotatedPicture],
    *,
    min_side_px: float = 16,
    batch: int = 8,
    subsets: Callable[[Sequence[AnnotatedPicture]], dict[str, Subset]] | None = None,
    threshold: float | None = None,
) -> Report:
    """Runs a detector over annotated pictures and measures it.

    Args:
        detector: any of `build_detector`.
        truths: the pictures; at most `batch` of them are in memory at a time.
        min_side_px: smaller faces are neither right nor wrong in `ap`, `ap11` and `recall`.
        batch: pictures that the detector gets at once.
        subsets: which faces are easy, medium and hard, such as `partial(official_subsets, folder)` of
            `facemill.detector_training.wider_lists`; without it those of `SUBSET_HEIGHTS_PX`.
        threshold: score from which on a detection counts in `recall` and `precision`, for detectors that were built
            with a lower one to get the whole curve; None: all count.

    Returns:
        numbers: ap, ap11, recall and precision (at the threshold), easy, medium, hard, faces, pictures, ms_per_picture
        (of detection, without reading files).

    Raises:
        FacemillError: not one picture could be read, or the subsets' lists do not fit.
    """
    found, kept, unreadable, seconds = list[Faces](), list[AnnotatedPicture](), list[str](), 0.0
    for first in range(0, len(truths), batch):
        pictures = []
        for truth in truths[first : first + batch]:
            try:
                pictures.append(decode(truth.path.read_bytes()))
                kept.append(truth)
            except (InputError, OSError) as error:
                unreadable.append(f"{truth.path.name}: {error}")
        start = time.perf_counter()
        found += detector.detect(pictures) if pictures else []
        seconds += time.perf_counter() - start
    if not kept:
        raise FacemillError(f"no picture to measure on could be read ({len(unreadable)} failed): {unreadable[:1]}")
    area = average_precision(found, kept, min_side_px=min_side_px)
    recall, precision = area.at(-np.inf if threshold is None else threshold)
    by_name = subsets_by_height(kept) if subsets is None else subsets(kept)
    numbers = {
        "ap": area.ap,
        "ap11": average_precision(found, kept, min_side_px=min_side_px, style="voc11").ap,
        "recall": recall,
        "precision": precision,
        **{name: wider_average_precision(found, kept, subset) for name, subset in by_name.items()},
        "faces": area.faces,
        "pictures": len(kept),
        "ms_per_picture": seconds / len(kept) * 1e3,
    }
    return Report(numbers, tuple(unreadable))


WRONG, RIGHT, NEITHER = 0, 1, 2


def _verdicts(faces: Faces, boxes: Array, counts: Array, iou: float) -> npt.NDArray[np.int8]:
    """VOC's verdict on each detection of one picture; counts: (G,) False for faces that are ignored."""
    verdicts, taken = np.full(len(faces), WRONG, np.int8), np.zeros(len(boxes), bool)
    if not len(boxes) or not len(faces):
        return verdicts
    shared = overlaps(faces.boxes_xyxy, boxes)
    for row in np.argsort(-faces.scores, kind="stable"):
        best = int(shared[row].argmax())
        if shared[row, best] < iou:
            continue
        verdicts[row] = NEITHER if not counts[best] else WRONG if taken[best] else RIGHT
        taken[best] = True
    return verdicts


def _wider_verdicts(found: Array, boxes: Array, counts: Array) -> npt.NDArray[np.int8]:
    """WIDER FACE's verdict on each detection of one picture, strongest first; a box includes its last pixel."""
    last = np.array([0, 0, 1, 1], np.float64)
    shared = overlaps(found + last, boxes + last)
    best = shared.argmax(axis=1)
    verdicts, taken = np.full(len(found), WRONG, np.int8), np.zeros(len(boxes), bool)
    for row in np.flatnonzero(shared.max(axis=1) >= 0.5):
        verdicts[row] = NEITHER if not counts[best[row]] else WRONG if taken[best[row]] else RIGHT
        taken[best[row]] = True
    return verdicts


def _area(precision: Array, recall: Array) -> float:
    """Area under the envelope: each recall gets the best precision at that recall or beyond."""
    if not len(precision):
        return 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.diff(recall, prepend=0.0) @ envelope)


def _eleven_points(precision: Array, recall: Array) -> float:
    """Mean over the recalls 0, 0.1 … 1 of the best precision at that recall or beyond."""
    best = [precision[recall >= at - 1e-12].max(initial=0.0) for at in np.linspace(0, 1, 11)]
    return float(np.mean(best))
