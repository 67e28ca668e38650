"""Train and measure face detectors: `facemill detector train` and `facemill detector evaluate`.

Not a stage of the pipeline: a detector is trained once, on annotated pictures that are no part of a dataset of faces,
and its folder is then named in params.yaml. The work is done by `facemill.detector_training` and
`facemill.detector_training.evaluate`; here their settings are checked, and what they find is shown.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from facemill.errors import FacemillError
from tasks.paths import EXISTING_PATH, PATH, PATH_TEXT
from tasks.work.terminal import say

if TYPE_CHECKING:
    from facemill.detector_training.run import Recipe, Trained

detector_app = typer.Typer(help="Train DSFD on annotated pictures, and measure any detector.", no_args_is_help=True)


class DetectorTraining(BaseModel):
    """Settings of a training, checked; see `facemill.detector_training.run.Recipe` for what they do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1)] = 60_000
    batch: Annotated[int, Field(ge=1, le=1024)] = 16
    input_px: Annotated[int, Field(ge=64, le=2048)] = 640
    """Side of the square pictures that the net is trained on."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    optimizer: Literal["sgd", "adamw"] = "sgd"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the channels that are kept; 0.25 suits a CPU."""
    vgg16: str | None = None
    """Start weights of the backbone: a file, or "download" for torch's own."""
    vgg16_sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    start: str | None = None
    """A detector folder or file to go on training from."""
    max_pictures: Annotated[int, Field(ge=1)] | None = None
    evaluate_every: Annotated[int, Field(ge=1)] = 2000
    evaluate_pictures: Annotated[int, Field(ge=1)] | None = 200
    min_side_px: Annotated[float, Field(ge=0)] = 16
    seed: Annotated[int, Field(ge=0)] = 0
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Annotated[int, Field(ge=0, le=64)] | None = None

    @model_validator(mode="after")
    def _one_start(self) -> DetectorTraining:
        if self.start is not None and self.vgg16 is not None:
            raise ValueError("start and vgg16 exclude each other: a training starts from a detector or from VGG16")
        if self.vgg16_sha256 is not None and self.vgg16 in (None, "download"):
            raise ValueError("vgg16_sha256 belongs to a file that is named as vgg16")
        return self

    def recipe(self) -> Recipe:
        """The same settings as `facemill.detector_training` takes them."""
        from facemill.detector_training.run import Recipe

        return Recipe(**self.model_dump())


def train(folder: Path, output: Path, settings: DetectorTraining) -> Trained:
    """Trains DSFD, or goes on with a training that was killed, showing how far it is.

    Raises:
        FacemillError: what `train_detector` raises.
        KeyboardInterrupt: told to end; the state was saved, the same command goes on from it.
    """
    from facemill.detector_training.run import train_detector

    trained = train_detector(folder, output, settings.recipe(), tell=say)
    if trained.metrics is None:
        say(f"told to end; step {trained.outcome.step} of {settings.steps} is saved, the same command goes on")
        raise KeyboardInterrupt
    return trained


