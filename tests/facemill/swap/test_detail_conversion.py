"""Detail from exemplars through the whole way of a video, tracks included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from known_nets import PassThrough
from runs import Run
from test_detail_exemplars import exemplars_of

from facemill.files import file_sha256
from facemill.sources.sample import Pose
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.video import read_frames


class Soft(PassThrough):
    """The face comes back as a net of few pixels would draw it."""

    input_px = 64

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(face, 3, stride=1, padding=1, count_include_pad=False)


@pytest.fixture
def soft(swapper: Swapper) -> Swapper:
    """Hopper becomes Collins through a net that loses detail, with pictures of Collins beside it."""
    pictures = exemplars_of(Pose(), Pose(mouth_open=0.4), Pose(yaw_deg=8), Pose(yaw_deg=-8))
    return replace(swapper, model=Soft(), coverage=1.2, exemplars={"collins": pictures})


def sharpness(video: Path) -> float:
    """Of Hopper's face in the first frame."""
    face = next(read_frames(video)).rgb[130:200, 90:160]
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def test_faces_get_the_detail_of_pictures_and_twice_the_same(
    people: Path, tmp_path: Path, soft: Swapper, settings: SwapSettings, run: Run
) -> None:
    for name in ("none", "exemplars"):
        receipt = run(people, tmp_path / f"{name}.mp4", soft, replace(settings, detail=name))
        assert (receipt.frames_swapped, receipt.failures) == (15, {})
        assert not any("exemplars" in warning for warning in receipt.warnings)
    assert sharpness(tmp_path / "exemplars.mp4") > 1.2 * sharpness(tmp_path / "none.mp4")
    run(people, tmp_path / "again.mp4", soft, replace(settings, detail="exemplars"))
    assert file_sha256(tmp_path / "again.mp4") == file_sha256(tmp_path / "exemplars.mp4")


def test_a_model_without_pictures_converts_as_before_and_says_so(
    people: Path, tmp_path: Path, soft: Swapper, settings: SwapSettings, run: Run
) -> None:
    without = replace(soft, exemplars={})
    receipt = run(people, tmp_path / "exemplars.mp4", without, replace(settings, detail="exemplars"))
    run(people, tmp_path / "match.mp4", without, replace(settings, detail="match"))
    assert file_sha256(tmp_path / "exemplars.mp4") == file_sha256(tmp_path / "match.mp4")
    assert any("no exemplars of collins" in warning for warning in receipt.warnings)


def test_what_lies_outside_the_face_is_as_it_was(
    people: Path, tmp_path: Path, soft: Swapper, settings: SwapSettings, run: Run
) -> None:
    run(people, tmp_path / "out.mp4", soft, replace(settings, detail="exemplars"))
    for before, after in zip(read_frames(people), read_frames(tmp_path / "out.mp4"), strict=True):
        away = np.abs(before.rgb.astype(int) - after.rgb).max(axis=2)
        assert away[:, 290:].max() <= 2  # Collins
        assert away[:40].max() <= 2
