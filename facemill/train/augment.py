"""Random warps and colours for batches of faces, on the device that trains (S13, S18).

The learning task of the autoencoder: the input is the face bent by a random 5×5 grid, the target is the same face
unbent, so the encoder has to find out what is there instead of copying pixels. `PUBLISHED` has the numbers of the
original program; the defaults are gentler, since our crops are aligned by 51 landmarks before they come here: on the
sample people the small preset ends 1,200 steps with DSSIM 0.066 instead of 0.095. In the original the target is aligned
to the bent grid by Umeyama; here the grid's motion loses its own similarity part before it is used, which is the same
to first order and needs no solver per face.

Everything random is drawn from one `torch.Generator`: the same state gives the same batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

GRID = 5  # points along a side of the warp grid


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strong each change is; all zero gives the plain centre of every face as input and target."""

    rotation_deg: float = 6.0  # uniform in ±
    zoom: float = 0.04  # uniform in 1 ±
    shift: float = 0.03  # uniform in ±, as a share of the side
    flip: float = 0.5  # probability of a mirrored face
    warp: float = 0.02  # standard deviation of a grid point, as a share of the side
    colour_match: float = 0.5  # probability of taking on the mean and contrast of another face
    brightness: float = 0.1  # uniform in 1 ±


PUBLISHED = Augmentation(rotation_deg=10, zoom=0.05, shift=0.05, flip=0.4, warp=5 / 160, colour_match=0, brightness=0)


@dataclass(frozen=True)
class Batch:
    """Faces of one identity after augmentation; rows belong together."""

    warped: Tensor  # (N, 3, P, P) float in 0…1: what the net is given
    target: Tensor  # (N, 3, P, P) float in 0…1: what it has to give back
    weight: Tensor  # (N, 1, P, P) float ≥ 0: how much a pixel counts, mean about 1


def augment(
    faces: Tensor, weights: Tensor, out_px: int, field: float, settings: Augmentation, generator: torch.Generator
) -> Batch:
    """Makes a batch of (warped, target) pairs, each sampled once from the stored faces.

    Args:
        faces: (N, 3, W, W) uint8 RGB; shows `field` times the side that the net sees.
        weights: (N, 1, W, W) uint8, 255 = full weight, sampled along with the target.
        out_px: side of the net's input.
        field: side of the stored picture over the side of the net's view, ≥ 1: room for rotation and shift.
        settings: strengths.
        generator: on the same device as `faces`.
    """
    pictures = recolour(faces.float().div_(255), settings, generator)
    view = similarity_grids(len(faces), out_px, field, settings, generator)
    warped = _sample(pictures, bend(view, settings.warp, generator))
    target = _sample(torch.cat([pictures, weights.float().div_(255)], 1), view)
    return Batch(warped, target[:, :3], target[:, 3:])


def centre(faces: Tensor, out_px: int, field: float) -> Tensor:
    """The net's plain view of stored faces: (N, 3, W, W) uint8 → (N, 3, P, P) float in 0…1. Nothing is random."""
    affine = torch.eye(2, 3, device=faces.device).div_(field).expand(len(faces), 2, 3)
    grid = functional.affine_grid(affine, [len(faces), 3, out_px, out_px], align_corners=False)
    return _sample(faces.float().div_(255), grid)


def similarity_grids(
    count: int, out_px: int, field: float, settings: Augmentation, generator: torch.Generator
) -> Tensor:
    """Where each output pixel looks: (N, P, P, 2) in −1…1 of the stored picture, rotated, zoomed, shifted, mirrored."""
    angle = torch.deg2rad(_uniform(count, settings.rotation_deg, generator))
    scale = (1 + _uniform(count, settings.zoom, generator)) / field
    mirror = 1 - 2 * (_unit(count, generator) < settings.flip).float()
    shift = torch.stack([_uniform(count, 2 * settings.shift, generator) for _ in "xy"], 1) / field
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    return functional.affine_grid(torch.stack(rows, 1), [count, 3, out_px, out_px], align_corners=False)


def bend(view: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Moves a view (N, P, P, 2) by a smooth random flow; `sigma`: motion of a grid point as a share of the side."""
    count, out_px = view.shape[:2]
    flow = functional.interpolate(
        warp_offsets(count, generator), size=(out_px, out_px), mode="bicubic", align_corners=True
    )
    extent = (view[:, -1, -1] - view[:, 0, 0]).norm(dim=1) / 2**0.5  # side of the view in units of the stored picture
    bent: Tensor = view + (sigma * extent)[:, None, None, None] * flow.permute(0, 2, 3, 1)
    return bent


def warp_offsets(count: int, generator: torch.Generator) -> Tensor:
    """(N, 2, 5, 5) motions of the grid points, N(0, 1) minus their best-fitting shift, zoom and rotation."""
    noise = torch.randn(count, 2 * GRID**2, generator=generator, device=generator.device)
    basis = _similarity_basis().to(noise)
    return (noise - (noise @ basis) @ basis.T).view(count, 2, GRID, GRID)


def recolour(pictures: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Lends faces the colour mean and contrast of others in the batch, more or less (S18); dims or lights them.

    A model that has seen everybody in everybody's light cannot tell people apart by tint, and keeps the light of the
    scene when it swaps them.
    """
    count = len(pictures)
    std, mean = torch.std_mean(pictures, dim=(2, 3), keepdim=True)
    partner = torch.randperm(count, generator=generator, device=generator.device)
    chosen = _unit(count, generator) < settings.colour_match
    share = (chosen * _unit(count, generator))[:, None, None, None]
    gain = (std[partner] / std.clamp_min(1e-3)).clamp(0.5, 2.0).pow(share)
    light = 1 + _uniform(count, settings.brightness, generator)[:, None, None, None]
    return ((pictures - mean) * gain + torch.lerp(mean, mean[partner], share)).mul_(light).clamp_(0, 1)


def _sample(pictures: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _similarity_basis() -> Tensor:
    """(50, 4) orthonormal motions of the 25 grid points: shift in x, shift in y, zoom, rotation."""
    ticks = torch.linspace(-1, 1, GRID)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    columns = [torch.stack(pair).flatten() for pair in ((one, zero), (zero, one), (x, y), (-y, x))]
    basis = torch.stack(columns, 1)
    orthonormal: Tensor = basis / basis.norm(dim=0)
    return orthonormal


def _unit(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device)


def _uniform(count: int, amplitude: float, generator: torch.Generator) -> Tensor:
    return (2 * _unit(count, generator) - 1) * amplitude
