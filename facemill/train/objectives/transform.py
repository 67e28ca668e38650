"""The fast face-swap network's objective (S21, S22): for each person content, style, light and variation.

One turn. Each identity's net is shown faces of the others and moves alone:

    content/NAME      the features of what it drew are those of the face that it was shown: pose, expression
    style/NAME        each place looks like that place in one of NAME's 16 pictures with the nearest landmarks
    light/NAME        the light network finds the same light (left out without a file for it)
    variation/NAME    neighbouring pixels differ little

The functions and their formulas stand in `facemill.train.style`, the feature networks in `facemill.train.features`.

The paper weighs the losses by constants (style 80 to 120, light 1e22, variation 0.3) that belong to its normalisation
of features. Ours are found before the first step: each loss gets the weight at which its gradient, at a picture midway
between a stranger's face and the person's nearest one, has the share that `SHARES` states; and there content is 1. The
buffer `loss_weights` keeps them, so that a training that goes on has the same, and `describe` tells them to the model's
description. The rates are the paper's: Adam, 1e-3 falling to 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.nets import SwapModel
from facemill.nets import light as light_net
from facemill.nets.light import LightNet, light_features, load_light_net
from facemill.nets.transform import Transform
from facemill.terms import Terms
from facemill.train.augment import move_landmarks
from facemill.train.data import FaceSet
from facemill.train.features import DLIB, FaceFeatures, build_features, feature_terms
from facemill.train.objectives import Batches, ObjectiveBase, Published, register
from facemill.train.style import (
    NEAREST,
    balanced_weights,
    content_loss,
    light_loss,
    nearest_styles,
    squared_variation,
    style_loss,
    unit,
)

TURN = "transform"
SHARES = {"content": 1.0, "style": 2.0, "light": 0.5, "variation": 0.1}
"""Norm of each weighted gradient at the start, over that of content: ours; docs/transform.md has what others give.

The style's depends on the features, which state their own (`FaceFeatures.style_share`)."""
STYLE_PICTURES = 60
"""Of a person, as in the paper; mirrored ones come on top."""
BALANCED_FACES = 16
"""Strangers' faces on which the weights are found."""
NO_LIGHT = (
    "no light network, so the light loss is left out: train.options.light names the file that "
    "`python -m facemill.light_training` makes"
)
_CHUNK = 10  # pictures whose features are computed together


@dataclass(frozen=True)
class StyleSet:
    """What a person looks like, for the style loss; the first axis is the same in all tensors."""

    pictures: Tensor  # (S, 3, P, P) float in 0…1
    landmarks: Tensor  # (S, 68, 2) float, pixels of the pictures
    activations: Mapping[str, Tensor]  # (S, C, H, W) by layer, each place of length 1


