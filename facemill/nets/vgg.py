"""VGG16 and VGG19: their convolutions, features by layer name, and weights from the files that people have.

Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", table 1, D and E.
Layers are numbered as in torchvision's `features`: conv, ReLU, …, pool. Two families of weights are about: Caffe's (the
authors'; SSD's `vgg16_reducedfc`) for RGB in 0…255 minus a mean, torchvision's for RGB divided by a deviation too.
`read_vgg` moves the first convolution from the scale that a file was trained on to the one that a net feeds, so that
either serves any net here; only the zero padding at the picture's rim then means another grey (under 2 of 255 levels).
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.patience import WEIGHTS_SILENCE_S
from facemill.terms import Terms, Use
from facemill.weights import read_weights, require_finite

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions before each pooling, by depth."""
CHANNELS = (64, 128, 256, 512, 512)
DOWNLOADS = {
    16: "https://download.pytorch.org/models/vgg16-397923af.pth",
    19: "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}
"""torchvision's ImageNet weights (BSD); torch checks the file against the hash in its name."""


def vgg_terms(wanted: str, depth: int) -> tuple[Terms, ...]:
    """Of what `features` names: torchvision's weights where torch fetches them, else those of a file."""
    name, trained_on = f"VGG{depth}", "ImageNet, whose pictures are for research"
    remedy = "write `train: {options: {features: dlib}}`"
    if wanted == "download":
        return (Terms(name, Use.ANY, licence="BSD-3", source="torchvision", trained_on=trained_on),)
    licence = "those of whoever trained it"
    return (Terms(f"{name}'s weights", Use.UNKNOWN, licence, remedy=remedy, trained_on=trained_on, file=wanted),)


@dataclass(frozen=True)
class InputScale:
    """What a net's first layer is fed: (RGB in 0…255 − mean) / deviation."""

    mean_rgb: tuple[float, float, float]
    deviation_rgb: tuple[float, float, float]


CAFFE = InputScale((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
TORCHVISION = InputScale((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


class VggFeatures(nn.Module):
    """Activations of chosen layers, for losses that compare pictures by their features.

    depth: 16 or 19. layers: names such as "relu3_1" or "conv4_2" (see `layer_names`); nothing beyond the last of them
    is computed. width < 1 gives a narrow net for tests. Its weights are frozen, and random until `load` is called.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, depth: int = 19, layers: Sequence[str] = ("relu3_1", "relu4_1"), width: float = 1.0) -> None:
        super().__init__()
        names = layer_names(depth)
        if unknown := [name for name in layers if name not in names]:
            raise FacemillError(f"VGG{depth} has no layer {unknown[0]!r}; there are {', '.join(names)}")
        self.depth = depth
        self.wanted = {names.index(name): name for name in layers}
        stack = vgg_layers(depth, width=width)[: max(self.wanted) + 1]
        for at, layer in enumerate(stack):
            if isinstance(layer, nn.ReLU) and at - 1 in self.wanted:
                layer.inplace = False  # it would overwrite what was asked for
        self.features = nn.ModuleList(stack)
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(TORCHVISION.mean_rgb).view(1, 3, 1, 1) / 255, persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(TORCHVISION.deviation_rgb).view(1, 3, 1, 1) / 255, persistent=False
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) RGB in 0…1, sides of 16 px and more -> activations by layer name, in the net's order."""
        x = (pictures - self.mean) / self.deviation
        found = {}
        for at, layer in enumerate(self.features):
            x = layer(x)
            if at in self.wanted:
                found[self.wanted[at]] = x
        return found

    def load(self, path: Path | None, *, sha256: str | None = None) -> None:
        """Puts ImageNet weights in, from a file or, with None, by torch's download. Errors as `read_vgg`."""
        weights = read_vgg(path, self.depth, sha256=sha256, scale=TORCHVISION)
        own = self.features.state_dict()
        self.features.load_state_dict({name: weights.layers[name] for name in own})


@dataclass(frozen=True)
class VggWeights:
    """VGG's weights as a net here takes them."""

    layers: dict[str, Tensor]
    """`N.weight`, `N.bias` of each convolution, N as in `layer_names`; the first one in the scale asked for."""
    fc6: tuple[Tensor, Tensor] | None
    """Weight (1024, 512, 3, 3) and bias, for a conv of dilation 3; None where the file has no classifier."""
    fc7: tuple[Tensor, Tensor] | None
    """Weight (1024, 1024, 1, 1) and bias."""


def read_vgg(path: Path | None, depth: int, *, sha256: str | None = None, scale: InputScale = CAFFE) -> VggWeights:
    """VGG's weights, from a file or by torch's own download.

    Known names: torchvision's (`features.N`, `classifier.0`, `.3`) and SSD's `vgg16_reducedfc` (`N`, with fc6 and
    fc7 as 31 and 33).

    Args:
        path: the file; None downloads.
        depth: 16 or 19.
        sha256: 64 hex digits that the file must have; a `.pth` is not read without.
        scale: of the pictures that the net is fed; the first convolution is refolded to it.

    Raises:
        FacemillError: what `read_weights` raises, another net's weights, NaN, or no network to download from.
    """
    origin = path or DOWNLOADS[depth]
    state = read_weights(path, sha256=sha256) if path else _download(depth)
    if any(name.startswith("features.") for name in state):
        layers = {
            name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")
        }
        fc6, fc7 = (
            _decimated(state, "classifier.0", (4096, 512, 7, 7)),
            _decimated(state, "classifier.3", (4096, 4096, 1, 1)),
        )
        # torchvision's port of Caffe's features (IMAGENET1K_FEATURES) is known by a classifier without values
        ported = fc6 is not None and bool((torch.isnan(fc6[0]) | (fc6[0] == 0)).all())
        trained_on = CAFFE if ported else TORCHVISION
        fc6, fc7 = (None, None) if ported else (fc6, fc7)
    else:
        layers, trained_on = dict(state), CAFFE
        fc6, fc7 = _pair(state, "31", (1024, 512, 3, 3)), _pair(state, "33", (1024, 1024, 1, 1))
    for name, tensor in nn.ModuleList(vgg_layers(depth, device="meta")).state_dict().items():
        value = layers.get(name)
        if not isinstance(value, Tensor) or value.shape != tensor.shape:
            raise FacemillError(
                f"{origin} has no fitting weight for layer {name}: it is not VGG{depth}; name a file that is"
            )
        require_finite(value, name, origin)
    for name, pair in (("fc6", fc6), ("fc7", fc7)):
        for value in pair or ():
            require_finite(value, name, origin)
    layers["0.weight"], layers["0.bias"] = refold(layers["0.weight"], layers["0.bias"], trained_on, scale)
    return VggWeights(layers, fc6, fc7)


def refold(weight: Tensor, bias: Tensor, trained_on: InputScale, fed: InputScale) -> tuple[Tensor, Tensor]:
    """A first conv (C, 3, k, k) trained on one scale -> the one that answers the same when fed the other."""
    mean_from, mean_to = torch.tensor(trained_on.mean_rgb), torch.tensor(fed.mean_rgb)
    deviation_from, deviation_to = torch.tensor(trained_on.deviation_rgb), torch.tensor(fed.deviation_rgb)
    shift = weight.sum(dim=(2, 3)) @ ((mean_to - mean_from) / deviation_from)  # (C,)
    return weight * (deviation_to / deviation_from).view(1, 3, 1, 1), bias + shift


def vgg_layers(
    depth: int, *, width: float = 1.0, ceil_mode: bool = False, device: str | None = None
) -> list[nn.Module]:
    """conv, ReLU, …, pool as in `layer_names`. ceil_mode: poolings round odd sides up instead of down."""
    if depth not in BLOCKS:
        raise FacemillError(f"there is no VGG{depth} here; there are VGG16 and VGG19")
    layers: list[nn.Module] = []
    channels_in = 3
    for repeats, count in zip(BLOCKS[depth], CHANNELS, strict=True):
        for _ in range(repeats):
            channels = scaled(count, width)
            layers += [nn.Conv2d(channels_in, channels, 3, padding=1, device=device), nn.ReLU(inplace=True)]
            channels_in = channels
        layers.append(nn.MaxPool2d(2, 2, ceil_mode=ceil_mode))
    return layers


def layer_names(depth: int) -> list[str]:
    """conv1_1, relu1_1, …, pool5: the name of each layer at its number."""
    names = []
    for block, repeats in enumerate(BLOCKS[depth], start=1):
        for at in range(1, repeats + 1):
            names += [f"conv{block}_{at}", f"relu{block}_{at}"]
        names.append(f"pool{block}")
    return names


def scaled(channels: int, width: float) -> int:
    """The channels of a net narrowed to a share `width`, at least 4."""
    return max(4, round(channels * width))


def _decimated(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    """A dense layer as a conv with every fourth output and input channel and, of 7×7 places, every third.

    Chen et al. 2015, DeepLab, section 3.1 ("à trous"): places 0, 3, 6 are where a 3×3 conv of dilation 3 looks.
    """
    if f"{name}.weight" not in state:
        return None
    weight, bias = _required(state, name, (shape[0], shape[1] * shape[2] * shape[3]))
    from_every = 1 if shape[1] == 512 else 4  # fc6 reads all of conv5's channels, fc7 those of fc6 that are left
    return weight.view(shape)[::4, ::from_every, ::3, ::3].contiguous(), bias[::4].contiguous()


def _pair(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    return _required(state, name, shape) if f"{name}.weight" in state else None


def _required(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        raise FacemillError(f"VGG's {name} lacks its weight or its bias: the file is not whole")
    if weight.shape != shape or bias.shape != shape[:1]:
        raise FacemillError(f"VGG's {name} is {tuple(weight.shape)}, expected {shape}: it is another net's")
    return weight, bias


def _download(depth: int) -> dict[str, Any]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(WEIGHTS_SILENCE_S)  # torch's own download would wait for ever
    try:
        return dict(
            torch.hub.load_state_dict_from_url(
                DOWNLOADS[depth], map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
        )
    except (
        OSError,
        RuntimeError,
        http.client.HTTPException,
    ) as error:  # URLError is an OSError, a wrong hash a RuntimeError
        raise FacemillError(
            f"VGG{depth}'s weights could not be downloaded ({error}): fetch {DOWNLOADS[depth]} where there is a "
            "network and name the file, or train without start weights"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
