"""Random warps and colours for batches of faces, on the device that trains (S13, S18).

The learning task of the autoencoder: the input is the face bent by a random 5×5 grid, the target is the same face
unbent, so the encoder has to find out what is there instead of copying pixels. `PUBLISHED` has the numbers of the
original program; the defaults are gentler, since our crops are aligned by 51 landmarks before they come here: on the
sample people the small preset ends 1,200 steps with DSSIM 0.066 instead of 0.095. In the original the target is aligned
to the bent grid by Umeyama; here the grid's motion loses its own similarity part before it is used, which is the same
to first order and needs no solver per face.

Everything random stands in a `Draws` of plain numbers, one row a face, drawn on the CPU before a pixel is touched.
So a batch is the same on every device, and a part of it (a micro-batch, the share of one of several processes) comes
out as it would in the whole. Masks and landmarks go where the pixels go. Colours are in `facemill.train.recolour`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from facemill.train.draws import GRID, Draws
from facemill.train.recolour import blur_in_motion, recolour
from facemill.train.settings import Augmentation

MIRRORED = (
    *reversed(range(17)),  # jaw
    *reversed(range(17, 27)),  # brows
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),  # mouth
)
"""Which of the 68 points stands where point i was, once the face is mirrored."""


PUBLISHED = Augmentation(rotation_deg=10, zoom=0.05, shift=0.05, flip=0.4, warp=5 / 160, colour_match=0, brightness=0)
"""S13's, for faces cut out by a detector's box."""


@dataclass(frozen=True)
class Sources:
    """Stored faces of one draw; the first axis is the same in all fields."""

    faces: Tensor  # (N, 3, W, W) uint8 RGB; shows `field` times the side that the net sees
    weights: Tensor  # (N, 1, W, W) uint8, 255 = full weight
    eyes: Tensor  # (N, 1, W, W) uint8, 255 on the eyes
    landmarks: Tensor  # (N, 68, 2) float32: x, y in pixels of the stored picture
    colours: Tensor  # (N, 3, 2) float: mean and standard deviation of each channel, of 0…1
    partners: Tensor  # (N, 3, 2) float: the same of the face whose colours are lent

    def __len__(self) -> int:
        return len(self.faces)

    def to(self, device: torch.device) -> Sources:
        """The same on a device; from pinned memory the copy does not wait."""
        return Sources(*(part.to(device, non_blocking=True) for part in vars(self).values()))


@dataclass(frozen=True)
class Batch:
    """Faces of one identity after augmentation; rows belong together."""

    warped: Tensor  # (N, 3, P, P) float in 0…1: what the net is given
    target: Tensor  # (N, 3, P, P) float in 0…1: what it has to give back
    weight: Tensor  # (N, 1, P, P) float ≥ 0: how much a pixel counts
    eyes: Tensor  # (N, 1, P, P) float in 0…1: 1 inside the widened, blurred hulls of the eyes (points 36–47)
    landmarks: Tensor  # (N, 68, 2) float: x, y in pixels of the target, mirrored points renamed to their own side

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, rows: slice) -> Batch:
        """The part of the batch that holds these faces, such as a micro-batch."""
        return Batch(*(part[rows] for part in vars(self).values()))


def augment(sources: Sources, draws: Draws, out_px: int, field: float, settings: Augmentation) -> Batch:
    """Makes a batch of (warped, target) pairs, each sampled once from the stored faces.

    Args:
        sources: the stored faces.
        draws: as many rows, on the same device.
        out_px: side of the net's input.
        field: side of the stored picture over the side of the net's view, ≥ 1: room for rotation and shift.
        settings: strengths.
    """
    pictures = sources.faces.float().div_(255)
    pictures = recolour(pictures, sources.colours, sources.partners, draws, settings)
    pictures = blur_in_motion(pictures, draws, settings)
    affine = similarities(draws, field, settings)
    view = grid_of(affine, out_px)
    warped = _sample(pictures, bend(view, settings.warp, draws))
    masks = torch.cat([sources.weights, sources.eyes], 1).float().div_(255)
    target = _sample(torch.cat([pictures, masks], 1), view)
    landmarks = move_landmarks(sources.landmarks, affine, sources.faces.shape[-1], out_px)
    return Batch(warped, target[:, :3], target[:, 3:4], target[:, 4:], landmarks)


def centre(faces: Tensor, out_px: int, field: float) -> Tensor:
    """The net's plain view of stored faces: (N, 3, W, W) uint8 → (N, 3, P, P) float in 0…1. Nothing is random."""
    affine = torch.eye(2, 3, device=faces.device).div_(field).expand(len(faces), 2, 3)
    return _sample(faces.float().div_(255), grid_of(affine, out_px))


