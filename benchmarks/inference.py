"""Faces a second of the networks: torch as it comes, torch.compile, ONNX Runtime, beside the floor of their FLOPs.

    python benchmarks/inference.py [--models autoencoder/small transform/classic256] [--batches 1 64] [--seconds 2]

Weights are random: what a face costs does not depend on them. torch and torch.compile run with the precision and the
layout that conversion takes on the device. ONNX Runtime runs the file that `facemill export model` writes, on the CPU,
with as many threads as torch. *floor* is the time that the multiplications alone would take at the rate of a large
matrix product, measured in the same run. Rounds of the three alternate; shown are medians of milliseconds for one face.

The paper of `transform` (Korshunova et al. 2017) gives 40 ms at 256 px on a Titan X: `--models transform/classic256
--batches 1`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from facemill.device import choose_device, settings_for
from facemill.device_choice import DeviceChoice
from facemill.nets import SwapModel, build_model
from facemill.train.export import export_onnx

IDENTITIES = ("anna", "bert")
ROUNDS = 3
MODELS = ("autoencoder/small", "gan/small", "cyclegan/small", "transform/small", "transform/classic")
WAYS = ("torch", "compiled", "onnx")
Draw = Callable[[], object]


def main() -> None:
    arguments = _arguments()
    device = choose_device(arguments.device, "--device")
    print(machine.describe(device))
    rate = machine.matrix_product_rate(device, torch.float32)
    print(f"{'model':24}{'px':>5}{'GFLOP':>8}{'floor':>9}{'batch':>7}" + "".join(f"{way + ' ms':>13}" for way in WAYS))
    for name in arguments.models:
        kind, _, preset = name.partition("/")
        model = build_model(kind, preset, IDENTITIES).eval()
        flops = flops_of_a_face(model.to(device), device)
        for batch in arguments.batches:
            torch.compiler.reset()  # or the eighth graph of one function would run eager
            found = milliseconds(model, batch, arguments.seconds, device)
            row = f"{name:24}{model.input_px:5}{flops / 1e9:8.2f}{1000 * flops / rate:9.2f}{batch:7}"
            print(row + "".join(f"{ms:13.2f}" for ms in found), flush=True)
    print(f"matrix product: {rate / 1e12:.2f} TFLOP/s")


@torch.inference_mode()
def milliseconds(model: SwapModel, batch: int, seconds: float, device: torch.device) -> list[float]:
    """Of one face, by way: medians of alternating rounds after a warm-up of each."""
    settings = settings_for(device, sum(p.numel() for p in model.parameters()), DeviceChoice(precision="fp32"))
    faces = torch.rand(batch, model.input_px, model.input_px, 3, device=device).permute(0, 3, 1, 2)  # as crops come
    compiled = torch.compile(lambda faces: model(faces, IDENTITIES[0]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model.cpu(), IDENTITIES[0], path)
        settings.place(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    given = {"face": np.ascontiguousarray(faces.cpu().numpy())}
    ways: list[Draw] = [
        lambda: model(faces, IDENTITIES[0]),
        lambda: compiled(faces),
        lambda: session.run(None, given),
    ]
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for times, way in zip(found, ways, strict=True):
            first = machine.seconds_of(way, device, 1)[0]
            more = machine.seconds_of(way, device, max(2, round(seconds / first)))
            times.append(1000 * statistics.median(more) / batch)
    return [statistics.median(times) for times in found]


def flops_of_a_face(model: SwapModel, device: torch.device) -> int:
    """Forward only, as torch counts: two for a multiplication with its addition."""
    face = torch.rand(1, 3, model.input_px, model.input_px, device=device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(face, IDENTITIES[0])
    return int(counter.get_total_flops())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="MODEL/PRESET")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of three rounds of each way")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
