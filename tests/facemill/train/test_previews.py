"""Preview pictures: the right face in the right column, and no trace of having been made."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from toy_training import plain_set

from facemill.nets import SwapModel
from facemill.similarity import PSNR_CAP_DB
from facemill.train.data import FaceSet
from facemill.train.evaluate import validation_losses, validation_value
from facemill.train.previews import TILE_PX, preview_grid, write_preview

LEVELS = {"anna": 60, "bert": 200}


class Painter(SwapModel):
    """Draws everybody in a colour of their own, plus a trace of the face that it was given."""

    identities = ("anna", "bert")
    input_px = 16

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return torch.full_like(face, LEVELS[identity] / 255) * 0.5 + face * 0.5


@pytest.fixture
def sets() -> dict[str, FaceSet]:
    """Three grey faces of each, anna dark and bert bright."""
    return {who: plain_set(who, torch.full((3, 3, 20, 20), level).byte()) for who, level in LEVELS.items()}


def test_columns_are_a_as_a_as_b_then_b_as_b_as_a(sets: dict[str, FaceSet]) -> None:
    grid = preview_grid(Painter(), sets, rows=2)
    middle = grid[-TILE_PX // 2, TILE_PX // 2 :: TILE_PX, 0].tolist()
    assert middle == [60, 60, 130, 200, 200, 130]
    assert grid.shape == (2 * TILE_PX + 22, 6 * TILE_PX, 3)


def test_the_model_is_left_in_the_mode_it_was_in(sets: dict[str, FaceSet]) -> None:
    model = Painter().train()
    preview_grid(model, sets)
    validation_losses(model, sets)
    assert model.training


def test_validation_losses_of_a_known_painter(sets: dict[str, FaceSet]) -> None:
    losses = validation_losses(Painter(), sets)
    perfect = {"mae": 0, "dssim": 0, "ssim": 1, "psnr": PSNR_CAP_DB}
    assert losses == pytest.approx({f"{name}/{who}": best for who in sets for name, best in perfect.items()}, abs=1e-4)
    assert validation_value(losses) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", ["step-000010.jpg", "step-000010.png"])
def test_a_preview_is_written_whole(tmp_path: Path, sets: dict[str, FaceSet], name: str) -> None:
    grid = preview_grid(Painter(), sets, rows=1)
    write_preview(tmp_path / "previews" / name, grid)
    assert cv2.imread(str(tmp_path / "previews" / name)).shape == grid.shape
    assert [path.name for path in (tmp_path / "previews").iterdir()] == [name]