class TransformObjective(ObjectiveBase):
    """Trains a `Transform`; `prepare` must have been called.

    features: of pictures. light: the light network; None leaves its loss out, `remarks` tells. shares: see `SHARES`.
    Both networks stay out of `module`, since they never change, and follow it to its device in `prepare`.
    """

    turns = (TURN,)
    published = Published(learning_rate=1e-3, final_rate=0.1, judged_by="identity_distance")

    def __init__(
        self,
        model: Transform,
        features: FaceFeatures,
        light: LightNet | None = None,
        *,
        shares: Mapping[str, float] = SHARES,
        style_pictures: int = STYLE_PICTURES,
    ) -> None:
        self.model, self._features, self._light = model, features, light
        self._shares = {name: share for name, share in shares.items() if share > 0 and (light or name != "light")}
        self._style_pictures = style_pictures
        self.remarks = () if light else (NO_LIGHT,)
        self._styles: dict[str, StyleSet] = {}
        self._stride = 1
        module = nn.ModuleDict({"model": model})
        module.register_buffer("loss_weights", torch.zeros(len(model.identities), len(self._shares)))
        super().__init__(module.to(next(model.parameters()).device))

    def prepare(self, sets: Mapping[str, FaceSet]) -> None:
        """Takes each person's style pictures, and finds the weights of the losses.

        Raises:
            FacemillError: one identity only, one without faces, or a loss without gradient.
        """
        names = self.model.identities
        if len(names) < 2:
            raise FacemillError(
                f"transform learns to draw {names[0]} from faces of others: give the dataset a second identity"
            )
        for identity in names:
            if identity not in sets or not len(sets[identity]):
                raise FacemillError(f"identity {identity!r} has no training face: give it sources, or leave it out")
        table = self.module.get_buffer("loss_weights")
        self._features.network.to(table.device)
        if self._light is not None:
            self._light.to(table.device)
        self._styles = {identity: self._style_set(sets[identity]) for identity in names}
        for at, identity in enumerate(names):
            strangers = self._styles[names[(at + 1) % len(names)]]
            weights = self._balance(identity, strangers)
            table[at] = torch.tensor([weights[name] for name in self._shares])

    def begin_step(self, step: int, total: int) -> None:
        """Another stranger's turn: with K identities, net i sees those of i + 1, i + 2, …, one in each step."""
        self._stride = 1 + step % max(len(self.model.identities) - 1, 1)

    def losses(self, turn: str, batch: Batches) -> dict[str, Tensor]:
        """`content/NAME` and so on, weighted, for each identity."""
        if not self._styles:
            raise FacemillError("transform was not prepared: call prepare() with the training faces first")
        names, table = self.model.identities, self.module.get_buffer("loss_weights")
        with torch.no_grad():
            joined = self._features.layers(torch.cat([batch[name].target for name in names]))[self._features.content]
            contents = torch.split(joined, [len(batch[name]) for name in names])
        losses: dict[str, Tensor] = {}
        for at, identity in enumerate(names):
            other = (at + self._stride) % len(names)
            given = batch[names[other]]
            nearest = nearest_styles(given.landmarks, self._styles[identity].landmarks)
            drawn = self.model(given.target, identity)
            found = self._compare(drawn, given.target, contents[other], self._styles[identity], nearest)
            losses |= {f"{name}/{identity}": table[at, k] * found[name] for k, name in enumerate(self._shares)}
        return losses

    def describe(self) -> dict[str, Any]:
        """For the model's description: features, light, shares, and the weights that came of them, by identity."""
        table = self.module.get_buffer("loss_weights").tolist()
        return {
            "features": self._features.what,
            "light": self._light is not None,
            "shares": dict(self._shares),
            "loss_weights": {
                identity: dict(zip(self._shares, row, strict=True))
                for identity, row in zip(self.model.identities, table, strict=True)
            },
        }

    def _compare(
        self, drawn: Tensor, given: Tensor, content: Tensor, styles: StyleSet, nearest: Tensor
    ) -> dict[str, Tensor]:
        """The losses of one net, not weighted."""
        found = self._features.layers(drawn)
        by_layer = [style_loss(found[layer], styles.activations[layer], nearest) for layer in self._features.style]
        losses = {
            "content": content_loss(found[self._features.content], content),
            "style": torch.stack(by_layer).sum(),
            "variation": squared_variation(drawn),
        }
        if self._light is not None:
            with torch.no_grad():
                wanted = light_features(self._light, given)
            losses["light"] = light_loss(light_features(self._light, drawn), wanted)
        return losses

    def _balance(self, identity: str, strangers: StyleSet) -> dict[str, float]:
        """The weights of one net's losses; see the module."""
        rows = torch.linspace(0, len(strangers.pictures) - 1, min(BALANCED_FACES, len(strangers.pictures))).long()
        given, styles = strangers.pictures[rows], self._styles[identity]
        nearest = nearest_styles(strangers.landmarks[rows], styles.landmarks, NEAREST)
        with torch.no_grad():
            content = self._features.layers(given)[self._features.content]
        midway = (given + styles.pictures[nearest[:, 0]]) / 2
        weights = balanced_weights(lambda x: self._compare(x, given, content, styles, nearest), midway, self._shares)
        with torch.no_grad():
            halfway = float(self._compare(midway, given, content, styles, nearest)["content"])
        return {name: weight / halfway for name, weight in weights.items()}

    def _style_set(self, faces: FaceSet) -> StyleSet:
        """Pictures spread evenly over the set, plain and mirrored, with their landmarks and activations."""
        count = min(len(faces), self._style_pictures)
        chosen = faces.take(torch.linspace(0, len(faces) - 1, count).round().long())
        chosen = chosen.to(self.module.get_buffer("loss_weights").device)
        plain = chosen.view(self.model.input_px)
        pictures = torch.cat([plain, plain.flip(3)])
        landmarks = torch.cat([_view_landmarks(chosen, self.model.input_px, mirror) for mirror in (False, True)])
        return StyleSet(pictures, landmarks, self._activations(pictures))

    def _activations(self, pictures: Tensor) -> dict[str, Tensor]:
        """Style activations of all pictures, each place of length 1; half precision where that is fast."""
        kept = torch.float16 if pictures.is_cuda else torch.float32
        pieces: dict[str, list[Tensor]] = {layer: [] for layer in self._features.style}
        with torch.no_grad():
            for piece in torch.split(pictures, _CHUNK):
                found = self._features.layers(piece)
                for layer, parts in pieces.items():
                    parts.append(unit(found[layer]).to(kept))
        return {layer: torch.cat(parts) for layer, parts in pieces.items()}


