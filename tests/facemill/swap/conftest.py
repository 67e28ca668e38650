"""A clip with two real faces whose places are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip
from known_nets import PaintEach, PassThrough

from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.track.models import FaceModels
from facemill.video import EncoderSettings

WITHOUT_FACE = range(10, 15)
FRAMES = 20


@pytest.fixture(scope="session")
def tools() -> FaceModels:
    return FaceModels("hog")


@pytest.fixture(scope="session")
def scene(hopper: np.ndarray, collins: np.ndarray) -> list[np.ndarray]:
    """Twenty frames of 480×320: Hopper on the left drifts right, Collins stays at the right; 10–14 hold nobody."""
    left = cv2.resize(hopper[20:420, 60:460], (256, 256), interpolation=cv2.INTER_AREA)
    right = cv2.resize(collins[0:300, 80:380], (200, 200), interpolation=cv2.INTER_AREA)
    frames = []
    for index in range(FRAMES):
        frame = np.full((320, 480, 3), (70, 90, 110), np.uint8)
        if index not in WITHOUT_FACE:
            x = index // 2 * 2
            frame[30:286, x : x + 256] = left
            frame[60:260, 280:480] = right
        frames.append(frame)
    return frames


@pytest.fixture(scope="session")
def people(scene: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`scene` as a clip."""
    return make_clip(tmp_path_factory.mktemp("people") / "two people.mp4", frames=scene)


@pytest.fixture(scope="session")
def references(hopper: np.ndarray, tools: FaceModels) -> np.ndarray:
    """Hopper's embedding, (1, 128)."""
    return tools.embed(hopper, tools.landmarks(hopper, tools.search(hopper, 80)[:1]))


@pytest.fixture
def swapper(references: np.ndarray) -> Swapper:
    """Hopper becomes Collins, through a net that gives back what it gets."""
    return Swapper(
        model=PassThrough(),
        device="cpu",
        becomes={"hopper": "collins"},
        coverage=1.1,
        references={"hopper": references},
        model_sha256="m" * 64,
        dataset="d" * 64,
    )


@pytest.fixture(scope="session")
def both_references(hopper: np.ndarray, collins: np.ndarray, tools: FaceModels) -> dict[str, np.ndarray]:
    """Their embeddings, (1, 128) each."""
    portraits = {"hopper": hopper, "collins": collins}
    return {name: tools.embed(one, tools.landmarks(one, tools.search(one, 80)[:1])) for name, one in portraits.items()}


@pytest.fixture
def both_swapper(swapper: Swapper, both_references: dict[str, np.ndarray]) -> Swapper:
    """Hopper becomes Collins and Collins becomes Hopper, through one net."""
    pairs = {"hopper": "collins", "collins": "hopper"}
    return replace(swapper, model=PaintEach(), becomes=pairs, references=both_references)


@pytest.fixture
def settings() -> SwapSettings:
    """Lossless, so that whatever differs was changed by the conversion; the net's own colours."""
    return SwapSettings(colour="none", encoder=EncoderSettings(crf=0, preset="ultrafast"))
