"""Train and measure face detectors: `facemill detector train` and `facemill detector evaluate`.

Not a stage of the pipeline: a detector is trained once, on annotated pictures that are no part of a dataset of faces,
and its folder is then named in params.yaml. The work is done by `facemill.detector_training` and
`facemill.detector_training.evaluate`; here what they find is shown.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemill.detector_training.settings import DetectorTraining
from facemill.errors import FacemillError
from tasks.commands.options import with_options
from tasks.paths import EXISTING_PATH, PATH
from tasks.work.terminal import say

if TYPE_CHECKING:
    from facemill.detector_training.run import Trained

detector_app = typer.Typer(help="Train DSFD on annotated pictures, and measure any detector.", no_args_is_help=True)


_ANNOTATED = "Folder or file of annotated pictures: Pascal VOC, WIDER FACE or dlib."


def train(folder: Path, output: Path, settings: DetectorTraining) -> Trained:
    """Trains DSFD, or goes on with a training that was killed, showing how far it is.

    Raises:
        FacemillError: what `train_detector` raises.
        KeyboardInterrupt: told to end; the state was saved, the same command goes on from it.
    """
    from facemill.detector_training.run import train_detector

    trained = train_detector(folder, output, settings, tell=say)
    if trained.metrics is None:
        say(f"Told to end: step {trained.outcome.step} of {settings.steps} is saved; the same command goes on.")
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


@detector_app.command("train")
@with_options(DetectorTraining)
def train_command(
    folder: Annotated[Path, typer.Argument(help=_ANNOTATED, **EXISTING_PATH)],
    output: Annotated[
        Path, typer.Option(help="Folder for the training and the detector; one that is there goes on.", **PATH)
    ],
    settings: DetectorTraining,
) -> None:
    """Train DSFD; a fifth of the pictures is held out and measured. Killed and run again, it goes on.

    Example: facemill detector train ~/WIDER --output ~/dsfd --vgg16 download
    """
    trained = train(folder, output, settings)
    say(f"The detector lies in {trained.folder / 'detector'}.")


@detector_app.command("evaluate")
def evaluate_command(
    folder: Annotated[Path, typer.Argument(help=_ANNOTATED, **EXISTING_PATH)],
    detector: Annotated[str, typer.Option(help="Name of the detector, such as hog, mmod, mtcnn or dsfd.")] = "dsfd",
    weights: Annotated[Path | None, typer.Option(help="Folder or file of the weights of dsfd.", **PATH)] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of --weights, which a .pth file needs.")] = None,
    looks: Annotated[
        str, typer.Option(help="Whether dsfd takes one look at each picture, or many (scales and mirror).")
    ] = "one",
    every: Annotated[
        bool, typer.Option("--all", help="Measure on all pictures, not only on the fifth that training holds out.")
    ] = False,
    max_pictures: Annotated[
        int | None, typer.Option(help="Measure on so many pictures at most, spread over the set.", show_default="all")
    ] = None,
    min_side_px: Annotated[
        float,
        typer.Option(help="Shorter side of a face in pixels below which it counts neither as found nor as missed."),
    ] = 16,
    min_face_px: Annotated[int, typer.Option(help="Smallest face that the detector looks for, in pixels.")] = 16,
    device: Annotated[str, typer.Option(help="Device of the detector: cpu or cuda.")] = "cpu",
    lists: Annotated[
        Path | None, typer.Option(help="Folder of the easy, medium and hard lists (.mat) of WIDER FACE.", **PATH)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as one JSON object.")] = False,
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
