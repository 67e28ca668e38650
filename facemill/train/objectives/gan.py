"""The GAN's objective (S15-S19): v2.2's losses with their published weights, and its schedule.

Two turns. The discriminator's: tell real faces from drawn ones, blended and raw, each seen beside the bent input it was
drawn from. The generator's, for each identity, with the pictures in −1…1:

    adversarial     0.1 · least squares, blended and raw       perceptual  (scheduled) features of a network
    reconstruction  1 · L1, and 1 · L1 of each side output     mask        (scheduled) 0.01 · |α| or 0.1 · hinge
    edge            0.1 · L1 of first differences              variation   0.1 · total variation of α
    eyes            30 · both of them inside the eye mask      cycle       (option) 10 · L1 there and back
    decay           1e-4 · Σ w² of all kernels

Pictures of all identities go through the encoder in one batch. Unlike the original, which moves the encoder once for A
and once for B, one update serves all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from facemill.errors import FacemillError
from facemill.nets import SwapModel
from facemill.nets.dlib_resnet import CHIP_PX
from facemill.nets.gan import Discriminator, Drawing, Gan
from facemill.nets.vgg import VggFeatures
from facemill.terms import Terms
from facemill.train.adversarial import (
    KINDS,
    draw_share,
    edge_loss,
    fool_loss,
    frozen,
    judge_loss,
    mask_loss,
    perceptual_loss,
    variation_loss,
    weight_decay,
)
from facemill.train.augment import Batch
from facemill.train.data import FaceSet
from facemill.train.features import DLIB, DLIB_WHAT, DlibFeatures, feature_terms
from facemill.train.objectives import Batches, ObjectiveBase, OptimizerSettings, Published, register
from facemill.train.schedule import Schedule, named_schedule

JUDGE, DRAW = "discriminator", "generator"
VGG_DEPTH, VGG_LAYERS, VGG_PX = 16, ("relu2_2", "relu3_3", "relu4_3", "pool5"), 224
"""Maps of 112, 56, 28 and 7 px: the sizes that v2.2 takes of VGGFace's ResNet50, whose weights nobody can ship."""
DLIB_GROUPS = ("group1", "group2", "group3", "group4")
"""Maps of 35, 17, 8 and 4 px."""
NARROW = 5_000_000
"""Nets of fewer parameters, such as the preset `small`, learn at a higher rate than the published one, and average."""
NO_FEATURES = (
    "no network for the perceptual loss, so it is left out: train.options.features names a file of VGG16's weights, "
    "or says dlib or download"
)


@dataclass(frozen=True, kw_only=True)
class GanWeights:
    """What each loss counts for; the defaults are those of faceswap-GAN v2.2."""

    adversarial: float = 0.1
    reconstruction: float = 1.0
    edge: float = 0.1
    eyes: float = 30.0
    variation: float = 0.1
    cycle: float = 10.0
    cycle_mask: float = 1.0  # 0.1 of the cycle's
    decay: float = 1e-4


