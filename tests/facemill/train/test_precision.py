"""bf16 autocast, which a GPU trains in: every model's losses are what they are in fp32, near enough to learn by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from toy_training import CPU, plain_set

from facemill.device import DeviceSettings
from facemill.nets import build_model
from facemill.train.data import FaceSet, Feed
from facemill.train.distributed import ALONE
from facemill.train.objectives import build_objective
from facemill.train.settings import Augmentation
from facemill.train.step import Stepper

pytestmark = pytest.mark.usefixtures("one_thread")

PEOPLE = ("anna", "bert")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("autoencoder", {}),
        ("gan", {}),
        ("gan", {"adversarial": "relativistic", "cycle": True}),
        ("cyclegan", {}),
        ("transform", {}),
    ],
)
def test_losses_in_bf16_are_those_of_fp32(model: str, options: dict[str, Any]) -> None:
    exact, found = (losses(model, options, replace(CPU, autocast_dtype=dtype)) for dtype in (None, torch.bfloat16))
    assert found == pytest.approx(exact, rel=0.05)
    assert found != exact


def losses(model: str, options: dict[str, Any], settings: DeviceSettings) -> dict[str, float]:
    """Those of a first step, everything but the precision being equal."""
    torch.manual_seed(0)
    objective = build_objective(model, build_model(model, "small", PEOPLE), **options)
    sets = faces()
    objective.prepare(sets)
    stepper = Stepper(
        objective, objective.published.optimizer, settings, ALONE,
        micro_batch=None, clip_norm=None, seed=0, say=pytest.fail,
    )  # fmt: skip
    feed = Feed(sets, 64, 2, Augmentation(), seed=3)
    objective.begin_step(60, 100)  # of the GAN's schedule: the perceptual loss counts
    found = dict[str, float]()
    for turn in objective.turns:
        # At a rate of 0: Adam turns the last bits of tiny gradients into whole steps, and the next turn would see them.
        found |= stepper.turn(turn, feed, 0.0, 1).resolve()
    return found


def faces() -> dict[str, FaceSet]:
    """Six smooth pictures each, no two alike."""
    coarse = 255 * torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    pictures = torch.nn.functional.interpolate(coarse, size=(80, 80), mode="bilinear").byte()
    return {who: plain_set(who, part) for who, part in zip(PEOPLE, pictures.split(6), strict=True)}
