"""The light network: where the light on a face comes from, whoever it is (S22).

Korshunova et al. 2017, section 2.2: one net sees both pictures of a pair (a siamese net) and learns to put pictures
of the same pose and the same light close together and those of another light apart. The distance of its features then
says how much the light of two faces differs, which is what the swap is to leave alone.

    face 3×P×P → luminance of its middle 1×64×64
      │ conv 5×5 /2, ReLU   16×32×32
      │ conv 3×3 /2, ReLU   32×16×16
      │ conv 3×3 /2, ReLU   64×8×8
      │ conv 3×3 /2, ReLU   64×4×4
      │ dense               32, of length 1

93,280 parameters. The paper tells neither layers nor sizes: these are ours. It is trained by `facemill.light_training`;
its accuracy stands in docs/light.md. No weights come along, since the Extended Yale B pictures are for research.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from facemill.errors import FacemillError
from facemill.terms import Terms, Use
from facemill.weights import load_into, read_weights

INPUT_PX = 64
FEATURES = 32
TERMS = (
    Terms(
        "the light network",
        Use.RESEARCH,
        licence="trained on Extended Yale B, which is for research, with citation",
        source="the page of the Extended Yale Face Database B; docs/light.md",
        trained_on="Extended Yale B (cropped)",
        remedy="leave train.options.light out",
    ),
)
MIDDLE = 0.8
"""Share of the view's side that the net sees: forehead to chin, as the pictures that it learns from."""
CHANNELS = (16, 32, 64, 64)
KERNELS_PX = (5, 3, 3, 3)
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class LightNet(nn.Module):
    """Luminance (N, 1, 64, 64) in 0…1 → features (N, 32) of length 1. Random weights until some are loaded."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels_in = 1
        for kernel_px, channels in zip(KERNELS_PX, CHANNELS, strict=True):
            layers += [nn.Conv2d(channels_in, channels, kernel_px, stride=2, padding=kernel_px // 2), nn.ReLU()]
            channels_in = channels
        side_px = INPUT_PX >> len(CHANNELS)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels_in * side_px**2, FEATURES))

    def forward(self, luminance: Tensor) -> Tensor:
        """(N, 1, 64, 64) luminance in 0…1 → (N, 32) features of length 1."""
        return functional.normalize(self.layers(luminance - 0.5), dim=1)


def light_features(net: LightNet, faces: Tensor) -> Tensor:
    """(N, 3, P, P) RGB in 0…1, faces aligned as the models see them → (N, 32); gradients reach the pictures."""
    features: Tensor = net(luminance(faces))
    return features


def luminance(faces: Tensor) -> Tensor:
    """(N, 3, P, P) RGB in 0…1 → the luminance of its middle, (N, 1, 64, 64)."""
    side_px = faces.shape[-1]
    kept_px = round(side_px * MIDDLE / 2) * 2
    first = (side_px - kept_px) // 2
    middle = faces[:, :, first : first + kept_px, first : first + kept_px]
    red, green, blue = (weight * middle[:, at : at + 1] for at, weight in enumerate(LUMINANCE))
    grey = red + green + blue
    return resized(grey, INPUT_PX)


def resized(pictures: Tensor, side_px: int) -> Tensor:
    """(N, C, H, W) → (N, C, side, side), bilinear, averaging where it shrinks.

    As two matrices, since on a GPU torch's own way back through this is not the same each time.
    """
    rows, columns = (_resizing(length, side_px, pictures) for length in pictures.shape[2:])
    return rows @ pictures @ columns.T


def _resizing(length_px: int, side_px: int, like: Tensor) -> Tensor:
    """(side, length): how much each old pixel counts in each new one, a triangle over two new pixels."""
    step = length_px / side_px
    centres = (torch.arange(side_px, device=like.device) + 0.5) * step - 0.5
    away = (torch.arange(length_px, device=like.device) - centres[:, None]).abs()
    weights = (1 - away / max(step, 1.0)).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


def load_light_net(path: Path) -> LightNet:
    """A trained net, frozen and in evaluation mode, on the CPU.

    Raises:
        FacemillError: no such file, or it is not a light network's; the message says how to make one.
    """
    if not path.is_file():
        raise FacemillError(
            f"{path} is missing: make it with `python -m facemill.light_training FOLDER --output {path}`, where FOLDER "
            "holds Extended Yale B's cropped pictures (docs/light.md)"
        )
    net = LightNet()
    load_into(net, {name: value.float() for name, value in read_weights(path).items()}, path, "the light network")
    return net.eval().requires_grad_(False)
