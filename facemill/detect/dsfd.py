"""DSFD (S1–S4) as a detector: pictures in, boxes out, with one look at each picture or with the paper's many.

Li et al. 2019, "DSFD: Dual Shot Face Detector", section 4.2: second shot only, the 5,000 most probable priors, NMS at
IoU 0.3, 750 boxes, left top rounded down and right bottom up. `looks="many"` is the protocol behind the paper's table:
a pyramid of scales and the mirrored picture, merged by box voting at IoU 0.3. It works through 19 times the pixels, and
its numbers must not be compared with those of a single look.

No weights come with facemill. `weights` names a folder that training wrote, or a checkpoint: ours, or the public VGG16
one (weights for research only, see its authors), whose names are mapped and which has square priors.

What differs from the authors' code: priors of all pictures of a batch are decoded at once, the threshold comes before
NMS, pictures share a batch on a GPU when they pad to the same multiple of 128 px, and boxes that only one look found
stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facemill.align import resized
from facemill.boxes import BoxConvention, iou, nms
from facemill.detect import Detector, Faces, register, require_rgb
from facemill.detect._dsfd_files import load_detector, save_detector
from facemill.errors import FacemillError
from facemill.nets.dsfd import INPUT_SCALE, Dsfd, DsfdOutput
from facemill.nets.dsfd_priors import decode, priors
from facemill.terms import Terms, Use

__all__ = ["DsfdDetector", "build", "load_detector", "save_detector", "vote"]

THRESHOLD = 0.5
"""Smallest face probability of a box. For precision-recall curves take 0.01, as evaluations of the field do."""
NMS_IOU, VOTING_IOU = 0.3, 0.3
TOP_PRIORS, TOP_BOXES = 5000, 750
PAD_PX = 128
"""Sides are padded to multiples of this: the largest stride, and few enough shapes that batches fill. A picture's
canvas depends on the picture alone (unlike `letterbox`'s), and so do its boxes, whatever else is in the batch."""
MAX_PIXELS = 4_000_000
"""Larger pictures are looked at smaller; bounds memory at about 2 GB in float32. The authors' GPU had room for
10.7 million (0x7FFFFFFF / 200)."""
BATCH_PIXELS = {"cpu": 1, "cuda": 16_000_000}
"""Pixels in one pass of the net, or one picture. On the CPU each goes alone: in company its sums would have another
order, and only pictures of at most 128 px would gain by it, an eighth of their time."""
_COMFORTABLE_PX = 24
"""A face is shown at about this size when only larger ones are asked for: 1.5 times the smallest prior."""


class Look(NamedTuple):
    """One pass of a picture through the net."""

    scale: float
    mirrored: bool = False
    min_longer_px: float = 0.0
    """Boxes whose longer side is shorter are left to other looks, in pixels of the picture."""
    max_shorter_px: float = float("inf")


def _shrunk(scale: float) -> Look:
    return Look(scale, min_longer_px=30)


def _enlarged(scale: float) -> Look:
    return Look(scale, max_shorter_px=100)


LOOKS: dict[str, tuple[Look, ...]] = {
    "one": (Look(1.0),),
    # the authors' test protocol, S3FD's before them; scales that a picture is too large for are left out
    "many": (
        Look(1.0),
        Look(1.0, mirrored=True),
        *map(_shrunk, (0.25, 0.5, 0.75)),
        *map(_enlarged, (1.25, 1.5, 1.75, 2.0, 2.25)),
    ),
}


def terms(options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """Those of whoever trained it: no weights come along."""
    return (
        Terms(
            "DSFD's weights",
            Use.UNKNOWN,
            licence="those of whoever trained it; Tencent's weights are for academic research only",
            source="docs/dsfd.md",
            trained_on="WIDER FACE, unless it learned from pictures of your own",
            remedy="state under `terms` whose they are, or take another detector, such as mtcnn",
            file=str(options.get("weights") or ""),
        ),
    )


@register("dsfd")
def build(
    min_face_px: int,
    device: str = "cpu",
    *,
    weights: Path | str | None = None,
    sha256: str | None = None,
    aspect: float | None = None,
    threshold: float = THRESHOLD,
    looks: str = "one",
    precision: str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Detector:
    """DSFD with the weights of a file or folder (see `load_detector` for `weights`, `sha256` and `aspect`)."""
    if weights is None:
        raise FacemillError("detector 'dsfd' brings no weights: name a trained folder or a checkpoint as `weights`")
    model = load_detector(Path(weights), sha256=sha256, aspect=aspect)
    return DsfdDetector(
        model,
        min_face_px=min_face_px,
        device=device,
        threshold=threshold,
        looks=looks,
        precision=precision,
        max_pixels=max_pixels,
    )


class DsfdDetector:
    """The net that it is handed, on RGB pictures of any size.

    looks: "one" or "many". precision: "float32", "bfloat16", "float16", or "auto": bfloat16 on a GPU that has it,
    else float32. (float16 may overflow: VGG's features are large.) max_pixels: of one picture in one look.
    """

    name = "dsfd"
    box_convention = BoxConvention(shift_y=-0.119, side=1.035)
    """Boxes as annotators draw them, which is what it learns: fitted on 105 faces of face_mask_voc. On as many others
    the mapped boxes overlap HOG's by 0.82 (median), and boxes scattered so give a landmark error of 0.029."""

    def __init__(
        self,
        model: Dsfd,
        *,
        min_face_px: int = 16,
        device: str = "cpu",
        threshold: float = THRESHOLD,
        looks: str = "one",
        precision: str = "auto",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if looks not in LOOKS:
            raise FacemillError(f"looks must be one of {', '.join(LOOKS)}, got {looks!r}")
        if not 0 <= threshold < 1:
            raise FacemillError(f"threshold is a probability, at least 0 and under 1, got {threshold}")
        if max_pixels < PAD_PX**2:
            raise FacemillError(f"max_pixels must be at least {PAD_PX**2}, got {max_pixels}")
        self.device = torch.device(device)
        self.dtype = choose_precision(precision, self.device)
        model.to(self.device, self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types no format alone
        self.model = model.eval()
        self.threshold, self.max_pixels, self.looks = threshold, max_pixels, LOOKS[looks]
        self.shrink = min(1.0, _COMFORTABLE_PX / min_face_px)

    @torch.inference_mode()
    def detect(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Faces]:
        """One `Faces` for each picture, most probable first, at most 750, without points."""
        for picture in pictures:
            require_rgb(picture)
        found: list[list[Boxes]] = [[] for _ in pictures]
        for look in self.looks:
            for row, boxes in self._look(pictures, look):
                found[row].append(boxes)
        return [_faces(boxes[0] if len(self.looks) == 1 else vote(_joined(boxes))) for boxes in found]

    def _look(self, pictures: Sequence[npt.NDArray[np.uint8]], look: Look) -> Iterator[tuple[int, Boxes]]:
        """The boxes of each picture that takes part, in its own pixels."""
        by_shape: dict[tuple[int, int], list[tuple[int, tuple[int, int]]]] = defaultdict(list)
        for row, picture in enumerate(pictures):
            size_hw = self._seen_size(picture.shape[:2], look.scale)
            if size_hw is not None:
                by_shape[_padded(size_hw)].append((row, size_hw))
        for shape, members in by_shape.items():
            at_once = max(1, BATCH_PIXELS.get(self.device.type, BATCH_PIXELS["cpu"]) // (shape[0] * shape[1]))
            for start in range(0, len(members), at_once):
                some = members[start : start + at_once]
                batch = np.stack([_seen(pictures[row], size, shape, look.mirrored) for row, size in some])
                for (row, size), boxes in zip(some, self._boxes(batch, [size for _, size in some]), strict=True):
                    yield row, _kept(_unseen(boxes, size, pictures[row].shape[:2], look.mirrored), look)

    def _boxes(self, batch: npt.NDArray[np.uint8], sizes_hw: list[tuple[int, int]]) -> Iterator[Boxes]:
        """(N, H, W, 3) uint8 -> the boxes of each after NMS, in pixels of the batch."""
        tensor = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)  # channels last in memory
        output = self.model(tensor.float() / 255)
        if not bool(torch.isfinite(output.second.logits).all() & torch.isfinite(output.second.offsets).all()):
            raise FacemillError(f"DSFD's answers overflow in {self.dtype}: set precision to float32")
        for boxes, size_hw in zip(
            candidates(output, batch.shape[1:3], self.model, self.threshold), sizes_hw, strict=True
        ):
            centres = (boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2
            inside = np.all((centres >= 0) & (centres <= size_hw[::-1]), axis=1)  # padding holds no faces
            yield suppressed(boxes.chosen(np.flatnonzero(inside)))

    def _seen_size(self, size_hw: Sequence[int], scale: float) -> tuple[int, int] | None:
        """Height and width at which a look shows a picture; None for an enlargement beyond max_pixels."""
        height, width = size_hw
        # padding adds most to a thin picture, whose short side counts as PAD_PX
        area, longest = max(height, PAD_PX) * max(width, PAD_PX), max(height, width)
        largest = min(sqrt(self.max_pixels / area), self.max_pixels / (PAD_PX * longest))
        wanted = self.shrink * scale
        if scale > 1 and wanted > largest:
            return None
        fitting = min(wanted, largest * min(scale, 1.0))
        return max(1, round(height * fitting)), max(1, round(width * fitting))


class Boxes(NamedTuple):
    """Boxes of one picture: xyxy (N, 4) float32 in pixels, scores (N,) float32 probabilities."""

    xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    def chosen(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Boxes:
        return Boxes(self.xyxy[rows], self.scores[rows])


def candidates(output: DsfdOutput, size_hw: Sequence[int], model: Dsfd, threshold: float) -> list[Boxes]:
    """The at most 5,000 most probable boxes over the threshold of each picture, before NMS, in pixels of the input."""
    shot = output.second
    places = priors(size_hw[0], size_hw[1], model.config.priors, 2, shot.offsets.device)
    probability = shot.logits.softmax(dim=2)[..., 1]  # (N, P)
    best = probability.topk(min(TOP_PRIORS, probability.shape[1]), dim=1)
    # one transfer and one decode for the whole batch; most batches have few priors over the threshold in any picture
    most = int((best.values > threshold).sum(dim=1).max())
    rows = best.indices[:, :most]
    offsets = shot.offsets.gather(1, rows[..., None].expand(-1, -1, 4))
    boxes = decode(places[rows], offsets).cpu().numpy()  # (N, most, 4)
    scores = best.values[:, :most].cpu().numpy()
    return [
        Boxes(xyxy[good], score[good])
        for xyxy, score in zip(boxes, scores, strict=True)
        for good in [score > threshold]
    ]


def suppressed(boxes: Boxes) -> Boxes:
    """The first 750 boxes that NMS keeps of boxes sorted by score, most probable first.

    What it keeps of the first boxes does not depend on the later ones, and mostly the first 1,500 are enough.
    """
    for count in (2 * TOP_BOXES, len(boxes.scores)):
        kept = nms(boxes.xyxy[:count], boxes.scores[:count], NMS_IOU)
        if len(kept) >= TOP_BOXES or count >= len(boxes.scores):
            break
    return boxes.chosen(kept[:TOP_BOXES])


def vote(boxes: Boxes, voting_iou: float = VOTING_IOU) -> Boxes:
    """Overlapping boxes of several looks made one: the mean box, weighted by score, with the highest score.

    From the most probable box on, each takes all that overlap it by voting_iou and are not yet taken (Gidaris &
    Komodakis 2015, section 4.3, as face detectors use it); at most 750 are made.
    """
    order = np.argsort(-boxes.scores, kind="stable")
    xyxy, scores = boxes.xyxy[order], boxes.scores[order]
    merged: list[npt.NDArray[np.float32]] = []
    strongest: list[np.float32] = []
    while len(scores) and len(merged) < TOP_BOXES:
        same = iou(xyxy[:1], xyxy)[0] >= voting_iou
        same[0] = True
        merged.append(np.average(xyxy[same], axis=0, weights=scores[same]).astype(np.float32))
        strongest.append(scores[0])
        xyxy, scores = xyxy[~same], scores[~same]
    return Boxes(np.array(merged, np.float32).reshape(-1, 4), np.array(strongest, np.float32))


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype that the net runs in. Raises FacemillError for an unknown name, or half precision on a CPU."""
    if precision == "auto":
        good = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if good else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision not in known:
        raise FacemillError(f"precision must be auto, {', '.join(known)}, got {precision!r}")
    if device.type == "cpu" and precision != "float32":
        raise FacemillError(f"precision {precision} is for GPUs, this detector runs on the CPU: use auto or float32")
    return known[precision]


def _faces(boxes: Boxes) -> Faces:
    """Left top rounded down, right bottom up; what has no area then is dropped."""
    xyxy = np.concatenate([np.floor(boxes.xyxy[:, :2]), np.ceil(boxes.xyxy[:, 2:])], axis=1).astype(np.float32)
    real = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1)
    return Faces(xyxy[real], boxes.scores[real])


def _joined(found: list[Boxes]) -> Boxes:
    return Boxes(np.concatenate([b.xyxy for b in found]), np.concatenate([b.scores for b in found]))


def _kept(boxes: Boxes, look: Look) -> Boxes:
    sides = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    return boxes.chosen((sides.max(axis=1) >= look.min_longer_px) & (sides.min(axis=1) <= look.max_shorter_px))


def _padded(size_hw: tuple[int, int]) -> tuple[int, int]:
    height, width = (-(-side // PAD_PX) * PAD_PX for side in size_hw)
    return height, width


def _seen(
    picture: npt.NDArray[np.uint8], size_hw: tuple[int, int], shape: tuple[int, int], mirrored: bool
) -> npt.NDArray[np.uint8]:
    """The picture at its size in a look, left top on a canvas of the mean colour, which the net sees as 0."""
    canvas = np.empty((*shape, 3), np.uint8)
    canvas[:] = INPUT_SCALE.mean_rgb
    small = picture if picture.shape[:2] == size_hw else _resized(picture, size_hw)
    canvas[: size_hw[0], : size_hw[1]] = small[:, ::-1] if mirrored else small
    return canvas


def _resized(picture: npt.NDArray[np.uint8], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    if size_hw[0] < picture.shape[0]:
        return resized(picture, size_hw[::-1])
    return np.asarray(cv2.resize(picture, size_hw[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _unseen(boxes: Boxes, seen_hw: tuple[int, int], size_hw: Sequence[int], mirrored: bool) -> Boxes:
    """Boxes of a look in pixels of the picture itself."""
    xyxy = boxes.xyxy
    if mirrored:
        xyxy = np.stack([seen_hw[1] - xyxy[:, 2], xyxy[:, 1], seen_hw[1] - xyxy[:, 0], xyxy[:, 3]], axis=1)
    factor = np.array([size_hw[1] / seen_hw[1], size_hw[0] / seen_hw[0]] * 2, np.float32)
    return Boxes(xyxy * factor, boxes.scores)
