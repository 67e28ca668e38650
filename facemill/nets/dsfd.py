"""DSFD: one net that looks for faces twice, on plain features (training only) and on enhanced ones.

Li, Wang, Wang, Tai, Qian, Yang, Wang, Li & Huang 2019, "DSFD: Dual Shot Face Detector", section 3, with the extended
VGG16 of its figure 2 (S1–S4 of the report). At 640×640:

    picture 3×640×640                      maps        enhanced maps      second shot: 3×3 conv on each enhanced map,
      │ VGG16 to conv3_3 ─► L2Norm 10    256×160×160 ─► 256×160×160       4 offsets and 2 logits a cell
      │       to conv4_3 ─► L2Norm 8     512× 80× 80 ─► 512× 80× 80       first shot: the same on the plain maps,
      │       to conv5_3 ─► L2Norm 5     512× 40× 40 ─► 512× 40× 40       with priors of half the size
      │ conv_fc6, conv_fc7              1024× 20× 20 ─► 1024×20× 20
      │ conv6_1, conv6_2                 512× 10× 10 ─► 512× 10× 10
      ▼ conv7_1, conv7_2                 256×  5×  5 ─► 256×  5×  5       34,125 priors

Feature enhance module (Eq. 1–2): a 1×1 conv on the map above, upsampled to twice its size, times a 1×1 conv on the map
itself; then three branches of 1, 2 and 3 dilated 3×3 convs give a third of the channels each. What comes out of the
product goes on down the pyramid. The paper leaves dilation (3), the ReLUs and the L2Norm on enhanced maps open; they
are as in the public VGG16 checkpoint, whose names `from_public_names` maps.

What differs: poolings round up, so that any picture size works (a map has ⌈side / stride⌉ cells; no difference where
32 divides the sides); L2Norm runs in float32 in any precision, for squares of features overflow float16.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.nets.dsfd_priors import PriorConfig
from facemill.nets.vgg import CAFFE, read_vgg, scaled, vgg_layers

INPUT_SCALE = CAFFE
"""RGB in 0…255 minus 123, 117, 104, as the public checkpoint is fed."""
TAPS = (15, 22, 29, 34)
"""Layers of `backbone` whose outputs are maps: ReLU of conv3_3, conv4_3, conv5_3, conv_fc7."""
CHANNELS = (256, 512, 512, 1024, 512, 256)
NORM_SCALES = (10.0, 8.0, 5.0)
"""Start values of L2Norm on the first three maps, whose activations are larger (Liu et al. 2015, ParseNet)."""
_FC6, _FC7 = 31, 33
DSFD_PARAMETERS = 49_793_432
"""Of the whole net at width 1; the second shot alone does without `first_norms` and `first_head`."""


@dataclass(frozen=True)
class DsfdConfig:
    """Options of net, priors and matching. The public VGG16 checkpoint has aspect 1.0 and match_iou 0.35."""

    aspect: float = 1.5
    """Height : width of a prior (section 3.3: most faces are higher than wide)."""
    match_iou: float = 0.4
    """A prior overlapping a face by this much is trained to find it (section 3.4)."""
    width: float = 1.0
    """Share of the channels that are kept. Below 1 a narrow net of the same shape, for CPUs and tests."""

    def __post_init__(self) -> None:
        if not (self.aspect > 0 and 0 < self.match_iou < 1 and 0 < self.width <= 1):
            raise FacemillError(f"DSFD wants aspect > 0, 0 < match_iou < 1 and 0 < width <= 1, got {self}")

    @property
    def priors(self) -> PriorConfig:
        """The priors that the net's outputs belong to."""
        return PriorConfig(aspect=self.aspect)


PUBLIC_VARIANT = DsfdConfig(aspect=1.0, match_iou=0.35)


@dataclass(frozen=True)
class Shot:
    """Answers for P priors, in the order of `facemill.nets.dsfd_priors.priors`."""

    offsets: Tensor
    """(N, P, 4), for `priors.decode`."""
    logits: Tensor
    """(N, P, 2): background, face."""


@dataclass(frozen=True)
class DsfdOutput:
    """Both shots in training; in evaluation the first is not computed."""

    first: Shot | None
    second: Shot


