"""What a person may say of a training. Imports no torch: command lines and params.yaml are read without it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from facemill.device_choice import DeviceChoice
from facemill.settings import Count, Limits, Name, Natural, Positive, Settings, Share

Rate = Annotated[float, Limits(gt=0, le=1)]
Decay = Annotated[float, Limits(ge=0, lt=1)]
Strength = Annotated[float, Limits(ge=0, lt=1)]
Rollbacks = Annotated[int, Limits(ge=0, le=20)]


@dataclass(frozen=True, kw_only=True)
class Recolouring(Settings):
    """How strongly light and colours of faces are changed; all zero changes nothing."""

    colour_match: Share = 0.5
    """Probability of taking on the mean and contrast of another face, more or less."""
    brightness: Strength = 0.1
    """Factor on all channels, uniform in 1 ±."""
    light: Strength = 0.0
    """Standard deviation of a smooth shading over the face, as a share of its light."""
    motion_blur: Share = 0.0
    """Probability of a blur along a line; S18's is 0.25, off there as shipped."""
    blur_range: tuple[float, float] = (5 / 256, 11 / 256)
    """Least and greatest length of that line, as shares of the picture's side."""
    lab: Share = 0.0
    """Probability of other colours in CIE Lab."""
    lab_lightness: Strength = 0.3
    """Factor on L of these, uniform in 1 ±."""
    lab_chroma: Strength = 0.08
    """Shift of a and b of these, uniform in ± this share of 128."""


@dataclass(frozen=True, kw_only=True)
class Augmentation(Recolouring):
    """How strongly training changes faces; all zero gives the plain centre of every face as input and target."""

    rotation_deg: Annotated[float, Limits(ge=0, le=180)] = 6.0
    """Rotation, uniform in ±."""
    zoom: Strength = 0.04
    """Scale, uniform in 1 ±."""
    shift: Strength = 0.03
    """Shift in x and y, uniform in ± this share of the side."""
    flip: Share = 0.5
    """Probability of a mirrored face."""
    warp: Strength = 0.02
    """Standard deviation of a point of the grid that bends the input, as a share of the side."""


@dataclass(frozen=True, kw_only=True)
class Pace(Settings):
    """How long a training lasts and what it does on the way: what a person says of any training."""

    steps: Count = 2000
    """Number of updates in all."""
    deadline_s: Positive | None = None
    """Ends earlier after so many seconds of training, over all runs."""
    plateau: Count | None = None
    """Ends earlier after so many evaluations in a row without a better value."""
    micro_batch: Count | None = None
    """Number of pictures of a batch that go through the net together, of each identity where there are some; without it
    all, and fewer where memory is short."""
    save_every: Count = 250
    """Steps between checkpoints."""
    keep_checkpoints: Annotated[int, Limits(ge=1, le=100)] = 2
    """Number of checkpoints that are kept."""
    rollbacks: Rollbacks = 3
    """Number of times that a loss that is not finite sends training back to the last checkpoint, with half the rate."""
    evaluate_every: Count = 250
    """Steps between evaluations on what is held out."""
    log_every: Count = 25
    """Steps between points of the curves of losses."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Pace):
    """All that the loop is told; two runs with equal plans, feeds and seeds give equal weights."""

    learning_rate: Rate
    """Learning rate after the warm-up."""
    warmup_steps: Natural = 50
    """Steps in which the learning rate rises from nothing to its full value."""
    ema_decay: Decay | None = None
    """Decay of the average of weights that is evaluated and saved in their place; without it no average is made."""
    clip_norm: Positive | None = None
    """Longest gradient: longer ones are scaled down to it."""
    seed: Natural = 0
    """Seed of what training draws by chance."""

    def rate(self, step: int) -> float:
        """Learning rate of the step after `step` finished ones: a linear warm-up, under which `fall` lies."""
        return self.learning_rate * min(1.0, (step + 1) / max(self.warmup_steps, 1)) * self.fall(step / self.steps)

    def fall(self, share: float) -> float:
        """Factor on the learning rate when that share of the steps is done: none, in this class."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class CosinePlan(TrainingPlan):
    """A learning rate that falls along half a cosine."""

    final_rate: Share = 0.02
    """Where it ends, as a share of the learning rate; 1 keeps it constant."""

    def fall(self, share: float) -> float:
        """From 1 to `final_rate`."""
        return self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


@dataclass(frozen=True, kw_only=True)
class FaceTraining(DeviceChoice, Pace):
    """What a person says of the training of a model that swaps faces (`facemill.train.session`)."""

    model: Name = "autoencoder"
    """Name of the model (facemill/nets), and of what it is trained for (facemill/train/objectives)."""
    preset: Name = "small"
    """Name of the model's size, see its module in facemill/nets."""
    start: Path | None = None
    """Folder of a trained model of the same name to go on from: it may know other people, or be a smaller transform."""
    options: dict[Name, Any] = field(default_factory=dict)
    """Of the model's objective, see `build` in facemill/train/objectives/MODEL.py."""
    coverage: Annotated[float, Limits(ge=0.5, le=4)] = 1.2
    """Side of the square that the net sees, over the height of the mean face's landmark box."""
    batch: Annotated[int, Limits(ge=2)] = 16
    """Faces of each identity in a step, over all processes."""
    learning_rate: Rate | Literal["auto"] = "auto"
    """Learning rate after the warm-up; auto: as the model's objective says."""
    ema_decay: Decay | Literal["auto"] | None = "auto"
    """Of averaged weights, which are then what is shown, measured and saved; null for none, auto: as the model's
    objective says."""
    augment: Augmentation = field(default_factory=Augmentation)
    """How strongly faces are changed."""
    balance: Annotated[int, Limits(ge=1, le=20)] = 1
    """Faces of a rare pose, expression and light (facemill.coverage) are drawn up to so many times in an epoch, as
    often as the commonest are there; 1 draws each face once."""
