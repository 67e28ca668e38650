"""Progressive anchor loss (DSFD): the multi-box loss of both shots, each on its own priors.

Li et al. 2019, "DSFD: Dual Shot Face Detector", section 3.3, Eq. 3–5:

    L_shot = 1/N · (Σ L_conf + β · Σ p* · L_loc)        softmax cross-entropy and smooth L1, N = matched priors
    L_PAL  = L_first(half-size priors) + λ · L_second(priors)

The paper gives no numbers for λ and β; 1 and 1 here, as in every implementation. Σ L_conf runs over the matched priors
and, of the others, over the three times as many that look most like a face (hard-negative mining 3 : 1, picture by
picture: Liu et al. 2016, SSD, section 2.2). A picture without any matched prior counts as one with one: it teaches its
three worst false alarms instead of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facemill.nets.dsfd import DsfdConfig, DsfdOutput, Shot
from facemill.nets.dsfd_priors import BACKGROUND, PriorConfig, encode, match, priors

NEGATIVES_PER_POSITIVE = 3
LAMBDA, BETA = 1.0, 1.0


@dataclass(frozen=True)
class DetectionLoss:
    """0-d tensors: the sum that is trained on, and its parts."""

    total: Tensor
    first_conf: Tensor
    first_loc: Tensor
    second_conf: Tensor
    second_loc: Tensor


def progressive_anchor_loss(
    output: DsfdOutput, targets: Sequence[Tensor], size_hw: tuple[int, int], config: DsfdConfig
) -> DetectionLoss:
    """The loss of a batch.

    Args:
        output: of a net in training mode.
        targets: for each picture (G, 4) float xyxy in pixels of the input; G may be 0.
        size_hw: height and width of the input in pixels.
        config: of the net.

    Raises:
        ValueError: the first shot is missing.
    """
    if output.first is None:
        raise ValueError("the first shot is missing: the loss needs a net in training mode")
    first_conf, first_loc = shot_loss(output.first, targets, size_hw, config.priors, 1, config.match_iou)
    second_conf, second_loc = shot_loss(output.second, targets, size_hw, config.priors, 2, config.match_iou)
    total = first_conf + BETA * first_loc + LAMBDA * (second_conf + BETA * second_loc)
    return DetectionLoss(total, first_conf, first_loc, second_conf, second_loc)


def shot_loss(
    answers: Shot,
    targets: Sequence[Tensor],
    size_hw: tuple[int, int],
    config: PriorConfig,
    shot: int,
    match_iou: float,
) -> tuple[Tensor, Tensor]:
    """(confidence loss, location loss) of one shot, both over N; float32 whatever the net's precision."""
    logits, offsets = answers.logits.float(), answers.offsets.float()
    places = priors(*size_hw, config, shot, logits.device)
    boxes = [target.to(logits.device, torch.float32).reshape(-1, 4) for target in targets]
    taken = torch.stack([match(places, picture_boxes, match_iou) for picture_boxes in boxes])  # (N, P)
    positive = taken != BACKGROUND
    count = positive.sum(dim=1).clamp(min=1)
    matched = count.sum()
    return (
        _confidence(logits, positive, NEGATIVES_PER_POSITIVE * count) / matched,
        _location(offsets, places, boxes, taken) / matched,
    )


def _confidence(logits: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Σ cross-entropy of the positives and, in each picture, of so many negatives with the highest loss."""
    loss = F.cross_entropy(logits.flatten(0, 1), positive.flatten().long(), reduction="none").view_as(positive)
    hardest = loss.masked_fill(positive, -torch.inf).sort(dim=1, descending=True).values
    rank = torch.arange(hardest.shape[1], device=loss.device)
    mined = (rank < negatives[:, None]) & (hardest != -torch.inf)  # a picture may have fewer; NaN stays to be seen
    return loss[positive].sum() + hardest[mined].sum()


def _location(offsets: Tensor, places: Tensor, boxes: list[Tensor], taken: Tensor) -> Tensor:
    """Σ smooth L1 over the offsets of the positives."""
    total = offsets.sum() * 0  # keeps the graph where no prior matches
    for at, picture_boxes in enumerate(boxes):
        positive = taken[at] != BACKGROUND
        if bool(positive.any()):
            wanted = encode(places[positive], picture_boxes[taken[at][positive]])
            total = total + F.smooth_l1_loss(offsets[at][positive], wanted, reduction="sum")
    return total