def similarities(draws: Draws, field: float, settings: Augmentation) -> Tensor:
    """(N, 2, 3): from the output to the stored picture, both −1…1; rotated, zoomed, shifted, mirrored."""
    angle = torch.deg2rad(draws.signed("angle") * settings.rotation_deg)
    scale = (1 + draws.signed("zoom") * settings.zoom) / field
    mirror = 1 - 2 * (draws.unit("mirror") < settings.flip).float()
    shift = torch.stack([draws.signed("shift_x"), draws.signed("shift_y")], 1) * (2 * settings.shift / field)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    return torch.stack(rows, 1)


def grid_of(affine: Tensor, out_px: int) -> Tensor:
    """Where each output pixel looks: (N, 2, 3) → (N, P, P, 2) in −1…1 of the stored picture."""
    return functional.affine_grid(affine, [len(affine), 3, out_px, out_px], align_corners=False)


def bend(view: Tensor, sigma: float, draws: Draws) -> Tensor:
    """Moves a view (N, P, P, 2) by a smooth random flow; `sigma`: motion of a grid point as a share of the side."""
    if sigma == 0:
        return view
    out_px = view.shape[1]
    flow = functional.interpolate(warp_offsets(draws), size=(out_px, out_px), mode="bicubic", align_corners=True)
    extent = (view[:, -1, -1] - view[:, 0, 0]).norm(dim=1) / 2**0.5  # side of the view in units of the stored picture
    bent: Tensor = view + (sigma * extent)[:, None, None, None] * flow.permute(0, 2, 3, 1)
    return bent


def warp_offsets(draws: Draws) -> Tensor:
    """(N, 2, 5, 5) motions of the grid points, N(0, 1) minus their best-fitting shift, zoom and rotation."""
    noise = draws.normal("warp")
    basis = _similarity_basis(noise.device)
    return (noise - (noise @ basis) @ basis.T).view(len(noise), 2, GRID, GRID)


def move_landmarks(landmarks: Tensor, affine: Tensor, stored_px: int, out_px: int) -> Tensor:
    """(N, 68, 2) in pixels of the stored picture → pixels of the view that `affine` (N, 2, 3) describes."""
    stored = (landmarks + 0.5) * (2 / stored_px) - 1
    (a, b), (c, d) = affine[:, 0, :2].unbind(1), affine[:, 1, :2].unbind(1)
    determinant = a * d - b * c
    inverse = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / determinant[:, None, None]
    seen = ((stored - affine[:, None, :, 2]) @ inverse.mT + 1) * (out_px / 2) - 0.5
    return torch.where((determinant < 0)[:, None, None], seen[:, _mirrored(seen.device)], seen)


def _sample(pictures: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@cache
def _mirrored(device: torch.device) -> Tensor:
    return torch.tensor(MIRRORED, device=device)


@cache
def _similarity_basis(device: torch.device) -> Tensor:
    """(50, 4) orthonormal motions of the 25 grid points: shift in x, shift in y, zoom, rotation."""
    ticks = torch.linspace(-1, 1, GRID)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    columns = [torch.stack(pair).flatten() for pair in ((one, zero), (zero, one), (x, y), (-y, x))]
    basis = torch.stack(columns, 1)
    orthonormal: Tensor = basis / basis.norm(dim=0)
    return orthonormal.to(device)
