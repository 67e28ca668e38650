"""Puts new faces into frames: align, swap, colour, blend, a batch of frames at a time.

    faces of a batch ──► crops ──► in light that the net knows ──► what is in front of them taken off ──► net ──► in the
    frame's light ──► colour ──► detail ──► grain ──► blend into the frame's own rectangle, behind what is in front

A face that cannot be painted is left as it is, and its frame says why; other faces of that frame are painted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import Affine, compose, crop_affine, invert, transform, warp
from facemill.swap.blend import blend_method
from facemill.swap.colour import colour_method
from facemill.swap.detail.drawn import drawn_shapes
from facemill.swap.detail.from_exemplars import FrameChoice
from facemill.swap.detail.methods import DetailNeeds, DrawnFace, detail_method
from facemill.swap.detail.tracks import TrackChoice, choose_for_tracks
from facemill.swap.edge import toned
from facemill.swap.grain import grained, wider
from facemill.swap.light import KnownLight, Light, OneTone
from facemill.swap.mask import face_mask
from facemill.swap.occlusion.methods import FaceView, InFront, OcclusionNeeds, occlusion_method
from facemill.swap.outline import covering, outline_of, seen_jaw, stretched
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.track.table import TrackedFiles
from facemill.video import Frame

MASK_PX = 160  # side of the mask over the crop: fine enough for a face of 1,000 px once it is softened
MIN_WEIGHT = 1 / 255
JAW_FEATHER = 0.4  # of convert.feather: how wide the edge of detail is at a jaw that lies on the old one


@dataclass(frozen=True)
class WantedFace:
    """A face that is to be replaced.

    Attributes:
        identity: whose face it is.
        landmarks: (68, 2) in pixels of the frame.
        strength: how much of the new face is seen, 0…1: it fades where the face is about to be lost.
        detail: the exemplars that lend it their detail.
    """

    identity: str
    landmarks: npt.NDArray[Any]
    strength: float = 1.0
    detail: FrameChoice | None = None


@dataclass(frozen=True)
class FacesOfFrame:
    """A frame with everybody in it who is to be replaced; `error`: why it could not be looked at."""

    frame: Frame
    faces: tuple[WantedFace, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Painted:
    """What was done to one frame: whose faces were replaced, and the first reason why one was left as it is."""

    swapped: tuple[str, ...]
    failure: str | None = None

    @property
    def state(self) -> str:
        """`swapped` if any face was, else `failed` if one should have been, else `passed`."""
        if self.swapped:
            return "swapped"
        return "failed" if self.failure else "passed"


class FacePainter:
    """Puts new faces into frames, a batch at a time."""

    def __init__(self, swapper: Swapper, settings: SwapSettings) -> None:
        self._swapper = swapper
        self._feather = settings.feather
        self._colour = colour_method(settings.colour)
        self._blend = blend_method(settings.blend)
        self._lights = {
            name: KnownLight(swapper.exemplars.get(name), swapper.input_px, swapper.coverage)
            for name in swapper.becomes
        }
        self._shapes = drawn_shapes(swapper.becomes, swapper.exemplars)
        needs = DetailNeeds(swapper.becomes, swapper.coverage, settings.sharpen, swapper.exemplars)
        self._detail = detail_method(settings.detail, needs)
        looking = OcclusionNeeds(tuple(swapper.becomes), swapper.coverage, swapper.exemplars, swapper.redraw)
        self._occlusion = occlusion_method(settings.occlusion, looking, settings.occlusion_options)

    def choose(self, files: TrackedFiles, wanted: Mapping[int, str], pixel_ratio: float) -> dict[int, TrackChoice]:
        """Which exemplars the frames of a video take, by track, as `choose_for_tracks` has it."""
        return choose_for_tracks(files, wanted, self._swapper.becomes, self._swapper.exemplars, pixel_ratio)

    def notes(self) -> list[str]:
        """What a person should know of faces that this one paints."""
        return [*self._detail.notes(), *self._occlusion.notes()]

    def paint(self, batch: Sequence[FacesOfFrame]) -> list[Painted]:
        """Changes the frames in place. In one frame small faces come first: the nearer to the camera, the later."""
        failures = [[each.error] if each.error else [] for each in batch]
        swapped: list[list[str]] = [[] for _ in batch]
        places: list[_Place] = []
        for index, each in enumerate(batch):
            for face in sorted(each.faces, key=_height):
                try:
                    place = _Place.of(index, each.frame, face, self._swapper, self._lights[face.identity])
                except (ValueError, cv2.error) as error:
                    failures[index].append(type(error).__name__)
                    continue
                if place:  # else the face is in the dark, and cannot be told from it
                    places.append(place)
        places = [
            replace(place, in_front=in_front, crop=in_front.crop) if in_front else place
            for place, in_front in zip(places, self._occlusion.find([place.view() for place in places]), strict=True)
        ]
        for place, drawn in zip(places, self._faces(places), strict=True):
            frame = batch[place.index].frame
            try:
                self._set_in(place, frame, drawn, painted_before=bool(swapped[place.index]))
                swapped[place.index].append(place.face.identity)
            except _FaceError as error:
                failures[place.index].append(str(error))
        return [
            Painted(tuple(dict.fromkeys(names)), reasons[0] if reasons else None)
            for names, reasons in zip(swapped, failures, strict=True)
        ]

    def _faces(self, places: list[_Place]) -> list[npt.NDArray[np.float32] | str | None]:
        """The net's answers; where the batch fails, each face alone, so that one does not cost its neighbours."""
        try:
            return list(self._swapper.swap([place.crop for place in places], [place.face.identity for place in places]))
        except RuntimeError as error:
            if len(places) <= 1:
                return [type(error).__name__] * len(places)
            return [self._faces([place])[0] for place in places]

    def _set_in(
        self, place: _Place, frame: Frame, face: npt.NDArray[np.float32] | str | None, *, painted_before: bool
    ) -> None:
        """Blends a face into its frame. Raises _FaceError where that cannot be done; the frame is then as it was."""
        if not isinstance(face, np.ndarray):
            raise _FaceError(face or "not_finite")
        try:
            # what another face was painted over is no longer as the crop saw it
            x, y = place.origin
            size = (place.region.shape[1], place.region.shape[0])
            ground = frame.region((x, y, x + size[0], y + size[1]))[0] if painted_before else place.region
            drawn, mask = self._fitted(place, place.light.back(face), ground)
            face = self._detail.in_crop(drawn)
            weight = _warped_back(mask, place.affine_to(MASK_PX), size, cv2.INTER_LINEAR)
            weight *= np.float32(place.face.strength)
            weight = np.where(weight < MIN_WEIGHT, np.float32(0), weight)
            # cubic: the crop is usually coarser than the frame, and linear would show its grid
            new = np.clip(_warped_back(face, drawn.affine, size, cv2.INTER_CUBIC), 0.0, 1.0)
            new = self._detail.in_frame(drawn, new, ground, weight)
            new = grained(new, ground, weight, frame.region(wider(x, y, *size))[0])
            frame.paste(self._blend(ground, new, weight), place.origin, weight > 0)
        except (ValueError, cv2.error) as error:
            raise _FaceError(type(error).__name__) from error

    def _fitted(
        self, place: _Place, face: npt.NDArray[np.float32], ground: npt.NDArray[np.uint8]
    ) -> tuple[DrawnFace, npt.NDArray[np.float32]]:
        """A drawing in the frame's colours, as wide as the old face where it is known how wide it was drawn, and its
        mask at `MASK_PX`. `ground`: (h, w, 3), what the frame shows in the face's rectangle."""
        old_points = place.landmarks_in(len(face))
        points, covered, jaw_feather = old_points, old_points, None
        net_px, shape = len(face), self._shapes.get(place.face.identity)
        if shape:
            drawn = shape(old_points, net_px, self._swapper.coverage)
            # a hand at a jaw does not end it
            shown = place.as_in_frame() if place.in_front else warp(ground, place.affine, net_px)
            old_points = seen_jaw(shown, old_points)
            points = outline_of(old_points, drawn)
            face = stretched(face, drawn, points, self._swapper.coverage)
            covered, jaw_feather = covering(points, old_points), JAW_FEATHER * self._feather
        old = warp(ground, place.affine_to(len(face)), len(face)).astype(np.float32) / 255.0
        mask_points = _at(covered, net_px, MASK_PX)
        uncovered = np.float32(1) - place.in_front.hidden if place.in_front else np.float32(1)
        mask = face_mask(mask_points, MASK_PX, self._feather, jaw_feather) * uncovered
        small = _resized(mask, len(face))
        if shape:
            wide = _resized(face_mask(mask_points, MASK_PX, self._feather), len(face))
            skin = _resized(face_mask(_at(old_points, net_px, MASK_PX), MASK_PX, 0.02) * uncovered, len(face))
            face = toned(self._colour(face, old, np.minimum(wide, skin)), old, wide, small, skin)
        else:
            face = self._colour(face, old, small)
        if place.tone:
            face = place.tone.of_brightness(face)
        fitted = DrawnFace(
            replaced=place.face.identity,
            face=face,
            old=old,
            mask=small,
            landmarks=_at(points, net_px, len(face)),
            affine=place.affine_to(len(face)),
            choice=place.face.detail,
            net_pixel=len(face) / net_px,
        )
        return fitted, mask