class GanObjective(ObjectiveBase):
    """Trains a `Gan`. `module` holds the model and the discriminators.

    shared: one discriminator for all identities, like a critic of sharpness, instead of one for each.
    kind: `mixup` or `relativistic`, see `facemill.train.adversarial`.
    cycle: whether a face drawn as the next identity and back has to be the same.
    features: what the perceptual loss compares; None leaves it out, whatever the schedule says, and `remarks` tells.
    """

    turns = (JUDGE, DRAW)
    published = Published(
        learning_rate=1e-4,
        optimizer=OptimizerSettings(betas=(0.5, 0.999)),
        rate_factors={JUDGE: 2.0},
        warmup_steps=1,
        final_rate=1.0,
    )

    def __init__(
        self,
        model: Gan,
        *,
        shared: bool = False,
        kind: str = "mixup",
        cycle: bool = False,
        schedule: Schedule | None = None,
        features: FeatureMaps | None = None,
        weights: GanWeights | None = None,
    ) -> None:
        if kind not in KINDS:
            raise FacemillError(f"train.options.adversarial: there is no {kind!r}; there are {', '.join(KINDS)}")
        self.model, self._kind, self._cycle, self._features = model, kind, cycle, features
        self._schedule, self._weights = schedule or named_schedule("published"), weights or GanWeights()
        self._phase = self._schedule.at(0, self._schedule.length)
        self.remarks = () if features else (NO_FEATURES,)
        self.exact_in_parts = kind != "relativistic"  # which compares with the mean over the other pictures
        count = 1 if shared else len(model.identities)
        self._critics = nn.ModuleList(Discriminator(model.config) for _ in range(count))
        self._critic_of = {name: self._critics[at % count] for at, name in enumerate(model.identities)}
        module = nn.ModuleDict({"model": model, "discriminators": self._critics})
        super().__init__(module.to(next(model.parameters()).device))
        if sum(parameter.numel() for parameter in model.parameters()) < NARROW:
            self.published = replace(self.published, learning_rate=1e-3, ema_decay=0.995)

    def prepare(self, sets: Mapping[str, FaceSet]) -> None:
        """The feature network, which never changes and so is no part of `module`, follows it to its device."""
        if self._features is not None:
            self._features.to(next(self.model.parameters()).device)

    def describe(self) -> dict[str, Any]:
        """The network of the perceptual loss, and the kind of the adversarial one."""
        return {"features": None if self._features is None else self._features.what, "adversarial": self._kind}

    def parameters(self, turn: str) -> list[nn.Parameter]:
        """Those of the discriminators in their turn, those of encoder and decoders in the other."""
        return list((self._critics if turn == JUDGE else self.model).parameters())

    def begin_step(self, step: int, total: int) -> bool:
        """Takes up the schedule's phase; True when the decoders change places now."""
        before, self._phase = (self._schedule.at(at, total) for at in (max(step - 1, 0), step))
        due = self._phase.swaps > before.swaps
        if due:
            self.model.rotate_decoders()
        return due

    def rate(self, turn: str, step: int, total: int) -> float:
        """The factor that the schedule puts on the learning rate at this step."""
        return self._schedule.at(step, total).rate

    def losses(self, turn: str, batch: Batches) -> dict[str, Tensor]:
        """See the module's table; `NAME/IDENTITY`, and one `decay` for each turn."""
        if turn == JUDGE:
            return self._judge(batch)
        with frozen(self._critics):
            return self._draw(batch)

    def _judge(self, batch: Batches) -> dict[str, Tensor]:
        losses = {}
        with torch.no_grad():
            drawings = self._drawings(batch)
        for identity, faces in batch.items():
            given, real, drawing = faces.warped * 2 - 1, faces.target * 2 - 1, drawings[identity]
            versions = [_blend(drawing, given), drawing.raw]
            losses[f"discriminator/{identity}"] = judge_loss(
                self._critic_of[identity], real, versions, given, self._kind
            )
        return losses | {"decay/discriminator": self._weights.decay * weight_decay(self._critics)}

    def _draw(self, batch: Batches) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for identity, drawing in self._drawings(batch).items():
            losses |= {f"{name}/{identity}": loss for name, loss in self._compare(identity, drawing, batch).items()}
        return losses | {"decay/generator": self._weights.decay * weight_decay(self.model)}

    def _compare(self, identity: str, drawing: Drawing, batch: Batches) -> dict[str, Tensor]:
        """The generator's losses of one identity."""
        faces, weights = batch[identity], self._weights
        given, real = faces.warped * 2 - 1, faces.target * 2 - 1
        blended = _blend(drawing, given)
        fooled = fool_loss(self._critic_of[identity], real, [blended, drawing.raw], given, self._kind)
        losses = {
            "adversarial": weights.adversarial * fooled,
            "reconstruction": weights.reconstruction * _reconstruction(drawing, real),
            "edge": weights.edge * edge_loss(drawing.raw, real),
            "eyes": weights.eyes * _eyes(drawing, real, faces),
            "mask": mask_loss(drawing.alpha, self._phase.hinge),
            "variation": weights.variation * variation_loss(drawing.alpha),
        }
        if self._features is not None and self._phase.perceptual:
            mixed = torch.lerp(blended, drawing.raw, draw_share())  # one pass of the features for both
            losses["perceptual"] = perceptual_loss(self._features, mixed, real, side_px=self._features.side_px)
        if self._cycle:
            losses["cycle"] = self._there_and_back(identity, real)
        return losses

    def _drawings(self, batch: Batches) -> dict[str, Drawing]:
        """Everybody drawn as themselves from the bent input, all through one pass of the encoder."""
        codes = self.model.encode(torch.cat([faces.warped for faces in batch.values()]) * 2 - 1)
        pieces = torch.split(codes, [len(faces.warped) for faces in batch.values()])
        return {name: self.model.decode(code, name) for name, code in zip(batch, pieces, strict=True)}

    def _there_and_back(self, identity: str, real: Tensor) -> Tensor:
        """Weighted L1 between a face and what comes back from the next identity's raw picture; the masks alike."""
        names = self.model.identities
        there = self.model.decode(self.model.encode(real), names[(names.index(identity) + 1) % len(names)])
        back = self.model.decode(self.model.encode(there.raw), identity)
        pictures = (back.raw - real).abs().mean()
        return self._weights.cycle * pictures + self._weights.cycle_mask * (back.alpha - there.alpha).abs().mean()


