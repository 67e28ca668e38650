"""Shrinks pictures and cuts square crops, by exact area means: OpenCV's INTER_AREA, on the host or on the device.

On the CPU OpenCV does it, picture by picture. On a device the whole letterbox is summed up once into integral images;
the mean over any rectangle is then four look-ups, between pixels by interpolation, which is exact since a pixel is
constant over its area. So a level of the pyramid, or a thousand crops of any size, is one batch of equal work.
(OpenCV's INTER_AREA is this same mean when it enlarges.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facemill.detect.letterbox import Letterbox

Pictures = Sequence[npt.NDArray[np.uint8]]
LOOK_UPS = 1 << 22
"""Output pixels in one pass on the device: bounds its memory (float64, three channels, four look-ups: about 0.5 GB)."""

LARGE_PX = 8_000_000
"""Larger pictures stay as they are on the host: as float32 with its sums a picture takes 24 bytes a pixel."""


class Pixels(Protocol):
    """Where the nets get their input from: the pictures of one letterbox."""

    def level(self, members: Sequence[int], sizes_hw: Sequence[tuple[int, int]]) -> Tensor:
        """The pictures `members` (places in the letterbox) at `sizes_hw`: (B, 3, H, W) float32, whole numbers 0…255,
        channels last, padded with black at right and bottom."""

    def crops(self, member: Tensor, squares_xyxy: Tensor, side_px: int) -> Tensor:
        """(N, 3, side_px, side_px) float32, channels last: `squares_xyxy` (N, 4) of the pictures `member` (N,), pixels
        counted from 1, last one included; black where they leave the picture."""


class HostPixels:
    """OpenCV on the CPU."""

    def __init__(self, pictures: Pictures, letterbox: Letterbox) -> None:
        # OpenCV shrinks float32 in two thirds of the time of uint8, and to the same values before rounding
        chosen = (pictures[row] for row in letterbox.rows)
        self.pictures: list[npt.NDArray[Any]] = [
            picture if _is_large(picture) else picture.astype(np.float32) for picture in chosen
        ]
        self.sums = [None if _is_large(picture) else _running_sums(picture) for picture in self.pictures]

    def level(self, members: Sequence[int], sizes_hw: Sequence[tuple[int, int]]) -> Tensor:
        height, width = np.max(sizes_hw, axis=0)
        canvas = np.zeros((len(members), height, width, 3), np.float32)
        for at, (member, (rows, columns)) in enumerate(zip(members, sizes_hw, strict=True)):
            level, sums = self.pictures[member], self.sums[member]
            if sums is not None and 2 * rows <= level.shape[0]:
                level = _rows_shrunk(level, sums, rows)
            canvas[at, :rows, :columns] = _resized(level, columns, rows)
        return torch.from_numpy(canvas).round_().permute(0, 3, 1, 2)

    def crops(self, member: Tensor, squares_xyxy: Tensor, side_px: int) -> Tensor:
        stack = np.zeros((len(member), side_px, side_px, 3), np.float32)
        squares = squares_xyxy.long().tolist()
        for crop, picture, square in zip(stack, member.tolist(), squares, strict=True):
            left, top, right, bottom = square
            _cut(self.pictures[picture], left, top, right, bottom, crop)
        return torch.from_numpy(stack).permute(0, 3, 1, 2)


class DevicePixels:
    """Integral images on the device (any torch device with float64)."""

    def __init__(self, pictures: Pictures, letterbox: Letterbox, device: torch.device) -> None:
        canvas = torch.from_numpy(letterbox.fill(pictures)).to(device)
        self.sizes_hw = torch.tensor(letterbox.sizes_hw, dtype=torch.float64, device=device)
        sums = canvas.cumsum(1, dtype=torch.int64).cumsum(2)
        self.sums = torch.nn.functional.pad(sums, (0, 0, 1, 0, 1, 0))  # (B, H + 1, W + 1, 3)

    def level(self, members: Sequence[int], sizes_hw: Sequence[tuple[int, int]]) -> Tensor:
        height, width = (int(side) for side in np.max(sizes_hw, axis=0))
        member = torch.tensor(members, device=self.sums.device)
        sizes = torch.tensor(sizes_hw, dtype=torch.float64, device=self.sums.device)
        step = self.sizes_hw[member] / sizes  # (B, 2), y and x
        # min: the edges of the padding all lie at the picture's end, so that its means are over nothing and black
        rows, columns = (
            torch.minimum(torch.arange(side + 1, device=step.device), sizes[:, axis, None]) * step[:, axis, None]
            for axis, side in enumerate((height, width))
        )
        levels = [
            self._means(member[part], rows[part], columns[part]).round_()
            for part in torch.split(torch.arange(len(member)), max(1, LOOK_UPS // (height * width)))
        ]
        return torch.cat(levels).permute(0, 3, 1, 2)

    def crops(self, member: Tensor, squares_xyxy: Tensor, side_px: int) -> Tensor:
        squares = squares_xyxy.to(torch.float64)
        first, size = squares[:, :2] - 1, (squares[:, 2:] - squares[:, :2] + 1).clamp(min=0)
        steps = torch.arange(side_px + 1, device=squares.device) / side_px
        columns, rows = (first[:, axis, None] + size[:, axis, None] * steps for axis in (0, 1))
        return self._means(member, rows, columns).permute(0, 3, 1, 2)

    def _means(self, member: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(N, h, w, 3) float32: means between the edges `rows` (N, h + 1) and `columns` (N, w + 1) in pixels, with
        black outside the picture; 0 over an empty area."""
        height, width = self.sums.shape[1] - 1, self.sums.shape[2] - 1
        y, y_part = _whole_and_part(rows, height)
        x, x_part = _whole_and_part(columns, width)
        flat = self.sums.view(-1, 3)
        base = member[:, None] * (height + 1)
        corner = [
            [((base + y + down) * (width + 1))[:, :, None] + (x + right)[:, None, :] for right in (0, 1)]
            for down in (0, 1)
        ]
        # Sums up to the edges of a pixel, then between them; integers, so that large pictures lose nothing
        at = [[flat[index].to(torch.float64) for index in pair] for pair in corner]
        across = [left + (right - left) * x_part[:, None, :, None] for left, right in at]
        sums = across[0] + (across[1] - across[0]) * y_part[:, :, None, None]  # (N, h + 1, w + 1, 3)
        totals = sums.diff(dim=1).diff(dim=2)
        areas = rows.diff(dim=1)[:, :, None] * columns.diff(dim=1)[:, None, :]
        return torch.where(areas[..., None] > 0, totals / areas[..., None].clamp(min=1e-12), 0.0).to(torch.float32)


