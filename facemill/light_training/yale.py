"""Faces in known light: Extended Yale B's cropped pictures, and how well features tell where the light comes from.

What is scored is told on people that nothing was learned from, by distances between pictures of different people:
*verification*, whether two pictures have the same light, and *retrieval*, which of a person's pictures has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from facemill.errors import FacemillError
from facemill.nets.light import INPUT_PX

_NAME = re.compile(r"^(yaleB\d+)_(P\d+)A([+-]\d+)E([+-]\d+)\.pgm$")
_CROP_WH = (168, 192)
_FIRST_ROW = 24  # of the lower square: brows to mouth, what `facemill.nets.light.luminance` keeps of our own faces


@dataclass(frozen=True)
class LightSet:
    """Lit faces; the first axis is the same in all fields."""

    pictures: Tensor  # (N, 1, 64, 64) float luminance in 0…1
    people: tuple[str, ...]
    poses: tuple[str, ...]
    lights: Tensor  # (N, 2) int64: azimuth and elevation in degrees, seen from the face; azimuth > 0 is its left

    def __len__(self) -> int:
        return len(self.people)

    def of(self, people: Sequence[str]) -> LightSet:
        """The part of the set that shows these people."""
        rows = [at for at, person in enumerate(self.people) if person in people]
        return LightSet(
            self.pictures[rows],
            tuple(self.people[r] for r in rows),
            tuple(self.poses[r] for r in rows),
            self.lights[rows],
        )


@dataclass(frozen=True)
class LightScores:
    """How well light is told on people; see `score`."""

    verification: float  # share of pairs told right, same and other light weighing the same
    retrieval: float  # share of pictures whose nearest one of another person has the same light
    angle_deg: float  # between the light of a picture and that of the nearest one, mean
    threshold: float  # distance below which a pair counts as the same light
    lights: int  # to choose from in a retrieval, at most


def read_yale(folder: Path) -> LightSet:
    """All cropped pictures below a folder, by name.

    Raises:
        FacemillError: there are none, or one cannot be read or has another size.
    """
    found = sorted(
        (path.name, path) for path in folder.rglob("yaleB*.pgm") if _NAME.match(path.name) and path.is_file()
    )
    if not found:
        raise FacemillError(f"{folder} has no picture named like yaleB01_P00A+035E+40.pgm: name CroppedYale's folder")
    pictures, parts = [], []
    for name, path in found:
        grey = cv2.imdecode(np.frombuffer(path.read_bytes() or b"-", np.uint8), cv2.IMREAD_GRAYSCALE)
        if grey is None or grey.shape[::-1] != _CROP_WH:
            raise FacemillError(f"{path} is not a picture of 168×192 pixels: fetch it anew, or take it away")
        square = grey[_FIRST_ROW : _FIRST_ROW + _CROP_WH[0]]
        pictures.append(cv2.resize(square, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA))
        match = _NAME.match(name)
        assert match is not None
        parts.append(match.groups())
    people, poses, azimuths, elevations = zip(*parts, strict=True)
    lights = torch.tensor([[int(a), int(e)] for a, e in zip(azimuths, elevations, strict=True)])
    return LightSet(torch.from_numpy(np.stack(pictures)).float()[:, None] / 255, people, poses, lights)


def split_people(data: LightSet, held_out: int) -> tuple[LightSet, LightSet]:
    """Pictures of the people to learn from, and of the last `held_out` ones by name.

    Raises:
        FacemillError: fewer than two people would be left on either side.
    """
    people = sorted(set(data.people))
    if held_out < 2 or len(people) - held_out < 2:
        raise FacemillError(f"{held_out} of {len(people)} people cannot be held out: two are needed on either side")
    return data.of(people[:-held_out]), data.of(people[-held_out:])


def score(features: Tensor, data: LightSet, threshold: float | None = None) -> LightScores:
    """How well distances of features (N, F) tell the light, over pairs of different people in one pose.

    Without a threshold the one that tells these pairs best is taken: so it is found on the people of the training.
    """
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    people = np.array([sorted(set(data.people)).index(person) for person in data.people])
    poses = np.array([sorted(set(data.poses)).index(pose) for pose in data.poses])
    pairable = torch.from_numpy((people[:, None] != people) & (poses[:, None] == poses))
    same = (data.lights[:, None] == data.lights).all(2)
    together, apart = distances[pairable & same], distances[pairable & ~same]
    if threshold is None:
        threshold = _best_threshold(together, apart)
    verification = ((together <= threshold).float().mean() + (apart > threshold).float().mean()) / 2
    hits, angles = _retrieve(distances, people, poses, data.lights)
    lights = len({tuple(light) for light in data.lights.tolist()})
    return LightScores(float(verification), hits, angles, threshold, lights)


def pixels(pictures: Tensor) -> Tensor:
    """The baseline: 16×16 luminances as features of length 1, (N, 256)."""
    return functional.normalize(functional.adaptive_avg_pool2d(pictures, 16).flatten(1), dim=1)


def _best_threshold(together: Tensor, apart: Tensor) -> float:
    """The distance that tells most pairs right, same and other light weighing the same."""
    values, order = torch.cat([together, apart]).sort()
    is_same = torch.cat([torch.ones(len(together)), torch.zeros(len(apart))])[order]
    accepted = is_same.cumsum(0) / max(len(together), 1)
    mistaken = (1 - is_same).cumsum(0) / max(len(apart), 1)
    return float(values[(accepted - mistaken).argmax()])


def _retrieve(
    distances: Tensor, people: npt.NDArray[np.int64], poses: npt.NDArray[np.int64], lights: Tensor
) -> tuple[float, float]:
    """Share of right lights and mean angle, over each picture and each other person's pictures of that pose.

    Pictures whose light the other person has not are left out.
    """
    directions = _directions(lights)
    right: list[float] = []
    angles: list[float] = []
    for other in np.unique(people):
        for pose in np.unique(poses):
            gallery = np.flatnonzero((people == other) & (poses == pose))
            queries = np.flatnonzero((people != other) & (poses == pose))
            has = (lights[queries][:, None] == lights[gallery]).all(2).any(1)
            queries = queries[has.numpy()]
            if not len(gallery) or not len(queries):
                continue
            nearest = gallery[distances[queries][:, gallery].argmin(1).numpy()]
            right += (lights[queries] == lights[nearest]).all(1).float().tolist()
            cosines = (directions[queries] * directions[nearest]).sum(1).clamp(-1, 1)
            angles += torch.rad2deg(torch.arccos(cosines)).tolist()
    return (sum(right) / max(len(right), 1), sum(angles) / max(len(angles), 1))


def _directions(lights: Tensor) -> Tensor:
    """(N, 2) azimuth and elevation in degrees → (N, 3) unit vectors."""
    azimuth, elevation = torch.deg2rad(lights.double()).unbind(1)
    return torch.stack(
        [torch.sin(azimuth) * torch.cos(elevation), torch.sin(elevation), torch.cos(azimuth) * torch.cos(elevation)], 1
    )