class Dsfd(nn.Module):
    """The dual shot face detector with random weights: Xavier's, zero biases."""

    mean: Tensor

    def __init__(self, config: DsfdConfig | None = None) -> None:
        super().__init__()
        self.config = config or DsfdConfig()
        channels = [scaled(count, self.config.width) for count in CHANNELS]
        self.backbone = _backbone(self.config.width)
        self.extras = _extras(self.config.width)
        self.first_norms = nn.ModuleList(map(L2Norm, channels[:3], NORM_SCALES))
        self.enhance = FeatureEnhance(channels)
        self.second_norms = nn.ModuleList(map(L2Norm, channels[:3], NORM_SCALES))
        self.first_head, self.second_head = Head(channels), Head(channels)
        self.register_buffer("mean", torch.tensor(INPUT_SCALE.mean_rgb).view(1, 3, 1, 1), persistent=False)
        self.apply(_initialise)

    def forward(self, pictures: Tensor) -> DsfdOutput:
        """pictures: (N, 3, H, W) RGB in 0…1, any size; evaluation mode gives the second shot only."""
        plain = self._maps(pictures)
        second = self.second_head(_normed(self.enhance(plain), self.second_norms))
        first = self.first_head(_normed(plain, self.first_norms)) if self.training else None
        return DsfdOutput(first, second)

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        """The six plain maps, not yet normed."""
        x = (pictures.float() * 255 - self.mean.float()).to(next(self.parameters()).dtype)
        maps = []
        for at, layer in enumerate(self.backbone):
            x = layer(x)
            if at in TAPS:
                maps.append(x)
        for at, conv in enumerate(self.extras):
            x = F.relu(conv(x))
            if at % 2:
                maps.append(x)
        return maps


class FeatureEnhance(nn.Module):
    """Section 3.2, Eq. 1–2, from the coarsest map to the finest; shapes stay."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        rising = channels[::-1]  # coarse to fine, as the pyramid is walked
        self.top_down = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise([rising[0], *rising]))
        self.lateral = nn.ModuleList(nn.Conv2d(count, count, 1) for count in rising[1:])
        self.branches = nn.ModuleList(Branches(count) for count in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        above = F.relu(self.top_down[0](maps[-1]))
        products = [above]
        for down, lateral, here in zip(self.top_down[1:], self.lateral, maps[-2::-1], strict=True):
            upper = F.interpolate(F.relu(down(above)), here.shape[2:], mode="bilinear", align_corners=False)
            above = F.relu(upper * lateral(here))
            products.append(above)
        return [branch(product) for branch, product in zip(self.branches, products[::-1], strict=True)]


class Branches(nn.Module):
    """Chains of 1, 2 and 3 dilated convs side by side: the same cell seen with three receptive fields."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        third = channels // 3
        widths = (third, third, channels - 2 * third)
        self.chains = nn.ModuleList(_dilated_chain(channels, width, at + 1) for at, width in enumerate(widths))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([chain(x) for chain in self.chains], dim=1))


class L2Norm(nn.Module):
    """Each cell's features at length 1, times a learnt scale for each channel."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        full = x.float()
        # clamped before the root, whose slope at 0 would make NaN of the gradient where a cell is all zero
        length = full.square().sum(dim=1, keepdim=True).clamp(min=1e-20).sqrt()
        return (full / length * self.weight.float().view(1, -1, 1, 1)).to(x.dtype)


class Head(nn.Module):
    """One 3×3 conv a map for offsets and one for logits."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.offsets = nn.ModuleList(nn.Conv2d(count, 4, 3, padding=1) for count in channels)
        self.logits = nn.ModuleList(nn.Conv2d(count, 2, 3, padding=1) for count in channels)

    def forward(self, maps: list[Tensor]) -> Shot:
        offsets = [_by_prior(conv(x), 4) for conv, x in zip(self.offsets, maps, strict=True)]
        logits = [_by_prior(conv(x), 2) for conv, x in zip(self.logits, maps, strict=True)]
        return Shot(torch.cat(offsets, dim=1).float(), torch.cat(logits, dim=1).float())


