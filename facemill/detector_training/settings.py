"""What a person may say of a detector's training. Imports no torch: command lines are read without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from facemill.device_choice import DeviceChoice
from facemill.settings import Count, Limits, Natural, NotNegative, Positive, Settings, SettingsError, Share
from facemill.train.settings import Rate, Rollbacks, TrainingPlan

Schedule = tuple[tuple[float, float], ...]
PAPER_SCHEDULE: Schedule = ((0, 1.0), (40 / 60, 0.1), (50 / 60, 0.01))
"""From which share of the steps on the rate is multiplied by what."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Settings):
    """Probabilities and ranges; `Sampling(anchor=0, …)` with everything else 0 shows the whole picture as it is."""

    anchor: Share = 0.4
    """Probability of data-anchor-sampling; otherwise SSD's changes."""
    anchor_sizes_px: tuple[float, ...] = (16, 32, 64, 128, 256, 512)
    """Sides of the anchors of which one is drawn, in pixels of the net's input."""
    anchor_jitter: NotNegative = 1.0
    """A face becomes as large as its anchor times 2^±this."""
    crop: Share = 6 / 7
    """Probability of a crop; SSD draws one of seven ways, of which one is the whole picture."""
    crop_scale: tuple[float, float] = (0.3, 1.0)
    """Side of a crop over the shorter side of the picture with its room."""
    crop_overlaps: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    """Smallest IoU of the crop with some face, one of them at random, another where no crop has it. Each crop holds the
    centre of some face."""
    expand: Share = 0.5
    """Probability of room around the picture."""
    expand_most: Annotated[float, Limits(ge=1)] = 4.0
    """Largest side with room over the side without."""
    flip: Share = 0.5
    """Probability that a picture is mirrored left to right."""
    light: Share = 0.5
    """Probability of each change of light."""
    brightness: Annotated[float, Limits(ge=0, le=255)] = 32.0
    """Largest change of brightness, in levels of 0…255; what is added is drawn evenly from minus this to plus this."""
    contrast: Share = 0.5
    """Largest change of contrast; the factor is drawn evenly from 1 minus this to 1 plus this."""
    saturation: Share = 0.5
    """Largest change of saturation; the factor is drawn evenly from 1 minus this to 1 plus this."""
    hue_deg: Annotated[float, Limits(ge=0, le=180)] = 18.0
    """Largest turn of the hue, in degrees of 360; it is drawn evenly from minus this to plus this."""
    least_side_px: NotNegative = 6.0
    """Faces that end smaller are painted over: too small to learn from, and no background either."""


@dataclass(frozen=True, kw_only=True)
class StaircasePlan(TrainingPlan):
    """A learning rate that falls in steps."""

    schedule: Schedule = PAPER_SCHEDULE
    """From which share of the steps on the learning rate is multiplied by what, as SHARE:FACTOR,…."""

    def fall(self, share: float) -> float:
        """The factor of the last step of the staircase that was reached."""
        return next((factor for start, factor in reversed(self.schedule) if share >= start), 1.0)


@dataclass(frozen=True, kw_only=True)
class DetectorTraining(DeviceChoice, StaircasePlan):
    """Everything that decides a training; the defaults are the paper's, for one GPU."""

    steps: Count = 60_000
    batch: Annotated[int, Limits(ge=1, le=1024)] = 16
    """Number of pictures whose mean gradient makes one update of the weights."""
    input_px: Annotated[int, Limits(ge=64, le=2048)] = 640
    """Side of the square pictures that the net is trained on, in pixels."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer: sgd is the paper's; from scratch adamw gets going sooner."""
    learning_rate: Rate = 1e-3
    weight_decay: Share = 5e-4
    """Weight decay of the optimizer: 5e-4 suits sgd, about 0.01 adamw."""
    warmup_steps: Natural = 500
    clip_norm: Positive | None = 10.0
    rollbacks: Rollbacks = 5
    width: Annotated[float, Limits(gt=0, le=1)] = 1.0
    """Share of the net's channels that are kept; 0.25 suits a CPU."""
    aspect: Positive = 1.5
    """Height of the priors over their width."""
    match_iou: Annotated[float, Limits(gt=0, lt=1)] = 0.4
    """Overlap from which on a prior stands for a face."""
    vgg16: Path | Literal["download"] | None = None
    """Start weights of the backbone: a file, or `download` for torch's own. Without it or `start` the net is trained
    from scratch."""
    vgg16_sha256: Annotated[str, Limits(pattern="^[0-9a-fA-F]{64}$")] | None = None
    """SHA-256 of the file that is named as vgg16."""
    start: Path | None = None
    """A detector's folder or file to go on training from; its own width and priors count."""
    sampling: Sampling = field(default_factory=Sampling)
    """Chances and ranges by which pictures are cut and changed, as NAME=VALUE,…; the names are those of `Sampling`
    in facemill/detector_training/settings.py."""
    max_pictures: Count | None = None
    """Train on the first so many of the training pictures only."""
    evaluate_every: Count = 2000
    evaluate_pictures: Count | None = 200
    """Held-out pictures of the evaluations on the way; the last evaluation takes them all."""
    min_side_px: NotNegative = 16
    """Shorter side of a face in pixels below which an evaluation counts it neither as found nor as missed."""
    workers: Annotated[int, Limits(ge=0, le=64)] | None = None
    """Processes that make training pictures; by default chosen by the device."""
    save_every: Count = 500
    log_every: Count = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start is not None and self.vgg16 is not None:
            raise SettingsError({"start": "excludes vgg16: a training starts from a detector or from VGG16's weights"})
        if self.vgg16_sha256 is not None and not isinstance(self.vgg16, Path):
            raise SettingsError({"vgg16_sha256": "belongs to a file that is named as vgg16"})