class _FaceError(Exception):
    """Why a face was left as it is, in a word."""


@dataclass(frozen=True)
class _Place:
    """Where a face is: its rectangle in the frame, its crop, and the affine from the rectangle to the crop."""

    index: int  # of its frame in the batch
    face: WantedFace
    region: npt.NDArray[np.uint8]
    origin: tuple[int, int]
    affine: Affine
    crop: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[Any]  # in the rectangle
    light: Light  # how `crop` was brought to light that the net knows
    tone: OneTone | None  # of a film in black and white, sepia, …
    in_front: InFront | None = None

    @classmethod
    def of(cls, index: int, frame: Frame, face: WantedFace, swapper: Swapper, known: KnownLight) -> _Place | None:
        """Raises ValueError where the face lies outside the picture. None: it is black there."""
        side = swapper.input_px
        # faces are upright in square pixels, whatever the frame's are
        square = np.array([[frame.pixel_ratio, 0.0, 0.0], [0.0, 1.0, 0.0]])
        affine = compose(crop_affine(transform(face.landmarks, square), side, swapper.coverage), square)
        corners = transform(np.array([[0, 0], [side, 0], [0, side], [side, side]]) - 0.5, invert(affine))
        low, high = corners.min(axis=0), corners.max(axis=0)
        region, (*origin, _, _) = frame.region((low[0], low[1], high[0] + 1, high[1] + 1))
        if region.size == 0:
            raise ValueError("the face lies outside the picture")
        shifted = compose(affine, np.array([[1.0, 0.0, origin[0]], [0.0, 1.0, origin[1]]]))
        crop = warp(region, shifted, side)
        light = known.light_of(crop)
        if light is None:
            return None
        landmarks = face.landmarks - np.asarray(origin)
        tone = OneTone.of(crop)
        return cls(index, face, region, (origin[0], origin[1]), shifted, light.known(crop), landmarks, light, tone)

    def view(self) -> FaceView:
        """What is looked at for what lies in front."""
        fine = self.light.known(warp(self.region, self.affine_to(MASK_PX), MASK_PX))
        landmarks = self.landmarks_in(len(self.crop))
        one_tone, relit = self.tone is not None, not self.light.is_unchanged
        return FaceView(self.face.identity, self.crop, fine, landmarks, one_tone=one_tone, relit=relit)

    def as_in_frame(self) -> npt.NDArray[np.uint8]:
        """(P, P, 3) RGB uint8: what the net is shown, what lies in front taken off, in the light that the frame has."""
        return np.asarray(np.rint(255 * self.light.back(self.crop.astype(np.float32) / np.float32(255))), np.uint8)

    def affine_to(self, side_px: int) -> Affine:
        """From the rectangle to the same crop with another side (pixel centres at integers)."""
        zoom = side_px / self.crop.shape[0]
        shift = (zoom - 1) / 2
        return compose(np.array([[zoom, 0.0, shift], [0.0, zoom, shift]]), self.affine)

    def landmarks_in(self, side_px: int) -> npt.NDArray[Any]:
        return transform(self.landmarks, self.affine_to(side_px))


def _at(points: npt.NDArray[Any], side_px: int, other_px: int) -> npt.NDArray[np.float64]:
    """Points of a square of that side in the same square of another side (pixel centres at integers)."""
    moved: npt.NDArray[np.float64] = (np.asarray(points, np.float64) + 0.5) * (other_px / side_px) - 0.5
    return moved


def _resized(picture: npt.NDArray[Any], side_px: int) -> npt.NDArray[Any]:
    """A square picture with another side."""
    if len(picture) == side_px:
        return picture
    how = cv2.INTER_AREA if side_px < len(picture) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=how))


def _height(face: WantedFace) -> float:
    return float(np.ptp(face.landmarks[:, 1]))


def _warped_back(
    picture: npt.NDArray[Any], affine: Affine, size_wh: tuple[int, int], how: int
) -> npt.NDArray[np.float32]:
    warped = cv2.warpAffine(picture, affine, size_wh, flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(warped, np.float32)
