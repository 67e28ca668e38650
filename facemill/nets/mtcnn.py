"""The three nets of MTCNN (S7); `facemill.detect` fills and runs them.

Zhang, Zhang, Li & Qiao 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
figure 2. Multiply-adds: P-Net 1.8 k for each pixel of the pyramid, R-Net 1.5 M and O-Net 13 M for each crop.

    P-Net  3×H×W  -> 10 -> pool 2 -> 16 -> 32 -> margin, offsets at every second pixel
    R-Net  3×24×24 -> 28 -> pool 3 -> 48 -> pool 3 -> 64 (2×2) -> 128 -> margin, offsets
    O-Net  3×48×48 -> 32 -> pool 3 -> 64 -> pool 3 -> 64 -> pool 2 -> 128 (2×2) -> 256 -> margin, offsets, points

What differs from the published files, none of it in the answers:
- They take pixels as they are, 0…255: the first convolution holds the normalisation (x - 127.5) / 128 as well.
- They give the face's margin, log(p / (1 - p)), from one output: a softmax of two logits is the sigmoid of their
  difference. P-Net's offsets are worked out where a face may be, and nowhere else.
- On the CPU pooling is the maximum of shifted views, since torch's own pooling is scalar there: it took half of
  P-Net's time and two thirds of R-Net's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CELL_PX", "STRIDE_PX", "ONet", "PNet", "RNet", "cells"]

CELL_PX, STRIDE_PX = 12, 2
"""P-Net's receptive field and the distance between two of its answers."""


