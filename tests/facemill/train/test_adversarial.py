"""Losses of the adversarial models against numbers by hand, and finite gradients where pictures are black."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from facemill.train.adversarial import (
    KINDS,
    draw_share,
    edge_loss,
    edge_maps,
    fool_loss,
    frozen,
    judge_loss,
    least_squares,
    mask_loss,
    perceptual_loss,
    variation_loss,
    weight_decay,
)


class Brightness(nn.Module):
    """A critic that answers with the mean of the picture, whatever stands beside it."""

    def forward(self, pair: Tensor) -> Tensor:
        return pair[:, :3].mean(dim=(1, 2, 3), keepdim=True)


def grey(*values: float) -> Tensor:
    """One 3×8×8 picture of one colour for each value."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 8, 8)


def pyramid(pictures: Tensor) -> list[Tensor]:
    """Features of a fixed little network."""
    small = nn.functional.avg_pool2d(pictures, 4)
    return [pictures, small, small.square()]


def test_least_squares_by_hand() -> None:
    assert least_squares(torch.tensor([1.0, 0.0, 3.0]), 1.0).item() == pytest.approx((0 + 1 + 4) / 3)


def test_mixup_asks_for_the_share_of_the_real_picture() -> None:
    """Real is 1 and drawn is 0, so a mixture is as bright as λ: this critic makes no mistake."""
    loss = judge_loss(Brightness(), grey(1, 1), [grey(0, 0), grey(0, 0)], grey(0, 0), "mixup")
    assert loss.item() == pytest.approx(0, abs=1e-12)
    torch.manual_seed(1)
    share = draw_share()
    torch.manual_seed(1)
    wrong = judge_loss(Brightness(), grey(0.5), [grey(0), grey(1)], grey(0), "mixup").item()
    assert wrong == pytest.approx((0.5 * share - share) ** 2 + (1 - 0.5 * share - share) ** 2, rel=1e-5)


def test_the_generator_wants_drawn_pictures_to_pass_for_real() -> None:
    loss = fool_loss(Brightness(), grey(1), [grey(0.5), grey(1)], grey(0), "mixup")
    assert loss.item() == pytest.approx(0.25)


def test_relativistic_losses_compare_with_the_other_kind_s_mean() -> None:
    """D(real) = 1, 0 and D(drawn) = 0, 0: real − 0 against 1, drawn − 0.5 against −1, halved; and the reverse."""
    real, drawn = grey(1, 0), grey(0, 0)
    judged = judge_loss(Brightness(), real, [drawn], grey(0, 0), "relativistic")
    assert judged.item() == pytest.approx(((0 + 1) / 2 + 0.25) / 2)
    fooled = fool_loss(Brightness(), real, [drawn], grey(0, 0), "relativistic")
    assert fooled.item() == pytest.approx((1.5**2 + (4 + 1) / 2) / 2)


def test_shares_are_mostly_near_the_ends_and_follow_the_global_seed() -> None:
    torch.manual_seed(0)
    shares = torch.tensor([draw_share() for _ in range(400)])
    assert 0 <= shares.min() <= shares.max() <= 1
    assert ((shares < 0.1) | (shares > 0.9)).float().mean() > 0.5
    torch.manual_seed(0)
    assert draw_share() == shares[0].item()


def test_edges_are_first_differences_without_sign() -> None:
    picture = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0], [5.0, 5.0, 5.0]])[None, None]
    down, across = edge_maps(picture)
    assert down[0, 0].tolist() == [[2, 1], [3, 3]]
    assert across[0, 0].tolist() == [[1, 2], [0, 0]]
    assert edge_loss(picture, torch.zeros_like(picture)).item() == pytest.approx(9 / 4 + 3 / 4)
    only_first = torch.zeros_like(picture)
    only_first[..., 0, 0] = 1
    assert edge_loss(picture, torch.zeros_like(picture), only_first).item() == pytest.approx((2 + 1) / 4)


def test_mask_losses_by_hand() -> None:
    alpha = torch.tensor([[0.0, 0.5], [1.0, 0.1]])[None, None]
    assert mask_loss(alpha, None).item() == pytest.approx(0.01 * 0.4)
    assert mask_loss(alpha, 0.5).item() == pytest.approx(0.1 * (0.5 + 0 + 0 + 0.4) / 4)
    assert variation_loss(alpha).item() == pytest.approx(1.0 + 0.5)


def test_perceptual_loss_is_0_for_equal_pictures_and_blind_to_a_change_of_all_brightness() -> None:
    torch.manual_seed(0)
    picture = torch.rand(2, 3, 16, 16) - 0.5
    same, other = (perceptual_loss(pyramid, picture, x, (1, 1, 1), 16) for x in (picture, -picture))
    lighter = perceptual_loss(lambda p: pyramid(p)[:1], picture, picture + 0.2, (1,), 16)
    assert same == 0
    assert other > 1
    assert lighter < 1e-4


def test_weight_decay_sums_the_kernels_of_convs_only() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Linear(3, 3))
    nn.init.constant_(net[0].weight, 3.0)
    assert weight_decay(net).item() == 18


def test_frozen_modules_pass_gradients_on_and_keep_none() -> None:
    conv, x = nn.Conv2d(3, 1, 1), torch.rand(1, 3, 2, 2, requires_grad=True)
    with frozen(conv):
        conv(x).sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is None
    assert conv.weight.requires_grad


@pytest.mark.parametrize("level", [-1.0, 0.0])
def test_gradients_are_finite_where_every_pixel_is_the_same(level: float) -> None:
    output, target = (torch.full((2, 3, 16, 16), level, requires_grad=True) for _ in range(2))
    critic = nn.Conv2d(6, 1, 4)
    losses = [
        *(make(critic, target, [output], target, kind) for make in (judge_loss, fool_loss) for kind in KINDS),
        edge_loss(output, target, torch.zeros(2, 1, 16, 16)),
        mask_loss(output, None),
        mask_loss(output, 0.5),
        variation_loss(output),
        perceptual_loss(pyramid, output, target, (1, 1, 1), 16),
    ]
    torch.stack(losses).sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())
