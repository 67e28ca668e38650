"""Losses of the adversarial models, as pure functions of tensors N×C×H×W; every one returns a scalar.

Pictures are in −1…1, as the nets draw them: the published weights belong to that range. Sources: Mao et al. 2017
(least squares), Zhang et al. 2018 (mixup), Jolicoeur-Martineau 2019 (relativistic average), faceswap-GAN v2.2 (S19).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from facemill.nets._blocks import whole_sample_norm

MIXUP = 0.2
"""Both parameters of the Beta distribution that a share of mixup is drawn from: mostly near 0 or near 1."""
KINDS = ("mixup", "relativistic")
Features = Callable[[Tensor], Sequence[Tensor]]
"""(N, 3, H, W) RGB in 0…1 → activations of a frozen network, large maps first."""
FEATURES_PX = 224
FEATURE_WEIGHTS = (0.1, 0.3, 0.1, 0.01)
"""Of v2.2 for maps of 112, 55, 28 and 7 px of VGGFace's ResNet50; other networks of four maps take them over."""


def least_squares(prediction: Tensor, wanted: float | Tensor) -> Tensor:
    """mean (D − wanted)²: 1 for real, 0 for drawn."""
    return (prediction.float() - wanted).square().mean()


def judge_loss(critic: nn.Module, real: Tensor, drawn: Sequence[Tensor], given: Tensor, kind: str) -> Tensor:
    """The discriminator's loss, summed over several versions of the drawn picture (blended and raw).

    Args:
        critic: (N, 6, P, P) → (N, 1, h, w).
        real: (N, 3, P, P) the true pictures.
        drawn: tensors like `real`; no gradient goes through them.
        given: (N, 3, P, P) what the pictures were drawn from; the critic sees it beside each.
        kind: `mixup`: the critic tells the share λ of the real picture in a mixture, λ ~ Beta(0.2, 0.2), one for all.
            `relativistic`: real pictures are 1 above the mean of drawn ones, and the reverse.
    """
    drawn = [picture.detach() for picture in drawn]
    if kind == "mixup":
        share = draw_share()
        mixed = [torch.lerp(picture, real, share) for picture in drawn]
        return torch.stack([least_squares(said, share) for said in _judge(critic, mixed, given)]).sum()
    said_real, *said_drawn = _judge(critic, [real, *drawn], given)
    return torch.stack([_relativistic(said_real, said) for said in said_drawn]).sum()


def fool_loss(critic: nn.Module, real: Tensor, drawn: Sequence[Tensor], given: Tensor, kind: str) -> Tensor:
    """The generator's loss against the same critic, not weighted; arguments as `judge_loss`."""
    if kind == "mixup":
        return torch.stack([least_squares(said, 1.0) for said in _judge(critic, drawn, given)]).sum()
    said_real, *said_drawn = _judge(critic, [real, *drawn], given)
    return torch.stack([_relativistic(said, said_real) for said in said_drawn]).sum()


def draw_share() -> float:
    """λ ~ Beta(0.2, 0.2), from torch's global generator, which the engine seeds anew for each turn."""
    return float(torch.distributions.Beta(torch.tensor(MIXUP), torch.tensor(MIXUP)).sample())


def edge_maps(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """|first differences| down and across, each (N, C, H − 1, W − 1)."""
    corner = pictures[:, :, :-1, :-1]
    return (corner - pictures[:, :, 1:, :-1]).abs(), (corner - pictures[:, :, :-1, 1:]).abs()


def edge_loss(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """L1 between the edges of two pictures, both directions summed; `weight` (N, 1, H, W) multiplies, unnormalised."""
    inner = 1.0 if weight is None else weight[:, :, :-1, :-1]
    pairs = zip(edge_maps(output), edge_maps(target), strict=True)
    return torch.stack([(inner * (of_output - of_target).abs()).mean() for of_output, of_target in pairs]).sum()


def mask_loss(alpha: Tensor, hinge: float | None) -> Tensor:
    """0.01 · mean |α|, or with a hinge 0.1 · mean max(0, hinge − α): the mask shall be small, or not too small."""
    if hinge is None:
        return 1e-2 * alpha.abs().mean()
    return 0.1 * (hinge - alpha).clamp_min(0).mean()


def variation_loss(alpha: Tensor) -> Tensor:
    """Total variation: mean |first differences|, both directions summed. A mask without holes and islands."""
    return torch.stack([edges.mean() for edges in edge_maps(alpha)]).sum()


def perceptual_loss(
    features: Features,
    output: Tensor,
    target: Tensor,
    weights: Sequence[float] = FEATURE_WEIGHTS,
    side_px: int = FEATURES_PX,
) -> Tensor:
    """Σ weight · mean squared difference of whole-sample normalised features; pictures in −1…1, resized to `side_px`.

    Features are computed in float32 and in 0…1; no gradient goes through the target.
    """
    losses = []
    with torch.autocast(output.device.type, enabled=False):
        with torch.no_grad():
            wanted = features(_resized(target, side_px))
        for weight, found, true in zip(weights, features(_resized(output, side_px)), wanted, strict=True):
            losses.append(weight * (whole_sample_norm(found) - whole_sample_norm(true)).square().mean())
    return torch.stack(losses).sum()


def weight_decay(module: nn.Module) -> Tensor:
    """Σ w² over the kernels of all convolutions: an L2 loss, so that Adam scales it, as the original has it."""
    kernels = [layer.weight.square().sum() for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    return torch.stack(kernels).sum()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients go through the module but not into its weights: half of a critic's backward pass is saved."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _resized(pictures: Tensor, side_px: int) -> Tensor:
    """−1…1 → 0…1 in float32, square."""
    scaled = pictures.float().add(1).div(2)
    return functional.interpolate(scaled, (side_px, side_px), mode="bilinear", align_corners=False)


def _judge(critic: nn.Module, pictures: Sequence[Tensor], given: Tensor) -> tuple[Tensor, ...]:
    """What the critic says of each of several batches, in one pass; float32."""
    whole = torch.cat([torch.cat([picture, given], dim=1) for picture in pictures])
    said: Tensor = critic(whole).float()
    return said.chunk(len(pictures))


def _relativistic(high: Tensor, low: Tensor) -> Tensor:
    """Half of both sides: `high` shall be 1 above the mean of `low`, and `low` 1 below the mean of `high`."""
    above = high - low.mean(dim=0, keepdim=True)
    below = low - high.mean(dim=0, keepdim=True)
    return (least_squares(above, 1.0) + least_squares(below, -1.0)) / 2