def terms(options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """Those of the feature network and of the light network."""
    return feature_terms(options.get("features", DLIB)) + (light_net.TERMS if options.get("light") else ())


@register("transform")
def build(
    model: SwapModel,
    *,
    features: str | None = DLIB,
    features_sha256: str | None = None,
    light: str | None = None,
    style_share: float | None = None,
    light_share: float = SHARES["light"],
    variation_share: float = SHARES["variation"],
    style_pictures: int = STYLE_PICTURES,
) -> TransformObjective:
    """The objective of a model that `facemill.nets.transform` built.

    Args:
        model: the nets.
        features: `dlib`, a file of VGG19's weights, `download`, `autoencoder:FOLDER` or `random`
            (`facemill.train.features`).
        features_sha256: of that file, which a `.pth` needs.
        light: the light network's file, from `python -m facemill.light_training`; none leaves the light loss out.
        style_share: how hard the style pulls at the start, over the content's pull; None leaves it to the features.
        light_share: the same of the light.
        variation_share: the same of the total variation.
        style_pictures: of each person, at most.

    Raises:
        FacemillError: another model, a number that makes no sense, or weights that cannot be used.
    """
    if not isinstance(model, Transform):
        raise FacemillError(f"the transform objective cannot train a {type(model).__name__}")
    compared = build_features(features, features_sha256)
    style = compared.style_share if style_share is None else style_share
    shares = {"content": 1.0, "style": style, "light": light_share, "variation": variation_share}
    if wrong := [name for name, share in shares.items() if not 0 <= share < float("inf")]:
        raise FacemillError(f"train.options.{wrong[0]}_share is {shares[wrong[0]]}: it must be a number from 0 up")
    if style_pictures < 1:
        raise FacemillError(f"train.options.style_pictures is {style_pictures}: at least one is needed")
    return TransformObjective(
        model,
        compared,
        load_light_net(Path(light)) if light else None,
        shares=shares,
        style_pictures=style_pictures,
    )


def _view_landmarks(faces: FaceSet, input_px: int, mirrored: bool) -> Tensor:
    """(N, 68, 2) in pixels of the plain view of stored faces, or of that view mirrored."""
    affine = torch.eye(2, 3, device=faces.landmarks.device).div_(faces.field).repeat(len(faces), 1, 1)
    if mirrored:
        affine[:, 0, 0] *= -1
    return move_landmarks(faces.landmarks, affine, faces.faces.shape[-1], input_px)
