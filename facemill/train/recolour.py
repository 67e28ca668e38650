"""Other light and other colours for stored faces: colour match, motion blur (both S18), shading, jitter in Lab.

A model that has seen everybody in everybody's light cannot tell people apart by tint, and keeps the light of the
scene when it swaps them. Input and target are changed alike: what is learnt is to keep light and blur, not to undo
them. Shading, blur and Lab are off unless asked for: on the sample people, whose light hardly varies, the small
preset's validation loss after 220 steps is 0.167 with shading 0.15, 0.166 with S18's blur, and 0.164 without (one seed
each).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from facemill.train.draws import LIGHT, Draws
from facemill.train.settings import Recolouring


def recolour(pictures: Tensor, colours: Tensor, partners: Tensor, draws: Draws, settings: Recolouring) -> Tensor:
    """Lends faces the colour mean and contrast of others (S18), lights and shades them, jitters them in Lab.

    Args:
        pictures: (N, 3, W, W) in 0…1.
        colours: (N, 3, 2) mean and standard deviation of each picture's channels.
        partners: (N, 3, 2) the same of the faces whose colours are lent.
        draws: N rows.
        settings: strengths.

    Returns:
        As `pictures`, cut to 0…1.
    """
    mean, std = (part[:, :, None, None] for part in colours.unbind(2))
    mean_lent, std_lent = (part[:, :, None, None] for part in partners.unbind(2))
    chosen = draws.unit("match") < settings.colour_match
    share = (chosen * draws.unit("match_share"))[:, None, None, None]
    gain = (std_lent / std.clamp_min(1e-3)).clamp(0.5, 2.0).pow(share)
    light = 1 + (draws.signed("brightness") * settings.brightness)[:, None, None, None]
    if settings.light:
        light = light * shading(draws, settings.light, pictures.shape[-1])
    lit = ((pictures - mean) * gain + torch.lerp(mean, mean_lent, share)).mul_(light).clamp_(0, 1)
    return jitter_lab(lit, draws, settings) if settings.lab else lit


def shading(draws: Draws, strength: float, width_px: int) -> Tensor:
    """(N, 1, W, W) factors around 1: light that falls unevenly, from 3×3 random numbers, smooth in between."""
    field = draws.normal("light").view(len(draws), 1, LIGHT, LIGHT)
    smooth = functional.interpolate(field, size=(width_px, width_px), mode="bicubic", align_corners=True)
    return torch.exp(strength * smooth.clamp(-3, 3))


def jitter_lab(pictures: Tensor, draws: Draws, settings: Recolouring) -> Tensor:
    """Scales lightness and shifts a and b of some of the pictures."""
    chosen = (draws.unit("lab") < settings.lab).float()
    gain = 1 + chosen * draws.signed("lab_l") * settings.lab_lightness
    shift = torch.stack([draws.signed("lab_a"), draws.signed("lab_b")], 1) * chosen[:, None]
    lab = rgb_to_lab(pictures)
    lightness = (lab[:, :1] * gain[:, None, None, None]).clamp(0, 100)
    chroma = lab[:, 1:] + (shift * settings.lab_chroma * 128)[:, :, None, None]
    changed = lab_to_rgb(torch.cat([lightness, chroma], 1))
    return torch.where(chosen.bool()[:, None, None, None], changed, pictures)


def blur_in_motion(pictures: Tensor, draws: Draws, settings: Recolouring) -> Tensor:
    """Blurs some of the pictures along a random line (S18), as a hand or a head in motion does."""
    if settings.motion_blur == 0:
        return pictures
    count, channels, _, width_px = pictures.shape
    shortest, longest = (share * width_px for share in settings.blur_range)
    length = shortest + (longest - shortest) * draws.unit("blur_length")
    length = torch.where(draws.unit("blur") < settings.motion_blur, length, torch.zeros_like(length))
    kernels = motion_kernels(length, draws.unit("blur_angle") * torch.pi, 2 * int(longest / 2 + 1) + 1)
    side = kernels.shape[-1]
    padded = functional.pad(pictures, [side // 2] * 4, mode="reflect").view(
        1, count * channels, *_grown(pictures, side)
    )
    blurred = functional.conv2d(padded, kernels.repeat_interleave(channels, 0)[:, None], groups=count * channels)
    return blurred.view_as(pictures).clamp(0, 1)


def motion_kernels(length_px: Tensor, angle: Tensor, side_px: int) -> Tensor:
    """(N, K, K) kernels that sum to 1: a line of that length (0: a single pixel) and angle through the middle."""
    ticks = torch.arange(side_px, device=length_px.device) - side_px // 2
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    cos, sin = (part[:, None, None] for part in (torch.cos(angle), torch.sin(angle)))
    along, across = x * cos + y * sin, y * cos - x * sin
    beyond = (along.abs() - length_px[:, None, None] / 2).clamp_min(0)
    kernel = (1 - torch.hypot(beyond, across)).clamp_min(0)
    return kernel / kernel.sum(dim=(1, 2), keepdim=True)


def rgb_to_lab(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) sRGB in 0…1 → CIE Lab, D65: L 0…100, a and b about ±100."""
    linear = torch.where(pictures > 0.04045, ((pictures + 0.055) / 1.055).clamp_min(1e-8).pow(2.4), pictures / 12.92)
    xyz = _mix(linear, _TO_XYZ)
    bent = torch.where(xyz > _EPSILON, xyz.clamp_min(1e-8).pow(1 / 3), (_KAPPA * xyz + 16) / 116)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """(N, 3, H, W) CIE Lab as `rgb_to_lab` gives it → sRGB, cut to 0…1."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    bent = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(bent**3 > _EPSILON, bent**3, (116 * bent - 16) / _KAPPA)
    linear = _mix(xyz, _FROM_XYZ).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-8).pow(1 / 2.4) - 0.055, 12.92 * linear)


def _mix(pictures: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    channels = pictures.unbind(1)
    return torch.stack([a * channels[0] + b * channels[1] + c * channels[2] for a, b, c in matrix], 1)


def _grown(pictures: Tensor, side: int) -> tuple[int, int]:
    return pictures.shape[2] + side - 1, pictures.shape[3] + side - 1


# IEC 61966-2-1 primaries over the white point D65, so that white is (1, 1, 1); CIE 15:2004 for the bend
_TO_XYZ = ((0.433953, 0.376219, 0.189828), (0.212671, 0.715160, 0.072169), (0.017758, 0.109477, 0.872766))
_FROM_XYZ = ((3.079933, -1.537150, -0.542782), (-0.921235, 1.875992, 0.045244), (0.052891, -0.204043, 1.151151))
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27