def _whole_and_part(edges: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """Index of the pixel that each edge lies in and how far, 0…1; edges outside 0…size_px move to the end."""
    inside = edges.clamp(0, size_px)
    whole = inside.floor().clamp(max=size_px - 1)
    return whole.long(), inside - whole


def _is_large(picture: npt.NDArray[Any]) -> bool:
    return bool(picture.shape[0] * picture.shape[1] > LARGE_PX)


def _running_sums(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(H + 1, W, 3) sums of the rows above each row; whole numbers, exact in float32 up to 65,000 rows."""
    sums = np.zeros((picture.shape[0] + 1, *picture.shape[1:]), np.float32)
    for row, above, below in zip(picture, sums, sums[1:], strict=False):
        np.add(above, row, out=below)  # np.cumsum walks down the columns and takes four times as long
    return sums


def _rows_shrunk(
    picture: npt.NDArray[np.float32], sums: npt.NDArray[np.float32], height_px: int
) -> npt.NDArray[np.float32]:
    """The picture at another height, each row the mean of those it covers.

    OpenCV reads the whole picture for every level; from running sums a level costs what it has in rows, so that all the
    small ones together cost less than the first. (One pixel in ten thousand is then rounded the other way.)
    """
    step = picture.shape[0] / height_px
    edges = np.arange(height_px + 1) * step
    whole = np.minimum(edges.astype(np.intp), picture.shape[0] - 1)
    to_edge = picture[whole]
    to_edge *= (edges - whole).astype(np.float32)[:, None, None]
    to_edge += sums[whole]
    rows: npt.NDArray[np.float32] = to_edge[1:] - to_edge[:-1]
    rows /= np.float32(step)
    return rows


def _resized(picture: npt.NDArray[Any], width_px: int, height_px: int) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA), np.float32)


def _cut(
    picture: npt.NDArray[Any], left: int, top: int, right: int, bottom: int, crop: npt.NDArray[np.float32]
) -> None:
    """Writes the square (counted from 1, last pixel included) into `crop`; black where it leaves the picture."""
    left, top = left - 1, top - 1
    height, width = picture.shape[:2]
    if right <= left or bottom <= top:
        return
    inside = picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if left < 0 or top < 0 or right > width or bottom > height:
        whole = np.zeros((bottom - top, right - left, 3), np.float32)
        at_x, at_y = max(-left, 0), max(-top, 0)
        whole[at_y : at_y + inside.shape[0], at_x : at_x + inside.shape[1]] = inside
        inside = whole
    inside = inside.astype(np.float32, copy=False)
    cv2.resize(inside, (crop.shape[1], crop.shape[0]), dst=crop, interpolation=cv2.INTER_AREA)
