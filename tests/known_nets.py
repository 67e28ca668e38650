"""Models whose answer is known, and a folder with one that was never trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from facemill.landmarks import signature
from facemill.model_folder import save_model
from facemill.nets import SwapModel, build_model


class PassThrough(SwapModel):
    """The face comes back as it went in: what is left is geometry, mask and blending."""

    identities = ("hopper", "collins")
    input_px = 192

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return face


class Paint(PassThrough):
    """Every face becomes green."""

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return torch.zeros_like(face) + torch.tensor([0.1, 0.8, 0.1]).view(1, 3, 1, 1)


class PaintEach(PassThrough):
    """Collins is green, Hopper is blue."""

    colours = {"collins": (0.1, 0.8, 0.1), "hopper": (0.1, 0.1, 0.8)}  # noqa: RUF012  # never written to

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return torch.zeros_like(face) + torch.tensor(self.colours[identity]).view(1, 3, 1, 1)


class OnlyCollins(PaintEach):
    """Can draw Collins alone."""

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        if identity != "collins":
            raise RuntimeError("out of memory")
        return super().forward(face, identity)


class Stumbles(PassThrough):
    """Fails on batches, and on its third face alone; its fourth is not a number."""

    calls = 0

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        if len(face) > 1:
            raise RuntimeError("out of memory")
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("out of memory")
        return face * float("nan") if self.calls == 4 else face


def model_folder(folder: Path, references: dict[str, np.ndarray]) -> None:
    """Writes a small model of Hopper and Collins with random weights."""
    model = build_model("autoencoder", "small", ["hopper", "collins"])
    meta = {
        "name": "autoencoder",
        "preset": "small",
        "identities": ["hopper", "collins"],
        "input_px": model.input_px,
        "crop_px": 256,
        "crop_coverage": 1.6,
        "landmarks": signature("dlib"),
        "train_coverage": 1.1,
        "references": {name: rows.tolist() for name, rows in references.items()},
    }
    save_model(folder, model, meta)
