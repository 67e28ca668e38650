"""Training: the engine's own settings beside a plain loop, and both beside what the machine could do.

    python benchmarks/train.py [--models autoencoder/small gan/lite64] [--batch 16] [--seconds 4]

For each model and preset:

- *plain*: forward, backward and Adam as a tutorial has them: eager, contiguous, fp32, plain Adam, one fixed batch, no
  augmentation, no guard, nothing logged. The losses are the same.
- *engine*: all that training needs (random warps and colours, fused Adam, the guard, logging), with the settings that
  `facemill.device` chooses here. A ratio above 1 says that its settings win more than its work costs.
- *wait*: share of the engine's time spent in waiting for faces.
- *floor*: milliseconds that a step's multiplications alone would take at the rate of a large matrix product, measured
  here in the engine's precision; *MFU* is that over the time of a step. FLOPs are counted by torch, both ways.
- *bytes*: milliseconds that Adam's traffic alone takes (each weight, gradient and two moments in fp32, read and
  written: 28 bytes a weight) at the rate of a large copy. No step is faster than the larger of the two.
- *GiB* at the most on a GPU, and *least*: weights, gradients and moments, 16 bytes a weight, without any activation.

Rounds of both alternate, so that a busy machine slows both; shown are medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import machine
import torch
from torch.utils.flop_counter import FlopCounterMode

from facemill.device import DeviceSettings, choose_device, settings_for
from facemill.nets import SwapModel, build_model, model_names
from facemill.train.augment import Batch
from facemill.train.data import FaceSet, Feed
from facemill.train.engine import Outcome, fit
from facemill.train.objectives import Objective, build_objective
from facemill.train.settings import Augmentation, CosinePlan

IDENTITIES = ("anna", "bert")
ROUNDS = 3
FACES = 64  # of each identity
ON_CPU = ("autoencoder/small", "gan/small", "cyclegan/small", "transform/small")
HEADER = (
    "model",
    "Mparam",
    "GFLOP/step",
    "plain/s",
    "engine/s",
    "ratio",
    "wait %",
    "floor ms",
    "bytes ms",
    "MFU %",
    "GiB",
    "least",
)


def main() -> None:
    arguments = _arguments()
    device = choose_device(arguments.device, "--device")
    print(f"{machine.describe(device)}, batch {arguments.batch} of each identity")
    rates, copy_rate = dict[torch.dtype, float](), machine.copy_rate(device)
    print(" ".join([f"{HEADER[0]:24}", *(f"{name:>10}" for name in HEADER[1:])]))
    for name in arguments.models or (ON_CPU if device.type == "cpu" else _all_presets()):
        found = measure(name, arguments.batch, arguments.seconds, device)
        # the best seen so far: a busy machine shows less than it has
        rates[found.dtype] = max(rates.get(found.dtype, 0.0), machine.matrix_product_rate(device, found.dtype))
        floor_s = found.flops / rates[found.dtype]
        row = (
            *(found.parameters / 1e6, found.flops / 1e9, found.plain_rate, found.engine_rate),
            *(found.engine_rate / found.plain_rate, 100 * found.waited_share),
            *(1000 * floor_s, 1000 * 28 * found.trained / copy_rate, 100 * floor_s * found.engine_rate),
            *(found.peak_bytes / 2**30, 16 * found.trained / 2**30),
        )
        print(" ".join([f"{name:24}", *(f"{value:10.2f}" for value in row)]), flush=True)
    for dtype, rate in rates.items():
        print(f"matrix product, {str(dtype).removeprefix('torch.')}: {rate / 1e12:.2f} TFLOP/s")


@dataclass(frozen=True)
class Measured:
    """Of one model and preset."""

    parameters: int  # of the network alone
    trained: int  # discriminators included
    flops: int  # of a step, all turns
    plain_rate: float  # steps a second
    engine_rate: float
    waited_share: float
    peak_bytes: int  # of the device, by the engine; 0 on a CPU
    dtype: torch.dtype  # of the engine's forward passes


def measure(name: str, batch: int, seconds: float, device: torch.device) -> Measured:
    """Alternating rounds of both, after a warm-up of each."""
    objective, plain_objective = (_objective(name) for _ in range(2))
    model, settings = _model_of(objective), _settings(objective, device)
    plain_objective.module.to(device)
    settings.place(objective.module)
    sets = _sets(model.input_px, device)
    for each in (objective, plain_objective):
        each.prepare(sets)
    feed = Feed(sets, model.input_px, batch, Augmentation(), 0)
    plain_step = _plain_step(plain_objective, feed.draw())
    with FlopCounterMode(display=False) as counter:
        plain_step()
    _engine(objective, feed, settings, min(seconds, 1.0))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    plain_rates, outcomes = [], list[Outcome]()
    for _ in range(ROUNDS):
        plain_rates.append(_rate(plain_step, seconds, device))
        feed.waited_s = 0.0
        outcomes.append(_engine(objective, feed, settings, seconds))
    return Measured(
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for turn in objective.turns for p in objective.parameters(turn)),
        counter.get_total_flops(),
        statistics.median(plain_rates),
        statistics.median(outcome.step / outcome.seconds for outcome in outcomes),
        statistics.median(outcome.waited_share for outcome in outcomes),
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        settings.autocast_dtype or torch.float32,
    )


def _objective(name: str) -> Objective:
    model, _, preset = name.partition("/")
    return build_objective(model, build_model(model, preset, IDENTITIES))


def _model_of(objective: Objective) -> SwapModel:
    return next(module for module in objective.module.modules() if isinstance(module, SwapModel))


def _settings(objective: Objective, device: torch.device) -> DeviceSettings:
    parameters = sum(p.numel() for p in objective.module.parameters())
    return settings_for(device, parameters, side_px=_model_of(objective).input_px)


def _plain_step(objective: Objective, batch: Mapping[str, Batch]) -> Callable[[], None]:
    optimizers = {
        turn: torch.optim.Adam(objective.parameters(turn), lr=1e-5, foreach=False, fused=False)
        for turn in objective.turns
    }

    def step() -> None:
        for turn, optimizer in optimizers.items():
            optimizer.zero_grad()
            torch.stack(list(objective.losses(turn, batch).values())).sum().backward()
            optimizer.step()

    return step


def _engine(objective: Objective, feed: Feed, settings: DeviceSettings, seconds: float) -> Outcome:
    """A whole run but for the checkpoint at its end, which is not in its seconds."""
    plan = CosinePlan(steps=10**9, learning_rate=1e-5, deadline_s=seconds, rollbacks=0, save_every=10**9)
    with tempfile.TemporaryDirectory() as folder:
        return fit(objective, feed, plan, Path(folder), settings)


def _sets(input_px: int, device: torch.device) -> dict[str, FaceSet]:
    """Noise in the size of real faces."""
    width_px = round(1.5 * input_px)
    sets = {}
    for who in IDENTITIES:
        faces = torch.randint(0, 256, (FACES, 3, width_px, width_px), dtype=torch.uint8)
        full = torch.full((FACES, 1, width_px, width_px), 255, dtype=torch.uint8)
        landmarks = torch.rand(FACES, 68, 2) * width_px
        ids = tuple(map(str, range(FACES)))
        sets[who] = FaceSet(who, ids, faces, full, torch.zeros_like(full), landmarks, 1.25).to(device)
    return sets


def _rate(step: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Steps a second over at least that long."""
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
        if device.type == "cuda" and steps % 10 == 0:
            torch.cuda.synchronize()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps / (time.perf_counter() - start)


def _all_presets() -> list[str]:
    return [f"{name}/{preset}" for name in model_names() for preset in import_module(f"facemill.nets.{name}").PRESETS]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", help="MODEL/PRESET; all on a GPU, a few light ones on a CPU")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each of three rounds of each loop")
    parser.add_argument("--batch", type=int, default=16, help="faces of each identity in a step")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
