"""Measures of swaps on the sample portraits: a model that draws the portrait itself is at the same person."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facemill.align import crop_affine, transform, warp
from facemill.detect import build_detector
from facemill.identity import Embedder
from facemill.landmarks.dlib import DlibPredictor
from facemill.nets import SwapModel
from facemill.train.data import FaceSet
from tasks.training.swap_measures import SwapMeasures

PX = 160


class Portraits(SwapModel):
    """Whoever comes in, the portrait goes out."""

    def __init__(self, portraits: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.portraits, self.identities, self.input_px = portraits, tuple(portraits), PX

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return self.portraits[identity].expand_as(face)


def stored(name: str, portrait: np.ndarray) -> tuple[FaceSet, list[list[float]]]:
    """A portrait as a set of one face, and its embedding."""
    boxes = build_detector("hog", min_face_px=80).detect([portrait])[0].boxes_xyxy[:1]
    points = DlibPredictor().predict(portrait, boxes)
    affine = crop_affine(points[0], PX, 1.2)
    crop = torch.from_numpy(warp(portrait, affine, PX)).permute(2, 0, 1)[None]
    landmarks = torch.tensor(transform(points[0], affine), dtype=torch.float32)[None]
    mask = torch.full((1, 1, PX, PX), 255).byte()
    return FaceSet(name, (name,), crop, mask, mask, landmarks, 1.0), Embedder().embed(portrait, points).tolist()


@pytest.fixture(scope="module")
def people(hopper: np.ndarray, collins: np.ndarray) -> dict[str, tuple[FaceSet, list[list[float]]]]:
    return {"hopper": stored("hopper", hopper), "collins": stored("collins", collins)}


def test_a_perfect_swap_is_the_same_person_and_a_failed_one_is_not(people) -> None:
    sets = {name: faces for name, (faces, _) in people.items()}
    references = {name: rows for name, (_, rows) in people.items()}
    views = {name: faces.view(PX) for name, faces in sets.items()}
    swapped = SwapMeasures(references, 1)(Portraits(views), sets)
    unchanged = SwapMeasures(references, 1)(Portraits({"hopper": views["collins"], "collins": views["hopper"]}), sets)
    assert swapped["identity_distance/hopper-as-collins"] < 0.4 < 0.6 < unchanged["identity_distance/hopper-as-collins"]
    assert unchanged["landmark_error/hopper-as-collins"] == pytest.approx(0, abs=1e-6)
    assert swapped["landmark_error/hopper-as-collins"] > 1


def test_nothing_is_measured_where_nothing_is_asked_for(people) -> None:
    assert SwapMeasures({}, 0)(Portraits({}), {name: faces for name, (faces, _) in people.items()}) == {}
