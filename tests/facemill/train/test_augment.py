"""Random warps and colours: their statistics, their reproducibility, and that target and weight stay together."""

from __future__ import annotations

import pytest
import torch

from facemill.train.augment import (
    GRID,
    PUBLISHED,
    Augmentation,
    augment,
    bend,
    centre,
    recolour,
    similarity_grids,
    warp_offsets,
)

STILL = Augmentation(rotation_deg=0, zoom=0, shift=0, flip=0, warp=0, colour_match=0, brightness=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def ramps() -> torch.Tensor:
    """(8, 3, 40, 40) uint8: x in red, y in green, a level of its own for each face in blue."""
    ticks = torch.arange(40, dtype=torch.uint8) * 6
    red, green = ticks.expand(40, 40), ticks[:, None].expand(40, 40)
    return torch.stack([torch.stack([red, green, torch.full((40, 40), 20 * at)]) for at in range(1, 9)]).byte()


def plain(faces: torch.Tensor, settings: Augmentation, seed: int = 0):
    return augment(faces, torch.full_like(faces[:, :1], 255), 32, 1.25, settings, generator(seed))


def test_with_all_strengths_zero_input_and_target_are_the_plain_centre(ramps: torch.Tensor) -> None:
    batch = plain(ramps, STILL)
    assert torch.equal(batch.warped, batch.target)
    assert torch.allclose(batch.target, centre(ramps, 32, 1.25), atol=1e-6)
    assert torch.allclose(batch.target, ramps[:, :, 4:36, 4:36] / 255, atol=1e-5)


def test_the_same_generator_state_gives_the_same_batch(ramps: torch.Tensor) -> None:
    first, second, other = (
        plain(ramps, Augmentation(), 5),
        plain(ramps, Augmentation(), 5),
        plain(ramps, Augmentation(), 6),
    )
    assert torch.equal(first.warped, second.warped)
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.warped, other.warped)


def test_output_stays_in_range_whatever_is_drawn(ramps: torch.Tensor) -> None:
    strong = Augmentation(rotation_deg=90, zoom=0.5, shift=0.5, warp=0.5, brightness=0.9, colour_match=1)
    batch = plain(ramps, strong)
    assert batch.warped.shape == batch.target.shape == (8, 3, 32, 32)
    assert 0 <= min(batch.warped.min(), batch.target.min()) <= max(batch.warped.max(), batch.target.max()) <= 1


def test_grid_points_move_with_unit_variance_but_for_the_similarity_part() -> None:
    offsets = warp_offsets(4000, generator())
    assert offsets.mean().item() == pytest.approx(0, abs=0.01)
    # 50 numbers lose 4 degrees of freedom: shift in x and y, zoom, rotation
    assert offsets.square().sum(dim=(1, 2, 3)).mean().item() == pytest.approx(46, rel=0.02)


def test_the_warp_asks_for_no_shift_zoom_or_rotation() -> None:
    x = torch.linspace(-1, 1, GRID).expand(GRID, GRID)
    y = x.T
    dx, dy = warp_offsets(50, generator()).unbind(1)
    for part in (dx, dy, dx * x + dy * y, dy * x - dx * y):
        assert part.sum(dim=(1, 2)).abs().max() < 1e-4


def test_the_warp_has_the_published_size() -> None:
    """5 of 160 px at the grid points, so that a point in the middle moves about 3 % of the side."""
    view = similarity_grids(3000, 33, 1.0, STILL, generator())
    moved = (bend(view, PUBLISHED.warp, generator()) - view)[:, 16, 16] / 2  # grid units are 2 for the side
    assert moved.std().item() == pytest.approx(5 / 160 * (46 / 50) ** 0.5, rel=0.06)


def test_flow_is_smooth() -> None:
    view = similarity_grids(20, 64, 1.0, STILL, generator())
    flow = bend(view, 5 / 160, generator()) - view
    steps = flow.diff(dim=1).abs().max() * 32  # in pixels of a 64 px picture
    assert steps < 1  # neighbours never fold over each other


def test_rotation_is_uniform_up_to_its_limit() -> None:
    grids = similarity_grids(3000, 9, 1.0, Augmentation(rotation_deg=10, zoom=0, shift=0, flip=0), generator())
    along = grids[:, 4, 8] - grids[:, 4, 0]
    angles = torch.rad2deg(torch.atan2(along[:, 1], along[:, 0]))
    assert angles.abs().max() <= 10.001
    assert angles.std().item() == pytest.approx(10 / 3**0.5, rel=0.05)


def test_flip_mirrors_that_share_of_the_faces() -> None:
    grids = similarity_grids(2000, 9, 1.0, Augmentation(flip=0.25, rotation_deg=0), generator())
    assert (grids[:, 4, 0, 0] > grids[:, 4, 8, 0]).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_colour_match_moves_a_face_towards_another_ones_mean(ramps: torch.Tensor) -> None:
    pictures = ramps / 255
    settings = Augmentation(colour_match=1, brightness=0)
    blue = recolour(pictures, settings, generator())[:, 2].mean(dim=(1, 2))
    assert blue.min() >= pictures[:, 2].min() - 1e-5
    assert blue.max() <= pictures[:, 2].max() + 1e-5
    assert not torch.allclose(blue, pictures[:, 2].mean(dim=(1, 2)))


def test_weights_follow_the_target(ramps: torch.Tensor) -> None:
    weights = (ramps[:, :1] > 120).byte() * 255  # right half
    settings = Augmentation(warp=0, colour_match=0, brightness=0)
    batch = augment(ramps, weights, 32, 1.25, settings, generator())
    assert ((batch.target[:, :1] > 126 / 255) == (batch.weight > 0.5)).float().mean() > 0.98
