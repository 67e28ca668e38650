"""A step leaves a device to itself: it neither asks it for numbers nor mixes its tensors with the host's.

torch's `meta` stands for the device. It computes shapes alone, so that a number that is asked for (`item`, `int`, `if`)
is an error, as are sums, joins and choices of its tensors and the host's: what would be an error on a GPU, or make the
host wait for it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy_training import plain_set

from facemill.device import DeviceSettings
from facemill.nets import build_model
from facemill.train.data import Feed
from facemill.train.distributed import ALONE
from facemill.train.ema import Ema
from facemill.train.objectives import build_objective
from facemill.train.objectives.transform import TransformObjective
from facemill.train.settings import Augmentation
from facemill.train.step import Stepper

META = torch.device("meta")
PEOPLE = ("anna", "bert")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("autoencoder", {}),
        ("gan", {}),
        ("gan", {"adversarial": "relativistic", "cycle": True, "discriminator": "shared"}),
        ("cyclegan", {}),
        ("transform", {}),
    ],
)
def test_no_step_waits_for_its_device_or_leaves_it(
    monkeypatch: pytest.MonkeyPatch, model: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(torch.optim.Adam, "step", lambda optimizer: None)  # the fused one does not know `meta`
    monkeypatch.setattr(torch, "autocast", CpuAutocast)
    # before training, where waiting is right: weights of losses are numbers
    monkeypatch.setattr(TransformObjective, "_balance", lambda self, *_: dict.fromkeys(self._shares, 1.0))
    objective = build_objective(model, build_model(model, "small", PEOPLE), **options)
    settings = DeviceSettings(META, None, torch.channels_last, guard_lag=1)
    settings.place(objective.module)
    sets = {who: plain_set(who, torch.zeros(5, 3, 80, 80, dtype=torch.uint8)) for who in PEOPLE}
    objective.prepare(sets)
    averages = Ema(objective.module, 0.99)
    stepper = Stepper(
        objective, objective.published.optimizer, settings, ALONE,
        micro_batch=1, clip_norm=1.0, seed=0, say=pytest.fail,
    )  # fmt: skip
    feed = Feed(sets, 64, 2, Augmentation(), seed=3, device=META)
    for step in (0, 30, 81):  # of the GAN's schedule: plain, perceptual, and decoders that changed places
        objective.begin_step(step, 100)
        for turn in objective.turns:
            losses = stepper.turn(turn, feed, 1e-3, step + 1)
            assert losses.numbers.is_meta
        averages.update()
    with pytest.raises(RuntimeError, match="meta tensor"):  # asking now is what is refused
        losses.resolve()
    feed.close()


class CpuAutocast(torch.autocast):
    """`meta` has no autocast of its own, not even to be switched off."""

    def __init__(self, device_type: str, *arguments: Any, **options: Any) -> None:
        super().__init__("cpu" if device_type == "meta" else device_type, *arguments, **options)
