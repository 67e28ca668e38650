"""Random warps: their statistics, their reproducibility, and that masks and landmarks go where the pixels go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_training import plain_set

from facemill.align import MEAN_FACE, crop_points
from facemill.train.augment import (
    MIRRORED,
    PUBLISHED,
    Batch,
    Sources,
    augment,
    bend,
    centre,
    grid_of,
    similarities,
    warp_offsets,
)
from facemill.train.draws import GRID, Draws, draw_numbers
from facemill.train.settings import Augmentation

STILL = Augmentation(rotation_deg=0, zoom=0, shift=0, flip=0, warp=0, colour_match=0, brightness=0)
STRONG = Augmentation(
    rotation_deg=90, zoom=0.5, shift=0.5, warp=0.5, brightness=0.9, colour_match=1, light=0.5, motion_blur=1, lab=1
)


def recipe(count: int, draw: int = 0) -> Draws:
    return draw_numbers(count, seed=0, draw=draw)


def sources(faces: torch.Tensor) -> Sources:
    """Stored faces as a feed gathers them, with the next face for a partner."""
    stored = plain_set("anna", faces)
    return Sources(**stored.tensors, colours=stored.colours, partners=stored.colours.roll(1, 0))


@pytest.fixture
def ramps() -> torch.Tensor:
    """(8, 3, 40, 40) uint8: x in red, y in green, a level of its own for each face in blue."""
    ticks = torch.arange(40, dtype=torch.uint8) * 6
    red, green = ticks.expand(40, 40), ticks[:, None].expand(40, 40)
    return torch.stack([torch.stack([red, green, torch.full((40, 40), 20 * at)]) for at in range(1, 9)]).byte()


def plain(faces: torch.Tensor, settings: Augmentation, draw: int = 0) -> Batch:
    return augment(sources(faces), recipe(len(faces), draw), 32, 1.25, settings)


def views(count: int, settings: Augmentation, out_px: int = 9) -> torch.Tensor:
    return grid_of(similarities(recipe(count), 1.0, settings), out_px)


def test_with_all_strengths_zero_input_and_target_are_the_plain_centre(ramps: torch.Tensor) -> None:
    batch = plain(ramps, STILL)
    assert torch.equal(batch.warped, batch.target)
    assert torch.allclose(batch.target, centre(ramps, 32, 1.25), atol=1e-6)
    assert torch.allclose(batch.target, ramps[:, :, 4:36, 4:36] / 255, atol=1e-5)


def test_the_same_draw_gives_the_same_batch(ramps: torch.Tensor) -> None:
    first, second, other = (plain(ramps, STRONG, draw) for draw in (5, 5, 6))
    assert torch.equal(first.warped, second.warped)
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.warped, other.warped)


def test_a_part_of_a_batch_comes_out_as_it_does_in_the_whole(ramps: torch.Tensor) -> None:
    whole, numbers, rows = plain(ramps, STRONG), recipe(8), torch.tensor([2, 5, 6])
    some = Sources(*(part[rows] for part in vars(sources(ramps)).values()))
    part = augment(some, numbers.take(rows), 32, 1.25, STRONG)
    assert torch.allclose(part.warped, whole.warped[rows], atol=1e-5)
    assert torch.allclose(part.landmarks, whole.landmarks[rows])


def test_output_stays_in_range_whatever_is_drawn(ramps: torch.Tensor) -> None:
    batch = plain(ramps, STRONG)
    assert batch.warped.shape == batch.target.shape == (8, 3, 32, 32)
    assert 0 <= min(batch.warped.min(), batch.target.min()) <= max(batch.warped.max(), batch.target.max()) <= 1


def test_grid_points_move_with_unit_variance_but_for_the_similarity_part() -> None:
    offsets = warp_offsets(recipe(4000))
    assert offsets.mean().item() == pytest.approx(0, abs=0.01)
    # 50 numbers lose 4 degrees of freedom: shift in x and y, zoom, rotation
    assert offsets.square().sum(dim=(1, 2, 3)).mean().item() == pytest.approx(46, rel=0.02)


def test_the_warp_asks_for_no_shift_zoom_or_rotation() -> None:
    x = torch.linspace(-1, 1, GRID).expand(GRID, GRID)
    y = x.T
    dx, dy = warp_offsets(recipe(50)).unbind(1)
    for part in (dx, dy, dx * x + dy * y, dy * x - dx * y):
        assert part.sum(dim=(1, 2)).abs().max() < 1e-4


def test_the_warp_has_the_published_size() -> None:
    """5 of 160 px at the grid points, so that a point in the middle moves about 3 % of the side."""
    view = views(3000, STILL, 33)
    moved = (bend(view, PUBLISHED.warp, recipe(3000)) - view)[:, 16, 16] / 2  # grid units are 2 for the side
    assert moved.std().item() == pytest.approx(5 / 160 * (46 / 50) ** 0.5, rel=0.06)


def test_flow_is_smooth() -> None:
    view = views(20, STILL, 64)
    flow = bend(view, Augmentation().warp, recipe(20)) - view
    steps = flow.diff(dim=1).abs().max() * 32  # in pixels of a 64 px picture
    assert steps < 1  # neighbours never fold over each other


def test_rotation_is_uniform_up_to_its_limit() -> None:
    grids = views(3000, Augmentation(rotation_deg=10, zoom=0, shift=0, flip=0))
    along = grids[:, 4, 8] - grids[:, 4, 0]
    angles = torch.rad2deg(torch.atan2(along[:, 1], along[:, 0]))
    assert angles.abs().max() <= 10.001
    assert angles.std().item() == pytest.approx(10 / 3**0.5, rel=0.05)


def test_flip_mirrors_that_share_of_the_faces() -> None:
    grids = views(2000, Augmentation(flip=0.25, rotation_deg=0))
    assert (grids[:, 4, 0, 0] > grids[:, 4, 8, 0]).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_masks_follow_the_target(ramps: torch.Tensor) -> None:
    right_half = (ramps[:, :1] > 120).byte() * 255
    stored = sources(ramps)
    marked = Sources(**vars(stored) | {"weights": right_half, "eyes": 255 - right_half})
    batch = augment(marked, recipe(8), 32, 1.25, Augmentation(warp=0, colour_match=0, brightness=0))
    seen = batch.target[:, :1] > 126 / 255
    assert (seen == (batch.weight > 0.5)).float().mean() > 0.98
    assert (seen == (batch.eyes < 0.5)).float().mean() > 0.98


def test_landmarks_drawn_as_dots_stay_under_their_points() -> None:
    """Each of six points is a soft dot in a picture of its own; its centre of mass in the target is where it is said to
    be, to well within a pixel, mirrored or not."""
    width_px, out_px = 80, 64
    points = torch.tensor(crop_points(width_px, 2.2), dtype=torch.float32)
    ticks = torch.arange(width_px, dtype=torch.float32)
    settings = Augmentation(rotation_deg=10, zoom=0.05, shift=0.05, flip=0.5, colour_match=0, brightness=0)
    for which in (8, 19, 30, 36, 45, 54):
        x, y = points[which]
        dot = torch.exp(-((ticks[None] - x) ** 2 + (ticks[:, None] - y) ** 2) / 8)
        faces = (dot * 255).round().byte().expand(12, 3, width_px, width_px)
        stored = Sources(**vars(sources(faces)) | {"landmarks": points.expand(12, 68, 2)})
        numbers = recipe(12, which)
        batch = augment(stored, numbers, out_px, 1.25, settings)
        mass = batch.target[:, 0]
        grid = torch.arange(out_px, dtype=torch.float32)
        total = mass.sum((1, 2))
        found = torch.stack([(mass.sum(1) * grid).sum(1) / total, (mass.sum(2) * grid).sum(1) / total], 1)
        flipped = numbers.unit("mirror") < settings.flip
        said = torch.where(flipped[:, None], batch.landmarks[:, MIRRORED[which]], batch.landmarks[:, which])
        assert 0 < flipped.sum() < 12
        assert (found - said).norm(dim=1).max() < 0.3


def test_a_mirrored_face_has_its_points_on_their_own_sides() -> None:
    mirrored = MEAN_FACE[list(MIRRORED)] * [-1, 1] + [1, 0]
    assert np.abs(mirrored - MEAN_FACE).max() < 1e-3  # the mean face is symmetric
    assert sorted(MIRRORED) == list(range(68))