def terms(options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """Those of the network of the perceptual loss."""
    return feature_terms(options.get("features", DLIB), VGG_DEPTH)


@register("gan")
def build(
    model: SwapModel,
    *,
    discriminator: str = "each",
    adversarial: str = "mixup",
    cycle: bool = False,
    schedule: str = "published",
    features: str | None = DLIB,
    features_sha256: str | None = None,
) -> GanObjective:
    """The objective of a model that `facemill.nets.gan` built.

    Args:
        model: the GAN.
        discriminator: `each` identity has one, or one `shared` by all.
        adversarial: `mixup` or `relativistic`.
        cycle: whether the cycle loss counts.
        schedule: of `facemill.train.schedule`: `published`, `long`, `plain` or `open`.
        features: what the perceptual loss compares by: `dlib`, its face recognition network, the nearest to v2.2's
            that can be had; a file of VGG16's weights, or `download`; null leaves the loss out.
        features_sha256: of that file, which a `.pth` needs.

    Raises:
        FacemillError: another model, a choice that there is not, or weights that cannot be used.
    """
    if not isinstance(model, Gan):
        raise FacemillError(f"the gan's objective cannot train a {type(model).__name__}")
    if discriminator not in ("each", "shared"):
        raise FacemillError(f"train.options.discriminator: there is no {discriminator!r}; there are each, shared")
    return GanObjective(
        model,
        shared=discriminator == "shared",
        kind=adversarial,
        cycle=cycle,
        schedule=named_schedule(schedule),
        features=None if features is None else feature_maps(features, features_sha256),
    )


class FeatureMaps(nn.Module):
    """(N, 3, P, P) RGB in 0…1 → four maps of a frozen network, the largest first.

    network: gives them by name. side_px: of the pictures that it wants. what: for the description of a model.
    """

    def __init__(self, network: nn.Module, side_px: int, what: str) -> None:
        super().__init__()
        self._network, self.side_px, self.what = network, side_px, what

    def forward(self, pictures: Tensor) -> list[Tensor]:
        return list(self._network(pictures).values())


def feature_maps(wanted: str, sha256: str | None = None) -> FeatureMaps:
    """What `train.options.features` names; errors as `read_vgg` and `load_dlib_resnet` have them."""
    if wanted == DLIB:
        return FeatureMaps(DlibFeatures(DLIB_GROUPS), CHIP_PX, DLIB_WHAT).eval()
    network = VggFeatures(VGG_DEPTH, VGG_LAYERS)
    network.load(None if wanted == "download" else Path(wanted), sha256=sha256)
    return FeatureMaps(network, VGG_PX, f"VGG{VGG_DEPTH}").eval()


def _blend(drawing: Drawing, given: Tensor) -> Tensor:
    """α·G + (1 − α)·input."""
    return torch.lerp(given, drawing.raw, drawing.alpha)


def _reconstruction(drawing: Drawing, real: Tensor) -> Tensor:
    """L1 of the raw picture and of the side outputs, each against the target at its own size."""
    losses = [(drawing.raw - real).abs().mean()]
    for side in drawing.sides:
        smaller = functional.interpolate(real, side.shape[2:], mode="bilinear", align_corners=False, antialias=True)
        losses.append((side - smaller).abs().mean())
    return torch.stack(losses).sum()


def _eyes(drawing: Drawing, real: Tensor, faces: Batch) -> Tensor:
    """L1 of picture and edges inside the eye mask, as means over the whole picture: large eyes count more."""
    eyes = faces.eyes
    return (eyes * (drawing.raw - real).abs()).mean() + edge_loss(drawing.raw, real, eyes)
