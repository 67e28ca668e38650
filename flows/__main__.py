"""`python -m flows FLOW`: runs a flow here and now, or stays and runs them by the clock.

Without PREFECT_API_URL a flow brings its own server along for as long as it runs; its history stays in .prefect, and
`prefect server start` in this folder shows it. Codes: 0 done, 1 failed with a message, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from facemill.errors import FacemillError
from tasks.catalogue import Data
from tasks.paths import EXISTING_FOLDER, PATH, PATH_TEXT

# Prefect reads these when it is imported. They stand in prefect.toml, too, for Prefect's own commands.
os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".prefect"))
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
PORT = 4200
_IN_SESSION = "FACEMILL_FLOW_IN_SESSION"

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
Root = Annotated[str, typer.Option(help="The project's folder.", show_default="here", **PATH_TEXT)]


@app.command()
def refresh(
    root: Root = ".",
    then_train: Annotated[bool, typer.Option("--then-train", help="Start the deployment train/gpu if due.")] = False,
) -> None:
    """Bring the dataset up to date and name its version."""
    _check(root)
    from flows.refresh import refresh

    version = refresh(root, then_train).version
    print(f"dataset {version.name}: {'new' if version.is_new else 'nothing has changed'}")


@app.command()
def train(root: Root = ".") -> None:
    """Bring the model up to date."""
    _check(root)
    from flows.train import train

    metrics = train(root)
    print(f"model: {Path(root) / Data.MODEL}, {metrics.get('steps', '?')} steps")


@app.command()
def convert(
    root: Root = ".",
    archive: Annotated[
        Path | None, typer.Option(help="A folder of videos.", show_default="params.yaml's", **EXISTING_FOLDER)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where their conversions go.", **PATH)] = None,
    model: Annotated[Path | None, typer.Option(help="The model folder.", show_default=Data.MODEL, **PATH)] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Take up videos that failed before, too.")] = False,
) -> None:
    """Convert the archive, a task for each video."""
    _check(root)
    from flows.convert import convert

    folders = [None if path is None else str(path.absolute()) for path in (archive, output, model)]
    metrics = convert(root, folders[0], folders[1], folders[2], retry)
    where = output or Path(root) / Data.CONVERTED
    print(f"videos: {where}, {metrics['ok']} of {metrics['in']} converted")


@app.command()
def pipeline(root: Root = ".") -> None:
    """Refresh, train, convert, report."""
    _check(root)
    from flows.pipeline import pipeline

    done = pipeline(root)
    project = Path(root)
    print(f"\ndataset  {done.version.name} ({'new' if done.version.is_new else 'nothing has changed'})")
    print(f"model    {project / Data.MODEL} ({'trained now' if done.trained else 'up to date'})")
    print(f"videos   {project / Data.CONVERTED} ({_of(done.metrics['convert'])} converted)")
    print(f"report   {project / Data.REPORT}: open it in a browser")
    print(f"prefect  {os.environ.get('PREFECT_API_URL') or _how_to_open()}")


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help="When to refresh: minute, hour, day, month, weekday.")] = "0 3 * * *",
    timezone: Annotated[str, typer.Option(help="In which that is meant.")] = "UTC",
    port: Annotated[int, typer.Option(help="Of the server, where PREFECT_API_URL names none.")] = PORT,
    then_train: Annotated[bool, typer.Option(help="Train and convert after a refresh with something new.")] = True,
) -> None:
    """Stay: refresh by the clock, the other flows on demand."""
    from contextlib import nullcontext

    from flows.server import local_server

    given = os.environ.get("PREFECT_API_URL")
    with nullcontext(given) if given else local_server(port) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.serve import serve_all

        print(f"The Prefect page: {api.removesuffix('/api')}. Ctrl-C ends it.", flush=True)
        serve_all(cron, timezone, then_train=then_train)


@app.command()
def pools() -> None:
    """Make the work pools cpu and gpu, or set their limits (wants PREFECT_API_URL)."""
    from flows.pools import create_pools

    if not os.environ.get("PREFECT_API_URL"):
        raise FacemillError("pools lie in a server: set PREFECT_API_URL, such as http://127.0.0.1:4200/api")
    print("\n".join(create_pools()))


def main() -> None:
    """The entry point: the flow in a session of its own.

    Ctrl-C in a terminal goes to every process of the session. Prefect's own server would die of it at once, and the
    flow would wait for minutes for a server that could take note of its end.
    """
    if _IN_SESSION in os.environ:
        run()
        return
    command = [sys.executable, "-m", "flows", *sys.argv[1:]]
    process = subprocess.Popen(command, env={**os.environ, _IN_SESSION: "1"}, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: process.send_signal(received))
    sys.exit(process.wait())


def run() -> None:
    """Turns errors into one message and a code."""
    del os.environ[_IN_SESSION]  # not for the processes that we start
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    # Ended by SIGTERM like by Ctrl-C: else the server that Prefect brought along stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except FacemillError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # typer's answer to Ctrl-C
            print("interrupted: what was finished is kept; run the same command to go on", file=sys.stderr)
        raise


def _check(root: str) -> None:
    """A wrong value in params.yaml is said at once, not after Prefect has started."""
    from tasks.params import load_params

    load_params(Path(root))


def _of(metrics: dict[str, Any]) -> str:
    return f"{metrics.get('ok', 0)} of {metrics.get('in', 0)}"


def _how_to_open() -> str:
    return f"`make ui` (or `prefect server start`), then http://127.0.0.1:{PORT}: this run is in its history"


if __name__ == "__main__":
    main()
