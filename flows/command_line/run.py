"""`facemill run FLOW`: a Prefect flow, here and now.

Without PREFECT_API_URL a flow brings its own server along for as long as it runs; its history stays in .prefect, and
`prefect server start` in the project's folder shows it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command_line.options import HERE, Root
from flows.command_line.serve import PORT
from flows.command_line.session import flow_process
from tasks.catalogue import Data
from tasks.paths import EXISTING_FOLDER, PATH
from tasks.work.terminal import say

app = typer.Typer(help="Run a Prefect flow here and now, without a server of your own.", no_args_is_help=True)


@app.command()
def refresh(
    root: Root = HERE,
    then_train: Annotated[
        bool,
        typer.Option(
            "--then-train", help="Start the deployment train/gpu if there is something new to train on; wants a server."
        ),
    ] = False,
) -> None:
    """Bring the dataset up to date and name its version.

    Example: facemill run refresh
    """
    with flow_process(root):
        from flows.refresh import refresh

        version = refresh(then_train=then_train).version
    say(f"dataset {version.name}: {'new' if version.is_new else 'nothing has changed'}")


@app.command()
def train(
    root: Root = HERE,
    then_convert: Annotated[
        bool, typer.Option("--then-convert", help="Start the deployment convert/cpu afterwards; wants a server.")
    ] = False,
) -> None:
    """Bring the model up to date; a training that was ended goes on from its last checkpoint.

    Example: facemill run train
    """
    with flow_process(root):
        from flows.train import train

        metrics = train(then_convert=then_convert)
    say(f"model: {root / Data.MODEL}, {metrics.get('steps', '?')} steps")


@app.command()
def convert(
    root: Root = HERE,
    archive: Annotated[
        Path | None,
        typer.Option(help="Folder of videos to convert.", show_default="the archive of params.yaml", **EXISTING_FOLDER),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the conversions of --archive.", show_default=Data.CONVERTED, **PATH),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of the model.", show_default=Data.MODEL, **PATH)] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also take up the videos that failed before.")] = False,
) -> None:
    """Convert the archive, a task for each video.

    Example: facemill run convert --archive ~/footage --output ~/converted
    """
    folders = [None if path is None else str(path.absolute()) for path in (archive, output, model)]
    with flow_process(root):
        from flows.convert import convert

        metrics = convert(archive=folders[0], output=folders[1], model=folders[2], retry=retry)
    say(f"videos: {output or root / Data.CONVERTED}, {_of(metrics)} converted")


@app.command()
def pipeline(root: Root = HERE) -> None:
    """Run everything: refresh, train if there is something new to train on, convert, report.

    Example: facemill run pipeline
    """
    with flow_process(root):
        from flows.pipeline import pipeline

        done = pipeline()
    page = os.environ.get("PREFECT_API_URL") or (
        f"`make ui` (or `prefect server start`), then http://127.0.0.1:{PORT}: this run is in its history"
    )
    say(f"\ndataset  {done.version.name} ({'new' if done.version.is_new else 'nothing has changed'})")
    say(f"model    {root / Data.MODEL} ({'trained now' if done.trained else 'up to date'})")
    say(f"videos   {root / Data.CONVERTED} ({_of(done.metrics['convert'])} converted)")
    say(f"report   {root / Data.REPORT}: open it in a browser")
    say(f"prefect  {page}")


def _of(metrics: dict[str, Any]) -> str:
    return f"{metrics.get('ok', 0)} of {metrics.get('in', 0)}"
