"""Training: steps per second of the engine beside a plain loop, both timed in this run.

    python benchmarks/train.py [--presets small classic] [--steps 30] [--batch 16]

The plain loop is forward, backward and Adam as a tutorial has them: contiguous fp32, plain Adam, plain MAE, one fixed
batch, no augmentation, no guard, nothing logged. The engine does all that training needs: random warps and colours,
weighted MAE + DSSIM, fused Adam, the guard, logging. A ratio above 1 says that its settings win more than its work
costs. The parts are timed alone as well. The two alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from facemill.nets import SwapModel, build_model
from facemill.train.augment import Augmentation
from facemill.train.data import FaceSet, Feed
from facemill.train.device import DeviceSettings, choose_device, settings_for
from facemill.train.engine import Plan, fit
from facemill.train.objectives import build_objective

IDENTITIES = ("anna", "bert")
ROUNDS = 3


def main() -> None:
    arguments = _arguments()
    device = choose_device(arguments.device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {arguments.batch} of each")
    print(f"{'preset':10}{'plain steps/s':>15}{'engine steps/s':>16}{'ratio':>8}{'augment ms':>12}")
    for preset in arguments.presets:
        plain, engine, augment_s = compare(preset, arguments.steps, arguments.batch, device)
        print(f"{preset:10}{plain:15.2f}{engine:16.2f}{engine / plain:8.2f}{1000 * augment_s:12.1f}", flush=True)


def compare(preset: str, steps: int, batch: int, device: torch.device) -> tuple[float, float, float]:
    """(plain steps/s, engine steps/s, seconds of a draw): medians of alternating rounds, after one warm-up each."""
    plain_model, model = (build_model("autoencoder", preset, IDENTITIES) for _ in range(2))
    settings = settings_for(device, sum(p.numel() for p in model.parameters()))
    plain_model.to(device)
    settings.place(model)
    feed = _feed(model.input_px, batch, device)
    plain_step = _plain_step(plain_model, batch, device)
    plain_step()
    _engine(model, feed, settings, 1)
    plain_rates, engine_rates = [], []
    for _ in range(ROUNDS):
        plain_rates.append(steps / _seconds(lambda: [plain_step() for _ in range(steps)], device))
        engine_rates.append(steps / _seconds(lambda: _engine(model, feed, settings, steps), device))
    draw = _seconds(lambda: [feed.draw() for _ in range(10)], device) / 10
    return statistics.median(plain_rates), statistics.median(engine_rates), draw


def _plain_step(model: SwapModel, batch: int, device: torch.device) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5, betas=(0.5, 0.999), foreach=False, fused=False)
    faces = {who: torch.rand(batch, 3, model.input_px, model.input_px, device=device) for who in IDENTITIES}

    def step() -> None:
        optimizer.zero_grad()
        loss = torch.stack([(model(face, who) - face).abs().mean() for who, face in faces.items()]).sum()
        loss.backward()
        optimizer.step()

    return step


def _engine(model: SwapModel, feed: Feed, settings: DeviceSettings, steps: int) -> None:
    """A whole run, with the checkpoint at its end: more saving than a training has."""
    plan = Plan(steps=steps, learning_rate=5e-4)
    with tempfile.TemporaryDirectory() as folder:
        fit(build_objective("autoencoder", model), feed, plan, Path(folder), settings)


def _feed(input_px: int, batch: int, device: torch.device) -> Feed:
    width_px = round(1.5 * input_px)
    sets = {}
    for who in IDENTITIES:
        faces = torch.randint(0, 256, (64, 3, width_px, width_px), dtype=torch.uint8)
        weights = torch.full((64, 1, width_px, width_px), 255, dtype=torch.uint8)
        sets[who] = FaceSet(who, tuple(str(at) for at in range(64)), faces, weights, 1.25).to(device)
    return Feed(sets, input_px, batch, Augmentation(), 0)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["small", "classic"])
    parser.add_argument("--steps", type=int, default=30, help="steps in each of three rounds")
    parser.add_argument("--batch", type=int, default=16, help="faces of each identity in a step")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