class PNet(nn.Module):
    """Fully convolutional: (B, 3, H, W) in 0…255 -> margin (B, h, w) and features (B, h, w, 32).

    `box` makes offsets in parts of the cell's side, (N, 4), of the features of chosen cells, (N, 32).
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(3, 10), MaxPool(2), *_conv(10, 16), *_conv(16, 32))
        self.face, self.box = Dense(32, 1, rows_at_once=1024), Dense(32, 4, rows_at_once=64)

    def forward(self, pictures: Tensor, sizes_hw: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """sizes_hw: (B, 2) integers, how much of each picture is picture; the rest, at right and bottom, is padding.

        Every cell inside the picture (`cells`) then has the value that it has without the padding.
        """
        first = self.body[1](self.body[0](pictures))
        if sizes_hw is not None:
            _hide_padding(first, sizes_hw.to(first.device) - 2)
        features = self.body[2:](first).permute(0, 2, 3, 1)  # (B, h, w, 32)
        return self.face(features).squeeze(3), features


def cells(size_px: int) -> int:
    """How many answers P-Net gives along a side of `size_px`; the last may reach one pixel past the end."""
    return max(0, -(-(size_px - 2) // 2) - 4)


class RNet(nn.Module):
    """(B, 3, 24, 24) in 0…255 -> margin (B,) and box offsets (B, 4). early_pool: see `MaxPool`."""

    def __init__(self, *, early_pool: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(3, 28), MaxPool(3, early=early_pool), *_conv(28, 48), MaxPool(3), *_conv(48, 64, 2)
        )
        self.dense = nn.Sequential(Dense(576, 128), nn.PReLU(128))
        self.face, self.box = Dense(128, 1), Dense(128, 4)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.dense(_flat(self.body(crops)))
        return self.face(features).squeeze(1), self.box(features)


class ONet(nn.Module):
    """(B, 3, 48, 48) in 0…255 -> margin (B,), box offsets (B, 4), five points x1…x5 y1…y5 in 0…1 (B, 10)."""

    def __init__(self, *, early_pool: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(*_conv(3, 32), MaxPool(3, early=early_pool), *_conv(32, 64), MaxPool(3)),
            *(*_conv(64, 64), MaxPool(2), *_conv(64, 128, 2)),
        )
        self.dense = nn.Sequential(Dense(1152, 256), nn.PReLU(256))
        self.face, self.box, self.points = Dense(256, 1), Dense(256, 4), Dense(256, 10)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.dense(_flat(self.body(crops)))
        return self.face(features).squeeze(1), self.box(features), self.points(features)


class MaxPool(nn.Module):
    """Max pooling, stride 2. The last window is cut off at the edge (`ceil_mode`).

    early: of an even side the first window is cut off instead, each beginning a pixel earlier.
    """

    def __init__(self, kernel: int, *, early: bool = False) -> None:
        super().__init__()
        if kernel not in (2, 3) or (early and kernel == 2):
            raise ValueError(f"kernel must be 2 or 3, and 3 for early windows, got {kernel}")
        self.kernel, self.early = kernel, early

    def forward(self, features: Tensor) -> Tensor:
        if features.is_cuda:
            if self.early:
                pads = [1 - side % 2 for side in (features.shape[3], features.shape[2])]
                features = F.pad(features, (pads[0], 0, pads[1], 0), value=torch.finfo(features.dtype).min)
            return F.max_pool2d(features, self.kernel, 2, ceil_mode=True)
        return self._halved(self._halved(features, 2), 3)

    def _halved(self, features: Tensor, axis: int) -> Tensor:
        """The maximum of `kernel` neighbours at every second place along one axis."""
        even, odd = (features[(slice(None),) * axis + (slice(start, None, 2),)] for start in (0, 1))
        pairs = odd.shape[axis]
        best = torch.maximum(even.narrow(axis, 0, pairs), odd)
        unpaired = even.shape[axis] - pairs
        if self.kernel == 2:
            return torch.cat([best, even.narrow(axis, pairs, 1)], axis) if unpaired else best
        early = self.early and not unpaired
        windows = best.narrow(axis, int(early), pairs - 1 + unpaired)
        third = odd.narrow(axis, 0, pairs - 1) if early else even.narrow(axis, 1, pairs - 1 + unpaired)
        torch.maximum(windows, third, out=windows)
        return best


def _hide_padding(features: Tensor, sizes_hw: Tensor) -> None:
    """Keeps the padding out of the 2×2 pooling cells that straddle the end of (B, C, H, W) features, in place.

    Only an odd size has such cells: its last row pools alone, and would meet the first row of the padding.
    """
    for axis in (0, 1):
        sizes = sizes_hw[:, axis]
        picture = torch.nonzero((sizes > 0) & (sizes % 2 == 1) & (sizes < features.shape[2 + axis])).flatten()
        if len(picture):
            lowest = torch.finfo(features.dtype).min
            if axis == 0:
                features[picture, :, sizes[picture]] = lowest
            else:
                features[picture, :, :, sizes[picture]] = lowest


class Conv(nn.Conv2d):
    """A convolution without padding that goes to oneDNN whatever its size.

    For a single small picture torch picks its own kernels, which take three to five times as long on these layers.
    """

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.is_cuda or not torch.backends.mkldnn.enabled or not len(pictures):
            return super().forward(pictures)
        done: Tensor = torch.mkldnn_convolution(pictures, self.weight, self.bias, (0, 0), (1, 1), (1, 1), 1)
        return done


class Dense(nn.Linear):
    """(…, in) -> (…, out): a dense layer whose answer for a row has the same bits whatever other rows there are.

    On the CPU the library of matrix products takes another order of sums for another number of rows (convolutions do
    not). So the rows go through in blocks of one size, the last filled up with zeros.
    """

    def __init__(self, inputs: int, outputs: int, *, rows_at_once: int = 16) -> None:
        super().__init__(inputs, outputs)
        self.rows_at_once = rows_at_once

    def forward(self, features: Tensor) -> Tensor:
        if features.is_cuda:
            return super().forward(features)
        rows = features.reshape(-1, self.in_features)
        lacking = -len(rows) % self.rows_at_once
        blocks = torch.split(F.pad(rows, (0, 0, 0, lacking)) if lacking else rows, self.rows_at_once)
        done = torch.cat([super(Dense, self).forward(block) for block in blocks]) if blocks else rows @ self.weight.T
        return done[: len(rows)].reshape(*features.shape[:-1], self.out_features)


class Slopes(nn.PReLU):
    """PReLU that goes over whole rows of pixels at a time where the channels alone are no whole vectors.

    With ten channels torch's own takes nine times as long, a quarter of P-Net.
    """

    _row: tuple[int, Tensor] | None = None
    """The slopes of a long row of pixels, and the version of the weights that they are from."""

    def forward(self, features: Tensor) -> Tensor:
        count, channels, height, width = features.shape
        by_rows = not features.is_cuda and height * width > 256
        if not by_rows or not features.is_contiguous(memory_format=torch.channels_last):
            return super().forward(features)
        rows = features.permute(0, 2, 3, 1).reshape(count * height, width * channels)
        sloped = F.prelu(rows, self._slopes(width))
        return sloped.view(count, height, width, channels).permute(0, 3, 1, 2)

    def _slopes(self, width: int) -> Tensor:
        channels = len(self.weight)
        if self._row is None or self._row[0] != self.weight._version or len(self._row[1]) < width * channels:
            self._row = self.weight._version, self.weight.detach().repeat(1 << width.bit_length())
        return self._row[1][: width * channels]


def _conv(channels_in: int, channels_out: int, kernel: int = 3) -> list[nn.Module]:
    first = channels_in == 3  # the only layer on every pixel
    return [Conv(channels_in, channels_out, kernel), (Slopes if first else nn.PReLU)(channels_out)]


def _flat(features: Tensor) -> Tensor:
    return features.permute(0, 3, 2, 1).flatten(1)  # (B, C, H, W) -> (B, W·H·C), the order of the dense weights