def evaluate(
    folder: Path,
    *,
    detector: str = "dsfd",
    weights: Path | None = None,
    sha256: str | None = None,
    held_out: bool = True,
    max_pictures: int | None = None,
    min_side_px: float = 16,
    min_face_px: int = 16,
    device: str = "cpu",
    lists: Path | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, float]:
    """The numbers of a detector on a folder of annotated pictures.

    Args:
        folder: see `facemill.detector_training.annotations` for the formats.
        detector: a name that `build_detector` takes.
        weights: of `dsfd`, with `sha256` where they are a pickle.
        held_out: only the fifth that training leaves out.
        max_pictures: the first so many, spread over the set.
        min_side_px: smaller faces are neither right nor wrong.
        min_face_px: what the detector is told.
        lists: folder of WIDER FACE's official easy, medium and hard lists.
        options: further keywords of the detector.

    Raises:
        FacemillError: nothing usable in the folder, an unknown detector or option, weights that do not fit.
    """
    from facemill.detect import build_detector
    from facemill.detector_training.annotations import split, survey_annotations
    from facemill.detector_training.evaluate import evaluate as measure
    from facemill.detector_training.wider_lists import official_subsets

    survey = survey_annotations(folder)
    pictures = split(survey.pictures)[1] if held_out else survey.pictures
    if not pictures:
        raise FacemillError(f"no picture of {folder} is held out: measure on all of them with --all")
    if max_pictures is not None:
        pictures = pictures[:: max(1, len(pictures) // max_pictures)][:max_pictures]
    say(f"{survey.describe()}; measured on {len(pictures)}")
    given: dict[str, Any] = dict(options or {})
    threshold = None
    if detector == "dsfd":
        # the whole curve for AP, recall and precision where the detector would cut by itself
        from facemill.detect.dsfd import THRESHOLD

        threshold = THRESHOLD
        given = {"threshold": 0.01, "weights": weights, "sha256": sha256, **given}
    elif weights is not None:
        raise FacemillError(f"detector {detector!r} brings its own weights: --weights is for dsfd")
    built = build_detector(detector, min_face_px=min_face_px, device=device, **given)
    subsets = None if lists is None else partial(official_subsets, lists)
    report = measure(built, pictures, min_side_px=min_side_px, subsets=subsets, threshold=threshold)
    for name in report.unreadable:
        say(f"unreadable, left out: {name}")
    return report.numbers


_DEFAULTS = DetectorTraining()
_ANNOTATED = "Annotated pictures: Pascal VOC, WIDER FACE or dlib."


@detector_app.command("train")
def train_command(
    folder: Annotated[
        Path, typer.Argument(help="Annotated pictures: Pascal VOC, WIDER FACE or dlib.", **EXISTING_PATH)
    ],
    output: Annotated[Path, typer.Option(help="Folder of this training; run again to go on.", **PATH)],
    steps: Annotated[int, typer.Option(help="How many updates.")] = _DEFAULTS.steps,
    batch: Annotated[int, typer.Option(help="Pictures in an update.")] = _DEFAULTS.batch,
    input_px: Annotated[int, typer.Option(help="Side of the training pictures, px.")] = _DEFAULTS.input_px,
    learning_rate: Annotated[float, typer.Option(help="Of the first steps.")] = _DEFAULTS.learning_rate,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = _DEFAULTS.optimizer,
    weight_decay: Annotated[float, typer.Option(help="5e-4 for sgd, about 0.01 for adamw.")] = _DEFAULTS.weight_decay,
    warmup_steps: Annotated[int, typer.Option(help="Steps in which the rate rises.")] = _DEFAULTS.warmup_steps,
    width: Annotated[float, typer.Option(help="Share of the channels; 0.25 suits a CPU.")] = _DEFAULTS.width,
    vgg16: Annotated[str | None, typer.Option(help='Start weights: a file, or "download".', **PATH_TEXT)] = None,
    vgg16_sha256: Annotated[str | None, typer.Option(help="SHA-256 of that file.")] = None,
    start: Annotated[str | None, typer.Option(help="A detector folder to go on training from.", **PATH_TEXT)] = None,
    max_pictures: Annotated[int | None, typer.Option(help="Train on so many pictures only.")] = None,
    evaluate_every: Annotated[int, typer.Option(help="Steps between evaluations.")] = _DEFAULTS.evaluate_every,
    evaluate_pictures: Annotated[int | None, typer.Option(help="Held-out pictures of each.")] = 200,
    seed: Annotated[int, typer.Option(help="Of weights, order and changes.")] = 0,
    deadline_s: Annotated[float | None, typer.Option(help="Seconds of training over all runs.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Processes that make pictures.", show_default="by device")] = None,
) -> None:
    """Train DSFD; a fifth of the pictures is held out and measured. Killed and run again, it goes on.

    Example: facemill detector train ~/WIDER --output ~/dsfd --vgg16 download
    """
    given = {key: value for key, value in locals().items() if key not in ("folder", "output")}
    try:
        settings = DetectorTraining.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'--' + str(part['loc'][0]).replace('_', '-') if part['loc'] else 'options'}: {part['msg']}"
            for part in error.errors()
        )
        raise FacemillError(problems) from error
    trained = train(folder, output, settings)
    say(f"detector in {trained.folder / 'detector'}")


@detector_app.command("evaluate")
def evaluate_command(
    folder: Annotated[
        Path, typer.Argument(help="Annotated pictures: Pascal VOC, WIDER FACE or dlib.", **EXISTING_PATH)
    ],
    detector: Annotated[str, typer.Option(help="hog, mmod, mtcnn, dsfd, …")] = "dsfd",
    weights: Annotated[Path | None, typer.Option(help="Folder or file of dsfd's weights.", **PATH)] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of a .pth file.")] = None,
    looks: Annotated[str, typer.Option(help="dsfd: one look, or many (scales and mirror).")] = "one",
    every: Annotated[bool, typer.Option("--all", help="All pictures, not the held-out fifth.")] = False,
    max_pictures: Annotated[int | None, typer.Option(help="So many of them only.")] = None,
    min_side_px: Annotated[float, typer.Option(help="Smaller faces count neither way.")] = 16,
    min_face_px: Annotated[int, typer.Option(help="Smallest face that the detector looks for.")] = 16,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    lists: Annotated[Path | None, typer.Option(help="Folder of WIDER FACE's .mat lists.", **PATH)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure a detector: AP at IoU 0.5, recall, easy, medium and hard, milliseconds a picture.

    Example: facemill detector evaluate ~/faces --detector mtcnn
    """
    numbers = evaluate(
        folder,
        detector=detector,
        weights=weights,
        sha256=sha256,
        held_out=not every,
        max_pictures=max_pictures,
        min_side_px=min_side_px,
        min_face_px=min_face_px,
        device=device,
        lists=lists,
        options={"looks": looks} if detector == "dsfd" else {},
    )
    if as_json:
        say(json.dumps(numbers, sort_keys=True))
        return
    for name, value in numbers.items():
        say(f"{name:16s} {value:.4g}")
