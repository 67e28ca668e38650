"""Losses against values worked out by hand, and scikit-image's SSIM."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity

from facemill.similarity import ssim_map
from facemill.train.losses import DSSIM_SHARE, dssim, mae, reconstruction


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(2, 3, 24, 24, generator=generator)
    return picture, (picture + 0.1 * torch.randn(2, 3, 24, 24, generator=generator)).clamp(0, 1)


def test_equal_pictures_cost_nothing(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert mae(pair[0], pair[0]).item() == 0
    assert dssim(pair[0], pair[0]).item() == pytest.approx(0, abs=1e-6)


def test_mae_by_hand() -> None:
    output, target = torch.zeros(1, 3, 1, 2), torch.tensor([[[[0.5, 0.1]]]]).expand(1, 3, 1, 2)
    assert mae(output, target).item() == pytest.approx(0.3)
    assert mae(output, target, torch.tensor([[[[3.0, 1.0]]]])).item() == pytest.approx((3 * 0.5 + 0.1) / 4)


def test_ssim_is_the_published_one(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    ours = ssim_map(*pair)[0, 0]
    _, theirs = structural_similarity(
        *(p[0, 0].numpy() for p in pair), data_range=1, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    assert torch.allclose(ours, torch.from_numpy(theirs)[5:-5, 5:-5].float(), atol=1e-4)


def test_ssim_keeps_its_precision_under_autocast(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    plain = ssim_map(*pair)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim_map(*pair), plain)


def test_dssim_looks_only_where_the_weight_is(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pair[0].clone(), pair[0]
    output[..., :8] = 0
    weight = torch.zeros(2, 1, 24, 24)
    weight[..., 16:] = 1
    assert dssim(output, target, weight).item() == pytest.approx(0, abs=1e-6)
    assert dssim(output, target).item() > 0.05


def test_reconstruction_is_the_stated_sum(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    weight = torch.ones(2, 1, 24, 24)
    expected = mae(*pair) + DSSIM_SHARE * dssim(*pair)
    assert reconstruction(*pair, weight).item() == pytest.approx(expected.item(), rel=1e-5)
