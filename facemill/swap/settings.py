"""What a person may say of a conversion. Imports neither torch nor dlib: params.yaml is read without them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from facemill.device_choice import Device
from facemill.settings import Count, DetectorNames, Limits, Name, Natural, Settings, Share
from facemill.video import EncoderSettings


@dataclass(frozen=True, kw_only=True)
class FinderSettings(Settings):
    """How faces are looked for in a video."""

    detect_every: Count = 12
    """The whole frame is searched at least every so many frames."""
    verify_every: Count = 12
    """A face that is followed is compared with the references at least every so many frames."""
    search_every: Count = 3
    """Stride in frames while nobody is in sight; the frames between are searched once somebody is."""
    identity_distance: Annotated[float, Limits(gt=0, le=2)] = 0.55
    """Largest Euclidean distance of a face's embedding to the nearest reference."""
    min_face_px: Annotated[int, Limits(ge=12)] = 60
    """Smaller faces are not taken, in pixels of the frame."""
    max_side_px: Annotated[int, Limits(ge=64)] = 960
    """Larger frames are searched at this size."""
    smoothing: Annotated[float, Limits(ge=0, lt=1)] = 0.5
    """0 takes each frame's landmarks as they are, larger values damp small movements; large ones always pass."""


@dataclass(frozen=True, kw_only=True)
class SwapSettings(FinderSettings):
    """How a video is converted. All but `device` and `decoder_threads` decides about the output's bytes."""

    detector: DetectorNames = "hog"
    """Name of the detector, or several with commas between."""
    detector_options: dict[str, Any] = field(default_factory=dict)
    """Of the detector, see `build` in its module; of several by their names: `{hog: {upsample: 1}}`."""
    landmarks: Name = "dlib"
    """Name of the landmark predictor: the one whose points the model was trained on."""
    landmark_options: dict[str, Any] = field(default_factory=dict)
    """Of the landmark predictor, see `build` in its module in facemill/landmarks."""
    colour: Name = "reinhard"
    """Name of the colour method (facemill/swap/colour.py)."""
    blend: Name = "feather"
    """Name of the blend method (facemill/swap/blend.py)."""
    feather: Annotated[float, Limits(ge=0, le=0.5)] = 0.1
    """Width of the soft edge over the height of the face."""
    sharpen: Annotated[float, Limits(ge=0, le=3)] = 0.6
    """How much more fine detail than the net drew a face gets at most, to have the old one's; a face with more than
    that is softened (facemill/swap/detail.py). 0 leaves it as it was drawn."""
    batch: Count = 8
    """Frames that go through the net together."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """Which encoder writes the converted videos, at which quality and speed."""
    frame_failure_limit: Share = 0.1
    """The video fails when a face could not be replaced in a larger share of its frames."""
    accept_cut: bool = False
    """Convert what can be read of a video that is cut short, instead of failing it."""
    device: Device = "auto"
    """Where the net runs; auto: on a GPU where there is one."""
    decoder_threads: Natural = 0
    """Threads that decode; 0 takes one for each core."""
