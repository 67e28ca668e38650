"""The fast face-swap network: one small multi-scale net for each person, which turns anyone into that person (S20).

Korshunova, Shi, Dambre & Theis 2017, "Fast Face-swap Using Convolutional Neural Networks" (arXiv 1611.09577), section
2.1; the architecture is that of Ulyanov et al. 2016. For 128 px and 32 channels, the picture halved down to 8 px:

    8 px    3 → block 32 ─┐ ×2
    16 px   3 → block 32 ─┴ 64 → block 64 ─┐ ×2                              block(a → c): conv 3×3, ReLU,
    32 px   3 → block 32 ──────────────────┴ 96 → block 96 ─┐ ×2                           conv 3×3, ReLU,
    64 px   3 → block 32 ───────────────────────────────────┴ 128 → block 128 ─┐ ×2        conv 1×1, ReLU
    128 px  3 → block 32 ──────────────────────────────────────────────────────┴ 160 → block 160 → conv 1×1 → 3

Convs are padded with zeros, ×2 is nearest-neighbour, ┴ joins channels. 1,108,451 parameters at 128 px; 256 and 512 px
have one and two branches more and start from the trained smaller net (`grow`). What differs: the picture is halved by
averaging, and a sigmoid keeps the colours in 0…1, where the paper says nothing of either.

A net needs no pictures of those whom it is given, so it suits archives full of strangers; `forward` never looks at who
is on the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from facemill.errors import FacemillError
from facemill.nets import SwapModel, of_preset, register, state_key
from facemill.nets._blocks import zero_bias


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """Sizes of a net; the defaults are the paper's."""

    input_px: int = 128
    smallest_px: int = 8  # of the coarsest branch
    channels: int = 32  # of each branch, and what a join adds

    @property
    def sides_px(self) -> tuple[int, ...]:
        """Side of each branch's picture, coarse to fine: powers of two times `smallest_px`."""
        count = max(self.input_px // max(self.smallest_px, 1), 1).bit_length()
        return tuple(self.smallest_px << at for at in range(count))


PRESETS = {
    "classic": TransformConfig(),
    "classic256": TransformConfig(input_px=256),
    "classic512": TransformConfig(input_px=512),
    # a quarter of the pixels and of the weights: what CPU cores train in minutes
    "small": TransformConfig(input_px=64, channels=16),
}


class Transform(SwapModel):
    """One `TransformNet` for each identity, under its name; they share nothing.

    `identities` are distinct names, in the order of `.identities`.

    Raises:
        FacemillError: no identity, a repeated one, or sizes that are not halved evenly.
    """

    def __init__(self, identities: Sequence[str], config: TransformConfig | None = None) -> None:
        super().__init__()
        config = config or TransformConfig()
        _check_config(identities, config)
        self.identities = tuple(identities)
        self.input_px = config.input_px
        self.config = config
        self.nets = nn.ModuleDict({state_key(identity): TransformNet(config) for identity in identities})

    def forward(self, face: Tensor, identity: str) -> Tensor:
        """`face` (N, 3, P, P) RGB in 0…1, anybody's → the same pose and light as `identity`, same shape and range."""
        self.require(identity)
        drawn: Tensor = self.net(identity)(face)
        return drawn

    def start_from(self, trained: SwapModel) -> tuple[str, ...]:
        """See `SwapModel.start_from`; a smaller `Transform` is grown to this one's size first."""
        while isinstance(trained, Transform) and trained.input_px < self.input_px:
            trained = grow(trained)
        return super().start_from(trained)

    def net(self, identity: str) -> TransformNet:
        """The network that turns any face into this identity's."""
        return cast(TransformNet, self.nets[state_key(identity)])


class TransformNet(nn.Module):
    """The network of one person; see the drawing above. `branches` and `joins` run from coarse to fine."""

    def __init__(self, config: TransformConfig) -> None:
        super().__init__()
        width, count = config.channels, len(config.sides_px)
        self.branches = nn.ModuleList(_block(3, width) for _ in range(count))
        self.joins = nn.ModuleList(_block(width * at, width * at) for at in range(2, count + 1))
        self.to_rgb = nn.Conv2d(width * count, 3, 1)
        nn.init.xavier_uniform_(self.to_rgb.weight)
        zero_bias(self.to_rgb)

    def forward(self, face: Tensor) -> Tensor:
        """(N, 3, P, P) faces in 0…1 → the same shape and range: each face redrawn as the person of this network."""
        copies = [face]
        while len(copies) < len(self.branches):
            copies.append(functional.avg_pool2d(copies[-1], 2))
        coarsest, *finer = [branch(copy) for branch, copy in zip(self.branches, reversed(copies), strict=True)]
        x = coarsest
        for branch, join in zip(finer, self.joins, strict=True):
            x = join(torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), branch], 1))
        return torch.sigmoid(self.to_rgb(x).float())


def grow(model: Transform) -> Transform:
    """A net of twice the size that starts from a trained one (section 2.1): one branch more, every old weight copied.

    The new join lets the old channels through unchanged and `to_rgb` does not listen to the new ones yet, so that at
    first the large net draws just what the small one does, each pixel four times: it starts from what was learned.
    """
    config = replace(model.config, input_px=2 * model.config.input_px)
    grown = Transform(model.identities, config).to(next(model.parameters()).device)
    with torch.no_grad():
        for identity in model.identities:
            _continue(grown.net(identity), model.net(identity))
    return grown


@register("transform")
def build(preset: str, identities: Sequence[str]) -> Transform:
    """The networks of a preset. Raises FacemillError that names the presets for an unknown one."""
    return Transform(identities, of_preset("transform", PRESETS, preset))


def _block(channels_in: int, channels: int) -> nn.Sequential:
    """(C, H, W) → (channels, H, W): 3×3, 3×3 and 1×1, each with its ReLU; He's initial weights, zero biases."""
    convs = [
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.Conv2d(channels, channels, 1),
    ]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        zero_bias(conv)
    return nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU())))


def _continue(grown: TransformNet, trained: TransformNet) -> None:
    """Copies what `trained` has, and makes the last join and `to_rgb` pass it on."""
    weights, old_channels = trained.state_dict(), trained.to_rgb.in_channels
    for name, tensor in grown.state_dict().items():
        if not name.startswith("to_rgb") and name in weights:
            tensor.copy_(weights[name])
    for conv in grown.joins[-1].modules():
        if isinstance(conv, nn.Conv2d):
            rows, middle = torch.arange(old_channels), conv.kernel_size[0] // 2
            conv.weight[:old_channels] = 0
            conv.weight[rows, rows, middle, middle] = 1  # what came out of a ReLU passes the next one unchanged
    grown.to_rgb.weight[:, old_channels:] = 0
    grown.to_rgb.weight[:, :old_channels] = trained.to_rgb.weight
    if grown.to_rgb.bias is not None:
        grown.to_rgb.bias.copy_(weights["to_rgb.bias"])


def _check_config(identities: Sequence[str], config: TransformConfig) -> None:
    """Refuse what would build a net that cannot run."""
    if not identities or len(set(identities)) != len(identities):
        raise FacemillError(f"transform needs distinct identities, got {list(identities)}")
    if config.sides_px[-1] != config.input_px:
        raise FacemillError(
            f"input_px {config.input_px} cannot be halved down to {config.smallest_px} px: take a power of two times it"
        )
