"""A clip with two real faces whose places are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip
from known_nets import PaintEach, PassThrough
from runs import Run

from facemill.swap.converter import Receipt
from facemill.swap.one_video import convert
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import ModelOrigin, Swapper
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
def swapper() -> Swapper:
    """Hopper becomes Collins, through a net that gives back what it gets."""
    return Swapper(
        model=PassThrough(),
        device="cpu",
        becomes={"hopper": "collins"},
        coverage=1.1,
    )


@pytest.fixture
def run(tools: FaceModels, both_references: dict[str, np.ndarray]) -> Run:
    """Converts a video; who is looked for is known by an embedding of each who is replaced."""

    def run(
        video: Path,
        output: Path,
        swapper: Swapper,
        settings: SwapSettings,
        references: dict[str, np.ndarray] | None = None,
    ) -> Receipt:
        known = references or {name: both_references[name] for name in swapper.becomes}
        origin = ModelOrigin(becomes=swapper.becomes, model_sha256="m" * 64, dataset="d" * 64)
        return convert(video, output, swapper, known, tools, settings, origin=origin)

    return run


@pytest.fixture(scope="session")
def both_references(hopper: np.ndarray, collins: np.ndarray, tools: FaceModels) -> dict[str, np.ndarray]:
    """Their embeddings, (1, 128) each."""
    portraits = {"hopper": hopper, "collins": collins}
    return {name: tools.embed(one, tools.landmarks(one, tools.search(one, 80)[:1])) for name, one in portraits.items()}


@pytest.fixture
def both_swapper(swapper: Swapper) -> Swapper:
    """Hopper becomes Collins and Collins becomes Hopper, through one net."""
    pairs = {"hopper": "collins", "collins": "hopper"}
    return replace(swapper, model=PaintEach(), becomes=pairs)


@pytest.fixture
def settings() -> SwapSettings:
    """Lossless, so that whatever differs was changed by the conversion; the net's own colours."""
    lossless = EncoderSettings(crf=0, preset="ultrafast")
    return SwapSettings(colour="none", detail="match", occlusion="none", encoder=lossless)