def load_vgg16(model: Dsfd, path: Path | None, *, sha256: str | None = None) -> None:
    """Puts VGG16's weights into the backbone, from a file or, with None, by torch's own download.

    Known are torchvision's `vgg16` (`features.N`, `classifier.0` and `.3`, of which fc6 and fc7 keep every fourth
    output and input, and of 7×7 places every third: Chen et al. 2015, DeepLab) and SSD's `vgg16_reducedfc` (`N`). A
    file of torchvision's names without values for its classifier leaves fc6 and fc7 as they are.

    Raises:
        FacemillError: what `read_vgg` raises, weights that do not fit, or a narrow model.
    """
    if model.config.width != 1:
        raise FacemillError(f"VGG16's weights fit width 1 only, this DSFD has width {model.config.width}: omit them")
    source = read_vgg(path, 16, sha256=sha256, scale=INPUT_SCALE)
    wanted = model.backbone.state_dict()
    state = {name: value for name, value in source.layers.items() if name in wanted}
    if source.fc6 is not None and source.fc7 is not None:
        for at, (weight, bias) in ((_FC6, source.fc6), (_FC7, source.fc7)):
            state |= {f"{at}.weight": weight, f"{at}.bias": bias}
    model.backbone.load_state_dict(state, strict=False)


_PUBLIC_NAMES = (
    (r"vgg\.(\d+)\.", r"backbone.\1."),
    (r"extras\.(\d+)\.", r"extras.\1."),
    (r"L2Normof(\d)\.", lambda found: f"first_norms.{int(found[1]) - 1}."),
    (r"L2Normef(\d)\.", lambda found: f"second_norms.{int(found[1]) - 1}."),
    (r"fpn_topdown\.(\d)\.", r"enhance.top_down.\1."),
    (r"fpn_latlayer\.(\d)\.", r"enhance.lateral.\1."),
    (r"fpn_fem\.(\d)\.branch1\.", r"enhance.branches.\1.chains.0.0."),
    (
        r"fpn_fem\.(\d)\.branch([23])\.(\d)\.",
        lambda found: f"enhance.branches.{found[1]}.chains.{int(found[2]) - 1}.{found[3]}.",
    ),
    (r"loc_pal1\.(\d)\.", r"first_head.offsets.\1."),
    (r"conf_pal1\.(\d)\.", r"first_head.logits.\1."),
    (r"loc_pal2\.(\d)\.", r"second_head.offsets.\1."),
    (r"conf_pal2\.(\d)\.", r"second_head.logits.\1."),
)


def from_public_names(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the public VGG16 checkpoint under this module's names.

    Args:
        state: bare, or `{"epoch": …, "weight": …}`, with or without the `module.` of data-parallel training.

    Returns:
        The same tensors. Names that are neither public nor ours stay, so that loading names them.
    """
    weights = state["weight"] if isinstance(state.get("weight"), Mapping) else state
    return {_own_name(str(name).removeprefix("module.")): value for name, value in weights.items()}


def _own_name(name: str) -> str:
    for pattern, replacement in _PUBLIC_NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return name


def _backbone(width: float) -> nn.ModuleList:
    """VGG16's layers under torchvision's numbers, pool5 as 30, then conv_fc6 (31) and conv_fc7 (33) as convs."""
    inside, outside = scaled(512, width), scaled(1024, width)
    return nn.ModuleList(
        [
            *vgg_layers(16, width=width, ceil_mode=True),
            nn.Conv2d(inside, outside, 3, padding=3, dilation=3),
            nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 1),
            nn.ReLU(inplace=True),
        ]
    )


def _extras(width: float) -> nn.ModuleList:
    counts = [scaled(count, width) for count in (1024, 256, 512, 128, 256)]
    kernels = [(1, 1, 0), (3, 2, 1), (1, 1, 0), (3, 2, 1)]  # kernel, stride, padding
    return nn.ModuleList(nn.Conv2d(a, b, *shape) for (a, b), shape in zip(pairwise(counts), kernels, strict=True))


def _dilated_chain(channels_in: int, channels: int, length: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for at in range(length):
        layers += [nn.Conv2d(channels if at else channels_in, channels, 3, padding=3, dilation=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])  # the last ReLU comes after the concatenation


def _normed(maps: list[Tensor], norms: nn.ModuleList) -> list[Tensor]:
    return [*(norm(x) for norm, x in zip(norms, maps[:3], strict=True)), *maps[3:]]


def _by_prior(answers: Tensor, values: int) -> Tensor:
    """(N, values, h, w) -> (N, h · w, values)."""
    return answers.permute(0, 2, 3, 1).reshape(len(answers), -1, values)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
