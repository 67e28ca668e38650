"""What is particular about training DSFD: its objective, SGD in steps, and a start from nothing that does not explode.

The loop, the guards and the checkpoints are those of `facemill.train.engine`. Li et al. 2019, "DSFD", section 4.1: SGD,
momentum 0.9, weight decay 5e-4, batch 16, rate 1e-3 for 40,000 steps and a tenth of it for 10,000 more, twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facemill.detector_training.data import DetectionBatch
from facemill.detector_training.losses import BETA, LAMBDA, progressive_anchor_loss
from facemill.nets.dsfd import Dsfd, L2Norm
from facemill.train.objectives import ObjectiveBase, OptimizerSettings, Published

_INPUT_DEVIATION = 58.0
"""Of what the net feeds its first layer, levels of 255. Levelled weights are so much smaller there and their gradients
so much larger than for an input of deviation 1, as all other layers have it."""
_BIAS = 0.1
"""Of the other layers: room around a picture has the mean colour, which the net sees as 0, and with biases of 0 nearly
all of its features would be 0 there and L2Norm would divide by next to nothing."""
_NORM_LENGTH = 2.0
"""Length of a cell's features after L2Norm. The net's 10, 8 and 5 suit pretrained features: from scratch they make
the heads so much steeper than the rest that a rate for one is wrong for the other."""
_HEAD_DEVIATION = 0.1
"""Of a head's first answers: near zero, so that the first losses are those of a net that does not know."""


PAPER_OPTIMIZER = OptimizerSettings(kind="sgd", momentum=0.9, weight_decay=5e-4)
"""For pretrained weights. From nothing AdamW brings a net without normalisation layers off the ground in hundreds of
steps where SGD takes thousands."""


class DetectionObjective(ObjectiveBase):
    """One turn; the four parts of the progressive anchor loss, with their weights."""

    turns = ("detector",)

    def __init__(
        self, model: Dsfd, optimizer: OptimizerSettings = PAPER_OPTIMIZER, *, from_scratch: bool = False
    ) -> None:
        """from_scratch: the first layer has weights of `level_weights` and learns at the pace of the others."""
        super().__init__(model)
        self.published = Published(optimizer=optimizer)
        self._model = model
        if from_scratch:
            first = model.backbone[0].weight
            assert isinstance(first, Tensor)
            first.register_hook(lambda gradient: gradient / _INPUT_DEVIATION**2)

    def losses(self, turn: str, batch: DetectionBatch) -> dict[str, Tensor]:
        """Confidence and location of both shots; the loss itself runs in float32 in any precision of the net."""
        pictures = batch.pictures.float().div_(255)
        output = self._model(pictures)
        size_hw = (int(pictures.shape[2]), int(pictures.shape[3]))
        with torch.autocast(pictures.device.type, enabled=False):
            loss = progressive_anchor_loss(output, batch.targets, size_hw, self._model.config)
        return {
            "first_conf": loss.first_conf,
            "first_loc": BETA * loss.first_loc,
            "second_conf": LAMBDA * loss.second_conf,
            "second_loc": LAMBDA * BETA * loss.second_loc,
        }


@torch.no_grad()
def level_weights(model: Dsfd, pictures: Tensor, *, backbone: bool = True) -> None:
    """Scales every convolution so that it answers these pictures with deviation 1; heads with 0.1.

    Mishkin & Matas 2016, "All you need is a good init", without the orthogonal part. The products of the feature
    enhance module multiply: with Xavier's weights the finest enhanced map is some 1e-4 long where the plain one is 20,
    L2Norm divides by that length, and the first gradients have a norm of 1e7. Levelled, it is about 10.

    Args:
        model: with fresh weights; left in training mode.
        pictures: (N, 3, P, P) uint8, a training batch.
        backbone: False keeps backbone and L2Norm, where the backbone has pretrained weights.
    """
    heads = {*model.first_head.modules(), *model.second_head.modules()}
    kept = set() if backbone else set(model.backbone.modules())

    def level(conv: nn.Module, inputs: Any, answer: Tensor) -> Tensor:
        assert isinstance(conv, nn.Conv2d)
        deviation = answer.std() / (_HEAD_DEVIATION if conv in heads else 1.0)
        if not bool(torch.isfinite(deviation)) or float(deviation) < 1e-12:
            return answer
        bias = 0.0 if conv in heads else _BIAS
        conv.weight /= deviation
        assert conv.bias is not None
        conv.bias.fill_(bias)
        return answer / deviation + bias

    if backbone:
        _shorten(model.first_norms)
        _shorten(model.second_norms)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module not in kept]
    hooks = [conv.register_forward_hook(level) for conv in convs]
    try:
        model.train()
        model(pictures.float() / 255)
    finally:
        for hook in hooks:
            hook.remove()


def _shorten(norms: nn.ModuleList) -> None:
    for norm in norms:
        assert isinstance(norm, L2Norm)
        norm.weight.fill_(_NORM_LENGTH)
