"""By how much a net's drawing of a person usually differs from them, told from the pictures that travel with a model.

Each exemplar lies beside the net's drawing of it, so that for each pixel of a face the usual difference is known: more
at a mouth that moves, less on a cheek. That holds for faces as the pictures show them. Turned further, with the mouth
open wider or in other light, a net draws worse without anything lying in front; so the further a face is from all
pictures, the more it may differ: by part, since a wide open mouth says nothing of the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import crop_affine, crop_points, warp
from facemill.swap.detail.exemplars import Exemplars, Points, features
from facemill.swap.detail.from_exemplars import region_weights
from facemill.swap.detail.mesh import GRID_PX
from facemill.swap.detail.path import REGIONS
from facemill.swap.light import OneTone
from facemill.swap.mask import face_mask
from facemill.swap.occlusion.methods import Picture

Mask = npt.NDArray[np.bool_]

BROAD = 2.0
"""Standard deviation, in 64ths of the square, of the blur by which a face is looked at broadly."""
BROAD_LEAST_PICTURES = 80
"""Exemplars, fewer of which do not tell what is usual well enough to look broadly: with 51 to 70 hardly more of a hand
was found so, and up to 0.04 of open faces."""
RARE = 0.05
"""Share of a person's pictures that are darker, lighter or of another hue: tones as rare as that are none that the net
knows."""
FAMILIAR = 0.9
"""Share of a person's pictures that have another one within some distance: a face that has one too is familiar."""
LEAST_REACH = 0.3
"""In units of `exemplars.features`, in which 1 shows: nearer than that is familiar however alike the pictures are."""
LIGHT_REACH = 10.0
"""In Lab: a face whose mean lies so far outside the pictures' tones is as unfamiliar as can be."""
MOST_UNFAMILIAR = 2.0
"""How many times the usual difference is allowed at most: a hand moves landmarks too, and has to be found still."""
MOST_TONE = 6.0
"""In Lab: how far the drawing's tone is brought to the frame's at most. What differs by more is no light."""
_MOST_PICTURES = 48  # from which the usual difference is told
_LAB_WEIGHTS = np.array([0.7, 1.0, 1.0], np.float32)
_FLOOR = 2.0  # in Lab: what nobody sees
_SAME_TONE = 0.35  # share of a face's pixels that agree about tone
_LOOKED_AT = {"rest": [0, 1], "eyes": [0, 1, 5, 6, 7], "mouth": [0, 1, 2, 3, 4]}  # columns of `exemplars.features`


