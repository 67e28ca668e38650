"""`facemill convert` and `facemill detect`: folders of videos and pictures that are no part of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facemill.errors import FacemillError
from flows.command_line.options import HERE, LetFailuresPass, Retry, Root
from tasks.catalogue import Data
from tasks.paths import EXISTING_PATH, PATH
from tasks.work.terminal import say


def convert(
    archive: Annotated[
        Path, typer.Argument(help="Folder of videos and pictures to convert, or one of them.", **EXISTING_PATH)
    ],
    output: Annotated[Path, typer.Argument(help="Folder for the conversions.", **PATH)],
    root: Root = HERE,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model that draws the faces.", show_default=Data.MODEL, **PATH)
    ] = None,
    retry: Retry = False,
    let_failures_pass: LetFailuresPass = False,
) -> None:
    """Convert a folder of videos and pictures with a trained model; run again it converts only what is new.

    Identities, rights and settings come from params.yaml. Pictures keep their format. Files in which nobody is replaced
    are passed on byte for byte.

    Example: facemill convert ~/footage ~/converted
    """
    from tasks.convert import convert_folder, with_failure_limit
    from tasks.params import load_params
    from tasks.stages import print_totals

    root = root.resolve()
    params = with_failure_limit(load_params(root), let_failures_pass=let_failures_pass)
    print_totals(convert_folder(params, archive, output, model or root / Data.MODEL, root, retry=retry))


def preview(
    videos: Annotated[Path, typer.Argument(help="Video or picture, or folder of them.", **EXISTING_PATH)],
    output: Annotated[Path, typer.Option(help="Folder for the page and the clips.", **PATH)] = Path("preview"),
    root: Root = HERE,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model that draws the faces.", show_default=Data.MODEL, **PATH)
    ] = None,
    training: Annotated[
        bool,
        typer.Option(
            "--training", help="Draw with the model whose training is going on, as its newest checkpoint has it."
        ),
    ] = False,
    tries: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="NAME=VALUE",
            help="Setting of `convert` to compare with those of params.yaml, such as colour=none or encoder.crf=28. It "
            "can be given several times.",
        ),
    ] = None,
    clips: Annotated[bool, typer.Option(help="Also write a short clip of each video, before beside after.")] = True,
) -> None:
    """Show how the faces of some videos or pictures will look: each once, before and after, and a short clip.

    Example: facemill preview ~/footage --try colour=none
    """
    from tasks.commands.preview import PAGE, early_model, write_preview

    if training and model is not None:
        raise typer.BadParameter(
            "name a model, or take the one that is being trained, not both", param_hint="--training"
        )
    root = root.resolve()
    drawn_by = early_model(root) if training else model or root / Data.MODEL
    shown = write_preview(root, videos, output, model=drawn_by, tries=tries or (), clips=clips)
    somebody = sum(any(face.becomes for face in video.faces) for video in shown)
    say(f"In {somebody} of {len(shown)} files somebody is replaced; see {output / PAGE}.")


def status(
    output: Annotated[
        Path | None,
        typer.Argument(help="Output folder of a conversion.", show_default="the archive of the project", **PATH),
    ] = None,
    root: Root = HERE,
) -> None:
    """Show how far a conversion is: what is done, running, waiting and failed, and how long it will take.

    Example: facemill status ~/converted
    """
    from tasks.commands.status import show_status
    from tasks.converting.plan import STATE_FOLDER, state_folder

    show_status(state_folder(root.resolve()) if output is None else output / STATE_FOLDER)


def detect(
    path: Annotated[Path, typer.Argument(help="Picture, video, or folder of pictures and videos.", **EXISTING_PATH)],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records on stdout, one JSON object a line.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="File for the records, instead of stdout.", **PATH)] = None,
    detector: Annotated[
        str, typer.Option(help='Name of the detector, or several to ask in turn, such as "hog,mtcnn".')
    ] = "auto",
    detector_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Option of the detector, as detector_options of params.yaml has it, such as threshold=0.7; of one of "
            "several dsfd.threshold=0.7. It can be given several times.",
        ),
    ] = None,
    predictor: Annotated[
        str, typer.Option(help="Name of the landmark predictor: dlib (for research only) or mesh.")
    ] = "dlib",
    predictor_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Option of the landmark predictor, as landmark_options of params.yaml has it, such as "
            "weights=FILE. It can be given several times.",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of frames from one detection to the next; 1 detects in every frame.",
            show_default="10, at most 0.4 s",
        ),
    ] = None,
    min_face_px: Annotated[int, typer.Option(min=12, help="Smallest face that is looked for, in pixels.")] = 40,
    landmarks: Annotated[bool, typer.Option(help="Also find 68 landmarks and the pose of each head.")] = True,
    crops: Annotated[Path | None, typer.Option(help="Folder for a close-up of each face.", **PATH)] = None,
    crop_format: Annotated[str, typer.Option(help="Format of the close-ups: jpeg or png.")] = "jpeg",
    crop_px: Annotated[int, typer.Option(min=16, max=2048, help="Side of the close-ups, in pixels.")] = 256,
    device: Annotated[str, typer.Option(help="Device of the detector: cpu or cuda.")] = "cpu",
    jobs: Annotated[int, typer.Option(min=1, help="Number of worker processes; each takes files of its own.")] = 1,
) -> None:
    """Find the faces in pictures and videos; say where they are, or write it as records.

    Example: facemill detect clips --json --crops closeups > faces.jsonl
    """
    from facemill.recorder import RecordSettings
    from tasks.commands.detect import write_records
    from tasks.work.plugin_files import typed_detector_options, typed_predictor_options

    settings = RecordSettings(
        detector=detector,
        options=typed_detector_options(detector, detector_option or [], Path.cwd()),
        predictor=predictor,
        predictor_options=typed_predictor_options(predictor, predictor_option or [], Path.cwd()),
        device=device,
        min_face_px=min_face_px,
        every=every,
        landmarks=landmarks,
        crops=None if crops is None else str(crops),
        crop_format=crop_format,
        crop_px=crop_px,
    )
    to_stdout = as_json and output is None
    totals = write_records(path, settings, output=output, to_stdout=to_stdout, jobs=jobs)
    if totals is None:
        return
    say(totals, error=to_stdout)
    if len(totals.failures) == totals.files:
        raise FacemillError(f"none of the {totals.files} files could be used: see above")
