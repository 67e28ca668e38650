"""How good a swap is, measured on pairs of frames: the original and what was made of it.

Four questions, four numbers. Whose face is it now: the distance of its embedding to the references of both
identities, the replaced and the new one, before and after (`facemill.identity`). Is the expression kept: how far the 68
landmarks moved, over the distance of the outer eye corners. Does it tremble: how much more it changes from frame to
frame than the original's. Was the rest left alone: PSNR outside the masks.

Nothing is dropped silently: a frame whose original shows nobody who was to be replaced, or whose output shows no face
where one was, is a result too and is counted.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import crop_affine, head_pose, invert, transform
from facemill.boxes import around, cut_around
from facemill.detect import Detector
from facemill.embeddings import DIMENSIONS, SAME_PERSON
from facemill.identity import Embedder
from facemill.landmarks import LandmarkPredictor, landmark_box, look_again
from facemill.measures import change, flicker, landmark_error, nearest, psnr_db, spread
from facemill.media import open_media
from facemill.pictures import RGB
from facemill.quality import is_seen, visibility
from facemill.swap.mask import face_mask
from facemill.swap.outline import MOST_BEYOND
from facemill.video import Frame

CHANGED = 5.0
"""Change from which a frame counts as changed on purpose where it is not known how many were: encoding noise, which
averages out over a block, stays under 3.5 on six kinds of footage at CRF 18."""
_MASK_PX = 256
SPAN_FRAMES = 3000
"""Swapped frames are looked for in so many first frames of a video, so that a report of long films ends."""


@dataclass(frozen=True)
class PairMeasures:
    """One face in a pair of frames.

    Distances are Euclidean between embeddings, to the nearest reference of the identity that is named.
    """

    replaced_before: float
    """To the identity that is replaced, in the original; the same person is under `SAME_PERSON`."""
    new_before: float
    """To the identity whose face is put there, in the original."""
    replaced_after: float
    """To the identity that is replaced, in the output."""
    new_after: float
    """To the identity whose face is put there, in the output."""
    landmark_error: float | None
    """Mean distance of the 68 points between input and output, % of the distance of the outer eye corners; None where
    the original's face is hidden, out of the picture or past profile, so that its points mean little (`is_seen`)."""
    psnr_outside_db: float
    """Of everything outside the masks of all faces that are replaced; `PSNR_CAP_DB` where nothing differs."""
    flicker: float | None = None
    """See `flicker`; None where a neighbouring frame was missing."""


@dataclass(frozen=True)
class MeasuredFrame:
    """One face in a pair of frames: `measures` is None where `problem` says what was missing.

    replaced: whose face it was; None where nobody who was to be replaced is in the original.
    """

    replaced: str | None
    index: int
    time_s: float
    before: RGB
    after: RGB
    box_xyxy: tuple[float, float, float, float] | None
    measures: PairMeasures | None
    problem: str | None = None

    def face_in(self, picture: RGB, margin: float = 1.9) -> RGB:
        """The face's surroundings, see `facemill.boxes.around`, in `before`, `after` or what else shows this frame; the
        whole of it where no face is known."""
        whole = picture if self.box_xyxy is None else cut_around(picture, self.box_xyxy, margin)
        return np.ascontiguousarray(whole)


