"""`facemill run FLOW`: a Prefect flow, here and now.

A flow uses the server that PREFECT_API_URL names, else the one that runs for the project; else it brings its own along
for as long as it runs. The history stays in .prefect, and `facemill server` shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemill.errors import FacemillError
from flows.command_line.options import HERE, LetFailuresPass, Retry, Root
from flows.command_line.session import flow_server
from tasks.catalogue import Data
from tasks.paths import EXISTING_PATH, PATH
from tasks.work.terminal import say

if TYPE_CHECKING:
    from tasks.versions.store import Version

app = typer.Typer(help="Run a Prefect flow here and now; no server is needed.", no_args_is_help=True)


@app.command()
def refresh(
    root: Root = HERE,
    then_train: Annotated[
        bool,
        typer.Option(
            "--then-train", help="Start the deployment train/gpu if there is something new; needs a Prefect server."
        ),
    ] = False,
) -> None:
    """Bring the dataset up to date and name its version.

    Example: facemill run refresh
    """
    with flow_server(root) as server:
        from flows.refresh import refresh

        server.wait()
        version = refresh(then_train=then_train).version
    say(_dataset(version))


@app.command()
def train(
    root: Root = HERE,
    then_convert: Annotated[
        bool,
        typer.Option("--then-convert", help="Start the deployment convert/cpu afterwards; needs a Prefect server."),
    ] = False,
) -> None:
    """Bring the model up to date; a training that was ended goes on from its last checkpoint.

    Example: facemill run train
    """
    with flow_server(root) as server:
        from flows.train import train

        server.wait()
        metrics = train(then_convert=then_convert)
    say(f"The model lies in {root / Data.MODEL}; it was trained for {metrics.get('steps', '?')} steps.")


@app.command()
def convert(
    root: Root = HERE,
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Folder of videos and pictures to convert, or one of them.",
            show_default="the archive of params.yaml",
            **EXISTING_PATH,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the conversions of --archive.", show_default=Data.CONVERTED, **PATH),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model that draws the faces.", show_default=Data.MODEL, **PATH)
    ] = None,
    retry: Retry = False,
    let_failures_pass: LetFailuresPass = False,
) -> None:
    """Convert the archive, a task for each video.

    Example: facemill run convert --archive ~/footage --output ~/converted
    """
    if (archive is None) != (output is None):
        raise FacemillError("--archive and --output belong together: give both, or none for the project's archive")
    if archive is None and model is not None:
        raise FacemillError("--model wants --archive and --output: the project's archive gets the project's model")
    archive, output, model = (path and path.absolute() for path in (archive, output, model))
    with flow_server(root) as server:
        from flows.convert import convert, convert_folder

        server.wait()
        if archive is None or output is None:
            metrics = convert(retry)
        else:
            metrics = convert_folder(archive, output, model, retry, let_failures_pass)
    say(f"{_of(metrics)} videos were converted; they lie in {output or root / Data.CONVERTED}.")


@app.command()
def pipeline(root: Root = HERE) -> None:
    """Run everything: refresh, train if there is something new to train on, convert, report.

    Example: facemill run pipeline
    """
    with flow_server(root) as server:
        from flows.pipeline import pipeline

        server.wait()
        done = pipeline()
    say("")
    say(_dataset(done.version))
    say(f"The model in {root / Data.MODEL} {'was trained in this run' if done.trained else 'is up to date'}.")
    say(f"{_of(done.metrics['convert'])} videos are converted; they lie in {root / Data.CONVERTED}.")
    say(f"The report is {root / Data.REPORT}: open it in a browser.")
    say("`make ui` (or `facemill server`) shows this run in Prefect's history.")


def _dataset(version: Version) -> str:
    name = version.name
    return f"Dataset {name} is new." if version.is_new else f"Nothing has changed: this is dataset {name}."


def _of(metrics: dict[str, Any]) -> str:
    return f"{metrics.get('ok', 0)} of {metrics.get('in', 0)}"
