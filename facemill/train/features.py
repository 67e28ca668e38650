"""Feature networks by which a drawn face is compared: VGG19 where its weights are at hand, substitutes where not.

    `features:`            compares by                                                     worth
    a file, `download`     VGG19 trained on ImageNet: relu4_2, and relu3_1, relu4_1        the paper's choice
    `dlib`                 dlib's face recognition network: group 2, stem to group 4  knows faces; comes with us
    `autoencoder:FOLDER`   the encoder of a trained autoencoder: conv 3, and conv 1, 2     knows these faces only
    `random`               VGG19 of a quarter of the width, random orthogonal weights      edges and colours at several
                                                                                           scales, no notion of a face

The first layer is the content's, the others are the style's.

Random deep features do carry textures (Ustyuzhaninov et al. 2016, "Texture Synthesis Using Shallow Convolutional
Networks with Random Filters"), but what makes a face somebody's they tell no better than pixels do. What each gave is
in docs/transform.md. There is no silent way from one to another: a run says which it wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.model_folder import load_model
from facemill.nets import dlib_resnet
from facemill.nets._blocks import zero_bias
from facemill.nets.autoencoder import Autoencoder
from facemill.nets.dlib_resnet import CHIP_PX, load_dlib_resnet
from facemill.nets.light import resized
from facemill.nets.vgg import DOWNLOADS, VggFeatures, vgg_terms
from facemill.terms import Terms, Use
from facemill.train import ENCODER

CONTENT, STYLE = "relu4_2", ("relu3_1", "relu4_1")
RANDOM_WIDTH, RANDOM_SEED = 0.25, 19
DLIB, DLIB_WHAT = "dlib", "dlib's face recognition network"
DLIB_CONTENT, DLIB_STYLE = "group2", ("stem", "group1", "group2", "group3", "group4")


@dataclass(frozen=True)
class FaceFeatures:
    """A frozen network and the layers by which pictures are compared."""

    network: nn.Module  # (N, 3, P, P) RGB in 0…1 → activations by name
    content: str
    style: tuple[str, ...]
    what: str  # for the description of a model
    style_share: float = 2.0  # how hard the style should pull, over the content's pull

    def layers(self, pictures: Tensor) -> dict[str, Tensor]:
        """(N, 3, P, P) RGB in 0…1 → activations by layer name; gradients reach the pictures."""
        found: dict[str, Tensor] = self.network(pictures)
        return found


def build_features(wanted: str | None, sha256: str | None = None) -> FaceFeatures:
    """The features that `train.options.features` names, on the CPU.

    Args:
        wanted: see the table of this module.
        sha256: of the file with VGG19's weights, which a `.pth` needs.

    Raises:
        FacemillError: nothing was named, or what was named cannot be used; the message says what can be done.
    """
    if wanted is None:
        raise FacemillError(
            "transform compares faces by a feature network: set train.options.features to `dlib`, to a file with "
            f"VGG19's weights ({DOWNLOADS[19]}), to `download`, to `{ENCODER}FOLDER` of a trained autoencoder, or to "
            "`random`, which is worth much less (facemill/train/features.py says what each is worth)"
        )
    if wanted == "random":
        return random_features()
    if wanted == DLIB:
        # its content is much of what makes a face somebody's: with the others' share the person stays who they were
        return FaceFeatures(DlibFeatures(DLIB_STYLE), DLIB_CONTENT, DLIB_STYLE, DLIB_WHAT, style_share=5.0)
    if wanted.startswith(ENCODER):
        return encoder_features(Path(wanted.removeprefix(ENCODER)))
    network = VggFeatures(19, (*STYLE, CONTENT))
    network.load(None if wanted == "download" else Path(wanted), sha256=sha256)
    return FaceFeatures(network.eval(), CONTENT, STYLE, "VGG19")


def feature_terms(wanted: str | None, depth: int = 19) -> tuple[Terms, ...]:
    """The terms of the network that `train.options.features` names.

    Args:
        wanted: as `build_features` takes it.
        depth: of the VGG whose file it may be.
    """
    if wanted is None or wanted == "random":
        return ()
    if wanted == DLIB:
        return dlib_resnet.TERMS
    if wanted.startswith(ENCODER):
        folder = wanted.removeprefix(ENCODER)
        licence, remedy = "those of the model in the folder", "write `train: {options: {features: dlib}}`"
        return (Terms("the encoder of an autoencoder", Use.UNKNOWN, licence, remedy=remedy, file=folder),)
    return vgg_terms(wanted, depth)


def random_features(width: float = RANDOM_WIDTH) -> FaceFeatures:
    """VGG19 with orthogonal weights that are the same each time; √2 keeps the scale through its ReLUs."""
    network = VggFeatures(19, (*STYLE, CONTENT), width=width)
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, gain=sqrt(2), generator=generator)
            zero_bias(layer)
    return FaceFeatures(network.eval(), CONTENT, STYLE, f"random VGG19 of width {width}, untrained")


def encoder_features(folder: Path) -> FaceFeatures:
    """The first three convs of a trained autoencoder, at its own size.

    Raises:
        FacemillError: no model there, or one of another kind or with fewer convs.
    """
    model, meta = load_model(folder)
    if not isinstance(model, Autoencoder) or len(model.encoder) < 3:
        raise FacemillError(f"{folder} holds a {meta['name']}: features want a trained autoencoder")
    people = ", ".join(model.identities)
    return FaceFeatures(_Convs(model), "conv3", ("conv1", "conv2"), f"encoder of an autoencoder of {people}")


class DlibFeatures(nn.Module):
    """Activations of dlib's face recognition network.

    Args:
        layers: of `DlibResNet.maps`, in the net's order.

    Raises:
        FacemillError: dlib's file is missing.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        self.network, self._layers = load_dlib_resnet(), tuple(layers)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """(N, 3, P, P) RGB in 0…1, of any size → maps of 35 px for `stem` and `group1`, then of 17, 8, 4 and 2."""
        found = {}
        for name, activations in self.network.maps(resized(pictures, CHIP_PX)):
            found[name] = activations
            if name == self._layers[-1]:
                break
        return {name: found[name] for name in self._layers}


class _Convs(nn.Module):
    """The first convs of an autoencoder's encoder: `conv1` to `conv3`."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.input_px, self.convs = model.input_px, nn.ModuleList(list(model.encoder)[:3])
        self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        x = pictures if pictures.shape[-1] == self.input_px else resized(pictures, self.input_px)
        found = {}
        for at, conv in enumerate(self.convs, start=1):
            x = conv(x)
            found[f"conv{at}"] = x
        return found