@dataclass(frozen=True)
class SwapSummary:
    """Medians over the measured faces of one video or of all."""

    frames: int = 0
    """Measured: a frame with two faces that were replaced counts twice."""
    no_replaced_face: int = 0
    """Frames whose original shows nobody who was to be replaced, as this meter sees it."""
    no_output_face: int = 0
    """Frames whose output shows no face where one was."""
    hidden: int = 0
    """Measured faces without a landmark error, since too little of the original's is to be seen."""
    medians: dict[str, float] = field(default_factory=dict)
    """By the names of `PairMeasures`; without those of which no frame has a value."""
    closer_to_new: int = 0
    """Frames whose output face is nearer to the new identity than to the replaced one."""

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain values, rounded, for JSON."""
        return {
            "frames": self.frames,
            NO_REPLACED_FACE: self.no_replaced_face,
            NO_OUTPUT_FACE: self.no_output_face,
            "hidden": self.hidden,
            "closer_to_new": self.closer_to_new,
            **{name: round(value, 4) for name, value in self.medians.items()},
        }


NO_REPLACED_FACE, NO_OUTPUT_FACE = "no_replaced_face", "no_output_face"


class SwapMeter:
    """Measures pairs of frames. Loads its nets once."""

    def __init__(
        self,
        detector: Detector,
        predictor: LandmarkPredictor,
        becomes: Mapping[str, str],
        references: Mapping[str, npt.NDArray[Any]],
        *,
        coverage: float,
        identity_distance: float = SAME_PERSON,
    ) -> None:
        """
        Args:
            detector: finds the faces in both pictures.
            predictor: of their landmarks.
            becomes: the identity that is replaced → the identity whose face is put there.
            references: N×128 embeddings of each of these identities.
            coverage: of the square that the net draws, as `facemill.align.crop_affine` has it.
            identity_distance: how far from its references the replaced identity's face may be in the original.
        """
        self._detector = detector
        self._becomes = dict(becomes)
        self._references = {
            identity: _checked(identity, references[identity]) for identity in {*becomes, *becomes.values()}
        }
        self._coverage = coverage
        self._limit = identity_distance
        self._predictor = predictor
        self._embedder = Embedder()

    def measure(
        self, index: int, before: Frame, after: Frame, beside: Sequence[tuple[Frame, Frame]] = ()
    ) -> list[MeasuredFrame]:
        """Measures one pair of frames of one size.

        Args:
            beside: the pairs before and behind it, for the flicker.

        Returns:
            One entry for each face that was to be replaced; a single one with a problem where there is none.
        """
        original, converted = before.rgb, after.rgb
        people = self._replaced_faces(original)
        if not people:
            return [MeasuredFrame(None, index, before.time_s, original, converted, None, None, NO_REPLACED_FACE)]
        insides = {name: mask_region(points, original.shape, self._coverage) for name, points in people.items()}
        psnr_outside_db = psnr_db(original, converted, ~np.any([*insides.values()], axis=0))
        measured = []
        for name, points in people.items():
            x0, y0, x1, y1 = (float(v) for v in landmark_box(points[None])[0])
            made = self._output_face(converted, points)
            measures = None
            if made is not None:
                was = self._embedder.embed(original, points[None])[0]
                is_now = self._embedder.embed(converted, made[None])[0]
                replaced, new = self._references[name], self._references[self._becomes[name]]
                measures = PairMeasures(
                    replaced_before=nearest(was, replaced),
                    new_before=nearest(was, new),
                    replaced_after=nearest(is_now, replaced),
                    new_after=nearest(is_now, new),
                    landmark_error=landmark_error(points, made) if self._is_seen(original, points) else None,
                    psnr_outside_db=psnr_outside_db,
                    flicker=_flicker((before, after), beside, insides[name]) if len(beside) == 2 else None,
                )
            problem = NO_OUTPUT_FACE if measures is None else None
            box = (x0, y0, x1, y1)
            measured.append(MeasuredFrame(name, index, before.time_s, original, converted, box, measures, problem))
        return measured

    def _replaced_faces(self, picture: RGB) -> dict[str, npt.NDArray[np.float32]]:
        """68×2 landmarks of each identity that is replaced and in the picture.

        A face is that of the nearest of them; the largest one counts where there are several, as in the converter.
        """
        found: dict[str, npt.NDArray[np.float32]] = {}
        points = self._faces(picture)
        for one, embedding in zip(points, self._embedder.embed(picture, points), strict=True):
            distances = {name: nearest(embedding, self._references[name]) for name in self._becomes}
            name = min(distances, key=lambda name: distances[name])
            larger = name not in found or np.ptp(one[:, 1]) > np.ptp(found[name][:, 1])
            if distances[name] <= self._limit and larger:
                found[name] = one
        return {name: found[name] for name in self._becomes if name in found}

    def _is_seen(self, picture: RGB, points: npt.NDArray[np.float32]) -> bool:
        """Whether the landmarks (68, 2) of a face can be compared with others."""
        try:
            yaw = head_pose(points)[0]
        except ValueError:  # all points in one place or on a line
            return False
        visible = visibility(points[None], np.array([yaw]), np.array(picture.shape[1::-1]))[0]
        _, doubt, presence = look_again(self._predictor, picture, points[None])
        return is_seen(float(visible), float(doubt[0]), None if np.isnan(presence[0]) else float(presence[0]))

    def _output_face(self, picture: RGB, expected: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """68×2 landmarks of the face at the place of the expected one. Only the surroundings are searched."""
        left, top, right, bottom = around(picture.shape, landmark_box(expected[None])[0].tolist(), margin=2.5)
        points = self._faces(np.ascontiguousarray(picture[top:bottom, left:right]))
        if not len(points):
            return None
        points = points + np.array([left, top], np.float32)
        errors = [landmark_error(expected, found) for found in points]
        best = int(np.argmin(errors))
        return points[best] if errors[best] < 100.0 else None  # farther than the eyes are apart: another face

    def _faces(self, picture: RGB) -> npt.NDArray[np.float32]:
        faces = self._detector.detect([picture])[0]
        convention = self._detector.box_convention
        return self._predictor.predict(picture, faces.boxes_xyxy, convention, points5=faces.points5)


def measure_video(
    meter: SwapMeter, original: Path, converted: Path, count: int, swapped: int | None = None
) -> list[MeasuredFrame]:
    """Measures up to `count` frames, spread evenly over those that were swapped (`swapped` many, where that is known).

    Returns:
        One entry for each face in these frames that was to be replaced, at least one for each frame, in their order.

    Raises:
        InputError: one of the two videos cannot be read.
    """
    chosen = set(spread(changed_frames(original, converted, swapped), count))
    measured: list[MeasuredFrame] = []
    recent = deque[tuple[Frame, Frame]](maxlen=3)
    end = max(chosen, default=-1) + 1
    pairs = ((before, after) for _, before, after in _pairs(original, converted, end + 1))
    for index, pair in enumerate(itertools.chain(pairs, [None]), start=-1):  # `index` is that of the pair before
        if index in chosen:
            beside = [recent[-2], pair] if pair and len(recent) > 1 else []
            measured += meter.measure(index, *recent[-1], beside)
        if pair is None or index + 1 == end:
            break
        recent.append(pair)
    return measured


def changed_frames(original: Path, converted: Path, swapped: int | None = None, limit: int = SPAN_FRAMES) -> list[int]:
    """Indices of the frames, among the first `limit`, that differ by more than a new encoding explains.

    Args:
        swapped: how many there are in the whole video, where that is known. If all of it is looked at, these are the
            frames that differ most; otherwise a fixed threshold decides.
    """
    changes = [change(before.luma, after.luma) for _, before, after in _pairs(original, converted, limit)]
    if swapped is None or len(changes) == limit:
        return [index for index, value in enumerate(changes) if value > CHANGED]
    most = sorted(range(len(changes)), key=lambda index: -changes[index])
    return sorted(most[:swapped])


def summarize(frames: Sequence[MeasuredFrame]) -> SwapSummary:
    """How many frames were measured, and the medians of their measures."""
    measured = [frame.measures for frame in frames if frame.measures is not None]
    names = [one.name for one in fields(PairMeasures)]
    return SwapSummary(
        frames=len(measured),
        no_replaced_face=sum(frame.problem == NO_REPLACED_FACE for frame in frames),
        no_output_face=sum(frame.problem == NO_OUTPUT_FACE for frame in frames),
        hidden=sum(one.landmark_error is None for one in measured),
        medians={name: float(median(values)) for name in names if (values := _known(measured, name))},
        closer_to_new=sum(one.new_after < one.replaced_after for one in measured),
    )


def mask_region(
    landmarks: npt.NDArray[Any], shape: tuple[int, ...], coverage: float, margin: float = 0.05 + MOST_BEYOND
) -> npt.NDArray[np.bool_]:
    """H×W: where a swap of the face of 68×2 landmarks may change the picture: its mask, a little wider.

    Args:
        coverage: of the net's square, beyond which no mask reaches.
        margin: how much wider, over the height of the landmarks' box: the converter's landmarks are smoothed over time
            and differ slightly from those of a single frame, encoders spread a change over neighbouring pixels, and a
            new chin may lie below the old one.
    """
    affine = crop_affine(landmarks, _MASK_PX, coverage)
    mask = (face_mask(transform(landmarks, affine), _MASK_PX, 0.0) > 0).astype(np.uint8)
    placed = cv2.warpAffine(mask, invert(affine), (shape[1], shape[0]), flags=cv2.INTER_NEAREST)
    grow = max(1, round(margin * float(np.ptp(landmarks[:, 1]))))
    wider = cv2.dilate(placed, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1)))
    return np.asarray(wider, bool)


def _flicker(pair: tuple[Frame, Frame], beside: Sequence[tuple[Frame, Frame]], inside: npt.NDArray[np.bool_]) -> float:
    before, after = zip(beside[0], pair, beside[1], strict=True)
    return flicker([frame.luma for frame in before], [frame.luma for frame in after], inside)


def _known(measured: Sequence[PairMeasures], name: str) -> list[float]:
    return [value for one in measured if (value := getattr(one, name)) is not None]


def _pairs(original: Path, converted: Path, limit: int) -> Iterator[tuple[int, Frame, Frame]]:
    """Frames side by side: a conversion writes one frame for each that it reads, in the same order."""
    with open_media(original) as originals, open_media(converted) as results:
        pairs = zip(originals, results, strict=False)
        for index, (before, after) in enumerate(itertools.islice(pairs, limit)):
            yield index, before, after


def _checked(name: str, embeddings: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    array = np.asarray(embeddings, np.float64)
    if array.ndim != 2 or array.shape[1] != DIMENSIONS or not len(array):
        raise ValueError(f"references of {name}: expected N×{DIMENSIONS} with N ≥ 1, got {array.shape}")
    return array
