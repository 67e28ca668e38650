"""The losses of the fast face-swap network on values worked by hand."""

from __future__ import annotations

import pytest
import torch

from facemill.errors import FacemillError
from facemill.train.style import (
    balanced_weights,
    content_loss,
    light_loss,
    nearest_styles,
    squared_variation,
    style_loss,
    unit,
)


def places(*vectors: tuple[float, float]) -> torch.Tensor:
    """(1, 2, 1, W): one activation map with these vectors side by side."""
    return torch.tensor(vectors).T.reshape(1, 2, 1, len(vectors))


def test_content_is_the_mean_squared_difference() -> None:
    assert content_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]])).item() == 2.0


def test_style_is_the_cosine_distance_at_the_same_place() -> None:
    """Right and left are exchanged: the best place would fit, the same place does not."""
    style = unit(places((1, 0), (0, 5)))
    rows = torch.tensor([[0]])
    assert style_loss(places((2, 0), (0, 1)), style, rows).item() == pytest.approx(0)
    assert style_loss(places((0, 1), (2, 0)), style, rows).item() == pytest.approx(1)
    assert style_loss(places((-3, 0), (0, -1)), style, rows).item() == pytest.approx(2)


def test_style_takes_the_best_picture_for_each_place() -> None:
    """The first picture fits on the left, the second on the right; only the first is near: half of it is lost."""
    style = unit(torch.cat([places((1, 0), (1, 0)), places((0, 1), (0, 1))]))
    drawn = places((1, 0), (0, 1))
    assert style_loss(drawn, style, torch.tensor([[0, 1]])).item() == pytest.approx(0)
    assert style_loss(drawn, style, torch.tensor([[0]])).item() == pytest.approx(0.5)


def test_style_draws_each_place_towards_its_best_picture() -> None:
    style = unit(torch.cat([places((1, 0)), places((0, 1))]))
    drawn = places((1.0, 0.2)).requires_grad_(True)
    style_loss(drawn, style, torch.tensor([[0, 1]])).backward()
    assert drawn.grad is not None
    assert drawn.grad[0, 1, 0, 0] > 0  # less of what (1, 0) has not


def test_style_of_two_faces_is_the_mean_of_both() -> None:
    style = unit(places((1, 0)))
    drawn = torch.cat([places((1, 0)), places((0, 1))])
    assert style_loss(drawn, style, torch.tensor([[0], [0]])).item() == pytest.approx(0.5)


def test_the_nearest_style_pictures_are_those_with_the_nearest_landmarks() -> None:
    """Pictures whose points are moved right by 0, 10, 20 and 30 px; a face at 21 px is closest to 20, 30, 10."""
    base = torch.rand(68, 2) * 100
    style = torch.stack([base + torch.tensor([shift, 0.0]) for shift in (0.0, 10.0, 20.0, 30.0)])
    face = (base + torch.tensor([21.0, 0.0]))[None]
    assert nearest_styles(face, style, 3).tolist() == [[2, 3, 1]]
    assert nearest_styles(face, style, 16).shape == (1, 4)


def test_all_68_points_count_in_the_distance() -> None:
    """One point far off weighs more than all of them a little: √(68·1²) < 10."""
    style = torch.zeros(2, 68, 2)
    style[0, 8, 1] = 10.0
    style[1, :, 0] = 1.0
    assert nearest_styles(torch.zeros(1, 68, 2), style, 1).tolist() == [[1]]


def test_light_is_the_mean_squared_difference_of_features() -> None:
    assert light_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item() == 1.0


def test_variation_counts_both_directions() -> None:
    """0 1 / 0 3: downwards 0 and 2, to the right 1 and 3, so (4 + 1 + 9) / 4."""
    picture = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])
    assert squared_variation(picture).item() == pytest.approx(14 / 4)
    assert squared_variation(torch.full((2, 3, 4, 4), 0.7)).item() == 0


def test_balance_gives_each_gradient_its_stated_share() -> None:
    def losses(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"content": 1e6 * x.square().mean(), "style": 1e-9 * x.pow(3).sum(), "variation": squared_variation(x)}

    shares = {"content": 2.0, "style": 5.0, "variation": 0.1}
    at = torch.rand(2, 3, 8, 8)
    weights = balanced_weights(losses, at, shares)
    assert weights["content"] == 1.0
    x = at.clone().requires_grad_(True)
    norms = {
        name: torch.autograd.grad(weights[name] * loss, x, retain_graph=True)[0].norm()
        for name, loss in losses(x).items()
    }
    for name, share in shares.items():
        assert (norms[name] / norms["content"]).item() == pytest.approx(share / 2, rel=1e-4)


def test_a_loss_without_gradient_cannot_be_balanced() -> None:
    flat = torch.full((1, 3, 4, 4), 0.5)
    with pytest.raises(FacemillError, match="the variation loss has a gradient of norm 0"):
        balanced_weights(lambda x: {"variation": squared_variation(x)}, flat, {"variation": 1.0})
