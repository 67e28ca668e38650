"""Faces in the light that a net knows: it was trained on so many pictures, and draws what they show.

In a film that is darker, paler or of another colour than all of them it draws anything but the face. Light that falls
evenly, a lamp's colour, a fade, haze and the stock of a film are a factor and a shift of each colour. So a face in
light that no picture of the person shows is brought to the nearest that one shows, and what is drawn is brought back:

    crop ──► × factor + shift, where its light lies outside that of the pictures ──► net ──► − shift, / factor

Light is told by a face's pixels beside those of the person's usual face: each colour is a line over the usual one. Only
the half of the pixels that lies nearest to the line counts, so that a hand over a third of the face is no light; and
where light within that of the pictures explains the face nearly as well, nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import crop_affine, crop_points, resized, warp
from facemill.pictures import RGB
from facemill.swap.detail.exemplars import Exemplars
from facemill.swap.mask import face_mask

Colours = npt.NDArray[np.float32]  # red, green and blue along the last axis, 0…255

BRIGHTEST = 98.0
"""Percentile that stands for the bright parts of a face: a reflex in an eye is no light on it."""
BLACK = 12.0
"""Bright parts under this are noise and no face, and nobody sees what is drawn there."""
DIM = 90.0
"""Where no pictures say what the net knows, bright parts under this are lifted to it."""
RARE = 0.05
"""Share of the pictures that lie beyond either end of what counts as their light."""
LEAST_FACTOR, MOST_FACTOR = 0.5, 8.0
"""Of a colour. More would show noise, and what the encoder left of a colour that the light lacks."""
SURE, DOUBTFUL = 0.5, 0.75
"""How far pixels lie from a face's own light, over how far from the nearest light of the pictures: up to the first the
light is another one, from the second on it is a turned head or a thing in front (`benchmarks/light.py` has figures)."""
ONE_TONE = 0.06
"""How far colours may lie beside a line, over how far they spread. Sepia in 8 bits has 0.02, a face in colour 0.13."""
MEASURED_PX = 32
"""Side of the square in which light is told, if the net's is not smaller."""
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
_LEAST_SPREAD = 0.02  # of a crop's green: in less there is nothing but rounding
_FAR = 20.0  # difference of two pixels of the usual face from which on their ratio says something
_EVERY_PAIR = 499  # of pixels is looked at: a prime, so that they are spread over the face
_ROUNDS = 3  # of a line through the nearest half of the pixels
_MOST_PICTURES = 32  # that are measured: a few milliseconds each


@dataclass(frozen=True)
class Light:
    """How a crop was brought to light that a net knows.

    Attributes:
        factor, shift: (3,) float32: the net is shown the crop's colours, 0…255, times the one and plus the other.
    """

    factor: Colours
    shift: Colours

    def known(self, crop: RGB) -> RGB:
        """What the net is shown: (H, W, 3) RGB uint8, as the crop."""
        if self.is_unchanged:
            return crop
        return np.asarray(np.clip(crop * self.factor + self.shift + np.float32(0.5), 0, 255), np.uint8)

    def back(self, drawn: Colours) -> Colours:
        """A drawing of what the net was shown, (H, W, 3) RGB float32 in 0…1, in the crop's own light."""
        if self.is_unchanged:
            return drawn
        return np.clip((drawn - self.shift / np.float32(255)) / self.factor, 0, 1)

    @property
    def is_unchanged(self) -> bool:
        """Whether the net is shown the crop as it is."""
        return bool((self.factor == 1).all() and not self.shift.any())


@dataclass(frozen=True)
class OneTone:
    """The colours of a film in black and white, in sepia, under a single filter: all lie on one line.

    Attributes:
        start, way: (3,) float32: RGB in 0…1 is start + t · way.
    """

    start: Colours
    way: Colours

    @classmethod
    def of(cls, crop: RGB) -> OneTone | None:
        """The tone of (H, W, 3) RGB uint8; None where there are more colours than one, or nothing to tell by."""
        pixels = crop.reshape(-1, 3).astype(np.float32) / np.float32(255)
        start = pixels.mean(axis=0)
        away = pixels - start
        green = away[:, 1]
        spread = float(green @ green)
        if spread < len(pixels) * _LEAST_SPREAD**2:
            return None
        way = green @ away / np.float32(spread)
        beside = away - green[:, None] * way
        if (np.square(beside).sum(axis=0) > ONE_TONE**2 * np.square(away).sum(axis=0)).any():
            return None
        if (way < 0).any():  # where a colour falls as another rises, brightness does not say how far along the line
            return None
        return cls(start, way)

    def of_brightness(self, face: Colours) -> Colours:
        """(H, W, 3) RGB in 0…1 in this tone, as bright as it was."""
        t = (face - self.start) @ _BRIGHTNESS / (self.way @ _BRIGHTNESS)
        return np.clip(self.start + t[..., None] * self.way, 0, 1)


