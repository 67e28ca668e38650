"""What a person may say of tracking. Imports neither torch nor dlib: params.yaml is read without them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from facemill.settings import Count, DetectorNames, Limits, Name, Natural, Positive, Settings, Share


@dataclass(frozen=True, kw_only=True)
class TrackingSettings(Settings):
    """How faces are looked for in a video and followed through it. All of it decides about the tables of tracks."""

    detector: DetectorNames = "hog"
    """Name of the detector, or several with commas between."""
    detector_options: dict[str, Any] = field(default_factory=dict)
    """Of the detector, see `build` in its module; of several by their names: `{hog: {upsample: 1}}`."""
    landmarks: Name = "dlib"
    """Name of the landmark predictor: the one whose points the model was trained on."""
    landmark_options: dict[str, Any] = field(default_factory=dict)
    """Of the landmark predictor, see `build` in its module in facemill/landmarks."""
    min_face_px: Annotated[int, Limits(ge=12)] = 60
    """Smaller faces are not looked for, in pixels of the frame."""
    max_side_px: Annotated[int, Limits(ge=64)] = 960
    """Larger frames are searched at this size; landmarks still come from the frame as it is."""
    every: Count = 10
    """The whole frame is searched at least every so many frames; between two of them faces are followed by flow."""
    every_s: Positive = 0.4
    """Likewise in seconds: at 5 frames a second 10 frames are two seconds, too long to follow a face."""
    remember_s: Annotated[float, Limits(ge=0, le=10)] = 1.0
    """A face that is not seen keeps its track for so many seconds."""
    turned_every: Natural = 8
    """Every so many of the searched frames without an upright face are also searched turned by a quarter, a half and
    three quarters, at half the size, for faces twice as large as `min_face_px`. 0: a face that lies on its side or
    upside down is found only if it was upright before."""
    smoothing: Share = 1.0
    """How much of the trembling is taken from the landmarks along a track, forwards and backwards in time, so that
    nothing lags behind. 0 leaves each frame's landmarks as they are. Faster motion than trembling always passes."""