@dataclass(frozen=True)
class Usual:
    """What is usual of one person, told from N of their pictures and the net's drawings of them.

    Attributes:
        fine: (P, P), the usual difference and somewhat more.
        broad: (P, P), the same of broad differences; None: there are too few pictures to tell.
        tones: (2, 3), the least and the largest mean of a face in Lab, without the rarest.
        shapes: (N, 8), `exemplars.features` of all pictures.
        reaches: for each of `path.REGIONS`, how far familiar faces lie from the nearest picture.
    """

    fine: Picture
    broad: Picture | None
    tones: Picture
    shapes: npt.NDArray[np.float64]
    reaches: tuple[float, ...]

    def knows(self, tone: Picture) -> bool:
        """Whether faces of this mean in Lab, (3,), are usual."""
        return bool((self.tones[0] <= tone).all() and (tone <= self.tones[1]).all())

    def lit_otherwise(self, tone: Picture) -> float:
        """1…MOST_UNFAMILIAR: how many times the usual difference a face of this mean in Lab, (3,), may have."""
        outside = float(np.maximum(self.tones[0] - tone, tone - self.tones[1]).max())
        return 1 + float(np.clip(outside / LIGHT_REACH, 0, 1)) * (MOST_UNFAMILIAR - 1)

    def shaped_otherwise(self, landmarks: npt.NDArray[Any], size: int) -> Picture:
        """(P, P) in 1…MOST_UNFAMILIAR: how many times the usual difference a face turned and moved like this may have.

        Args:
            landmarks: (68, 2) in pixels of the crop.
            size: P.
        """
        shape = features(np.asarray(landmarks)[None])[0]
        cells = (np.asarray(landmarks, np.float64) + 0.5) * GRID_PX / size - 0.5
        allowed = np.zeros((GRID_PX, GRID_PX), np.float32)
        for region, part, reach in zip(REGIONS, region_weights(cells), self.reaches, strict=True):
            columns = _LOOKED_AT[region]
            away = float(np.linalg.norm(self.shapes[:, columns] - shape[columns], axis=1).min())
            allowed += part * np.float32(np.clip(away / reach, 1.0, MOST_UNFAMILIAR))
        return np.asarray(cv2.resize(allowed, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def what_is_usual(exemplars: Exemplars, coverage: float) -> Usual:
    """By how much the net's drawings of a person's pictures differ from them as a rule, and in which tones and shapes
    they are.

    Args:
        exemplars: of that person; at least one.
        coverage: of the square that the net sees, see `facemill.align`.
    """
    found, tones = [], []
    for number in range(0, len(exemplars), max(1, len(exemplars) // _MOST_PICTURES)):
        drawn = exemplars.drawn[number].astype(np.float32) / np.float32(255)
        side = len(drawn)
        affine = crop_affine(exemplars.landmarks[number], side, coverage)
        picture = warp(exemplars.crop(number), affine, side)
        one_tone = OneTone.of(picture) is not None
        crop = picture.astype(np.float32) / np.float32(255)
        inside = face_mask(crop_points(side, coverage), side, 0.0) > 0.5
        found.append(difference(crop, in_tone(drawn, crop, inside, one_tone)))
        tones.append(lab(crop)[inside].mean(axis=0))

    def usual(sigma: float) -> Picture:
        stack = np.stack([blurred(one, sigma) for one in found])
        return blurred(np.asarray(stack.mean(axis=0) + 2 * stack.std(axis=0), np.float32), 1.5) + np.float32(_FLOOR)

    shapes = features(exemplars.landmarks)
    return Usual(
        fine=usual(1.0),
        broad=usual(BROAD) if len(exemplars) >= BROAD_LEAST_PICTURES else None,
        tones=np.asarray(np.quantile(tones, (RARE, 1 - RARE), axis=0), np.float32),
        shapes=shapes,
        reaches=tuple(_reach(shapes[:, _LOOKED_AT[region]]) for region in REGIONS),
    )


def in_tone(drawn: Picture, crop: Picture, seen: Mask, one_tone: bool = False) -> Picture:
    """The drawing in Lab, in the tone of the crop as far as light goes.

    Tone is what most pixels agree about: of the sorted differences of each channel the closest together, a third of
    them, so that a hand over half of a face is not taken for light.

    Args:
        drawn, crop: (P, P, 3) RGB in 0…1.
        seen: (P, P), where both show the face.
        one_tone: whether the crop's colours are brightness and no more; the drawing gets them then.
    """
    toned, wanted = lab(drawn), lab(crop)
    if one_tone:
        toned[..., 1:] = wanted[..., 1:]
    for channel in range(3):
        apart = np.sort((wanted - toned)[..., channel][seen])
        count = max(1, int(_SAME_TONE * len(apart)))
        first = int(np.argmin(apart[count:] - apart[:-count])) if count < len(apart) else 0
        toned[..., channel] += np.clip(np.median(apart[first : first + count + 1]), -MOST_TONE, MOST_TONE)
    return toned


def difference(crop: Picture, toned: Picture) -> Picture:
    """(P, P): how far a face, RGB in 0…1, and a drawing of it, in Lab, are apart."""
    return np.asarray(np.abs(lab(crop) - toned) @ _LAB_WEIGHTS, np.float32)


def blurred(values: Picture, sigma: float = 1.0) -> Picture:
    """(P, P) values, with neighbours as near as `sigma` 64ths of the square."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma * len(values) / 64), np.float32)


def lab(picture: npt.NDArray[np.float32]) -> Picture:
    """RGB in 0…1 → CIE Lab, lightness in 0…100."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture, np.float32), cv2.COLOR_RGB2Lab), np.float32)


def _reach(shapes: Points) -> float:
    """How far nearly all (N, K) shapes are from the nearest other."""
    if len(shapes) < 2:
        return LEAST_REACH
    apart = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    return max(float(np.quantile(apart.min(axis=1), FAMILIAR)), LEAST_REACH)