class KnownLight:
    """The light in which a net knows a person."""

    def __init__(self, exemplars: Exemplars | None, input_px: int, coverage: float) -> None:
        """
        Args:
            exemplars: pictures of the person, as they travel with the model. Without any, faces are lifted out of the
                dark and that is all.
            input_px: side of the square that the net sees.
            coverage: of that square, see `facemill.align`.
        """
        self._pictures = _Pictures(exemplars, min(input_px, MEASURED_PX), coverage) if exemplars else None

    def light_of(self, crop: RGB) -> Light | None:
        """How a face is brought to known light.

        Args:
            crop: (P, P, 3) RGB uint8, aligned, as the net sees it.

        Returns:
            None where it is black.
        """
        bright = float(np.percentile(np.maximum.reduce(cv2.split(crop)), BRIGHTEST))
        if bright < BLACK:
            return None
        if self._pictures is not None:
            return self._pictures.nearest(crop)
        return Light(np.full(3, max(1.0, DIM / bright), np.float32), np.zeros(3, np.float32))


class _Pictures:
    """The light of a person's pictures: from which to which level and contrast each colour goes."""

    def __init__(self, exemplars: Exemplars, side_px: int, coverage: float) -> None:
        self._side_px = side_px
        self._inside = face_mask(crop_points(side_px, coverage), side_px, 0.0) > 0.5
        faces = []
        for number in range(0, len(exemplars), -(-len(exemplars) // _MOST_PICTURES)):
            affine = crop_affine(exemplars.landmarks[number], side_px, coverage)
            faces.append(self._pixels(warp(exemplars.crop(number), affine, side_px)))
        usual: Colours = np.mean(faces, axis=0, dtype=np.float32)
        self._usual = usual - np.median(usual, axis=1, keepdims=True)  # (3, K)
        count = usual.shape[1]
        one, other = np.divmod(np.arange(0, count**2, _EVERY_PAIR), count)
        far = (np.abs(self._usual[:, one] - self._usual[:, other]) > _FAR).all(axis=0)
        self._pairs = one[far], other[far]
        measured = [self._measured(face) for face in faces]
        self._range = np.asarray(np.quantile(measured, (RARE, 1 - RARE), axis=0), np.float32)  # (2, 2, 3, 1)

    def nearest(self, crop: RGB) -> Light:
        """What brings a crop to the nearest light of the pictures."""
        face = self._pixels(crop)
        own = self._measured(face)
        (least, least_contrast), (most, most_contrast) = self._range
        level, contrast = own
        factor = np.clip(contrast, least_contrast, most_contrast) / np.maximum(contrast, 1e-3)
        factor = np.clip(factor, LEAST_FACTOR, MOST_FACTOR)
        shift = np.clip(factor * level, least, most) - factor * level
        pictures = np.clip(own, *self._range)
        doubt = _nearer_half(self._away(face, own)) / max(_nearer_half(self._away(face, pictures)), 1.0)
        sure = float(np.clip((DOUBTFUL - doubt) / (DOUBTFUL - SURE), 0, 1))
        return Light(np.asarray(factor**sure, np.float32).ravel(), np.asarray(shift * sure, np.float32).ravel())

    def _pixels(self, crop: RGB) -> Colours:
        """(3, K) float32 in 0…255: red, green and blue of the pixels inside the face of an aligned crop."""
        small = crop if len(crop) == self._side_px else resized(crop, (self._side_px, self._side_px))
        return np.ascontiguousarray(small[self._inside].T, np.float32)

    def _measured(self, face: Colours) -> Colours:
        """(2, 3, 1): level and contrast of each colour of a face, (3, K): it is level + contrast · usual.

        The line is drawn at first by what most pairs of pixels say (Theil–Sen), then as that of least squares through
        the half of the pixels that is nearest to the line before (least trimmed squares).
        """
        one, other = self._pairs
        slopes = (face[:, one] - face[:, other]) / (self._usual[:, one] - self._usual[:, other])
        contrast = np.median(slopes, axis=1, keepdims=True) if len(one) else np.ones((3, 1), np.float32)
        level = np.median(face - contrast * self._usual, axis=1, keepdims=True)
        half = face.shape[1] // 2
        for _ in range(_ROUNDS):
            away = self._away(face, np.asarray([level, contrast], np.float32))
            near = np.argpartition(away, half)[:half]
            x, y = self._usual[:, near], face[:, near]
            middle_x, middle_y = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
            away_x = x - middle_x
            spread = np.maximum((away_x * away_x).sum(axis=1, keepdims=True), 1)
            contrast = (away_x * (y - middle_y)).sum(axis=1, keepdims=True) / spread
            level = middle_y - contrast * middle_x
        return np.asarray([level, contrast], np.float32)

    def _away(self, face: Colours, line: Colours) -> Colours:
        """(K,): how far each pixel lies from a line, (2, 3, 1) level and contrast."""
        level, contrast = line
        return np.asarray(np.abs(face - contrast * self._usual - level).sum(axis=0), np.float32)


def _nearer_half(away: Colours) -> float:
    half = len(away) // 2
    return float(np.partition(away, half)[:half].mean())
