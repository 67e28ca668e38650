"""Other light and colours: known values, smooth shading, kernels that only spread light."""

from __future__ import annotations

import math

import pytest
import torch

from facemill.train.draws import draw_numbers
from facemill.train.recolour import (
    Recolouring,
    blur_in_motion,
    jitter_lab,
    lab_to_rgb,
    motion_kernels,
    recolour,
    rgb_to_lab,
    shading,
)

NOTHING = Recolouring(colour_match=0, brightness=0)


@pytest.fixture
def pictures() -> torch.Tensor:
    """(8, 3, 24, 24) noise in 0.2…0.6, a level of its own for each."""
    noise = torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    return 0.2 * noise + torch.linspace(0.2, 0.4, 8)[:, None, None, None]


def colours(pictures: torch.Tensor) -> torch.Tensor:
    std, mean = torch.std_mean(pictures, dim=(2, 3))
    return torch.stack([mean, std], 2)


def changed(pictures: torch.Tensor, settings: Recolouring, draw: int = 0) -> torch.Tensor:
    own = colours(pictures)
    return recolour(pictures, own, own.flip(0), draw_numbers(len(pictures), 1, draw), settings)


def test_zero_strengths_change_nothing(pictures: torch.Tensor) -> None:
    assert torch.allclose(changed(pictures, NOTHING), pictures, atol=1e-6)
    assert blur_in_motion(pictures, draw_numbers(8, 1, 0), NOTHING) is pictures


def test_colour_match_lends_mean_and_contrast_in_part(pictures: torch.Tensor) -> None:
    matched = changed(pictures, Recolouring(colour_match=1, brightness=0))
    own, lent = colours(pictures)[:, 0, 0], colours(pictures).flip(0)[:, 0, 0]
    share = draw_numbers(8, 1, 0).unit("match_share")
    assert torch.allclose(matched[:, 0].mean((1, 2)), torch.lerp(own, lent, share), atol=1e-4)


def test_shading_is_smooth_positive_and_grows_with_its_strength() -> None:
    numbers = draw_numbers(200, 1, 0)
    weak, strong = (shading(numbers, strength, 48) for strength in (0.1, 0.3))
    assert strong.shape == (200, 1, 48, 48)
    assert strong.min() > 0
    assert strong.diff(dim=3).abs().max() < 0.2
    assert weak.log().std() * 3 == pytest.approx(strong.log().std().item(), rel=0.01)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0.0, 0.0)),
    ],
)
def test_lab_has_the_known_values_and_a_way_back(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    pixel = torch.tensor(rgb).view(1, 3, 1, 1)
    assert rgb_to_lab(pixel).flatten().tolist() == pytest.approx(lab, abs=0.05)
    assert lab_to_rgb(rgb_to_lab(pixel)).flatten().tolist() == pytest.approx(rgb, abs=1e-3)


def test_lab_jitter_changes_that_share_of_the_faces_by_no_more_than_its_limits(pictures: torch.Tensor) -> None:
    many = pictures.repeat(50, 1, 1, 1)
    jittered = jitter_lab(many, draw_numbers(400, 1, 0), Recolouring(lab=0.4))
    touched = (jittered != many).flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.4, abs=0.07)
    moved = rgb_to_lab(jittered) - rgb_to_lab(many)
    assert moved[:, 1:].abs().max() < 0.08 * 128 + 0.1
    assert (rgb_to_lab(jittered)[:, 0] / rgb_to_lab(many)[:, 0]).max() < 1.301


def test_a_motion_kernel_is_a_line_of_that_length_and_angle() -> None:
    kernels = motion_kernels(torch.tensor([0.0, 4.0, 4.0]), torch.tensor([0.0, 0.0, math.pi / 2]), 7)
    assert kernels.sum((1, 2)).tolist() == pytest.approx([1, 1, 1])
    assert kernels[0, 3, 3] == 1
    assert kernels[1, 3, 1:6].tolist() == pytest.approx([0.2] * 5, abs=0.01)
    assert torch.allclose(kernels[1].T, kernels[2], atol=1e-6)


def test_motion_blur_spreads_a_dot_and_loses_no_light() -> None:
    dots = torch.zeros(60, 3, 96, 96)
    dots[:, :, 48, 48] = 1
    blurred = blur_in_motion(dots, draw_numbers(60, 1, 0), Recolouring(motion_blur=0.25))
    assert torch.allclose(blurred.sum((2, 3)), torch.ones(60, 3), atol=1e-4)
    assert (blurred[:, 0, 48, 48] < 0.9).float().mean().item() == pytest.approx(0.25, abs=0.12)
