"""The entry point: the tree of commands, one message for each failure, the exit codes.

| code | means |
|---|---|
| 0 | done |
| 1 | an error; its message says how to mend it |
| 2 | wrong usage |
| 130 | interrupted; finished shards and videos are kept, and the same command goes on |

`--traceback` shows where an error came from.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from facemill.errors import FacemillError
from facemill.version import VERSION
from flows.command_line import models, run, serve, stages, versions, videos
from tasks.commands.detector import detector_app
from tasks.work.terminal import never_fail_to_print, say, say_error, say_traceback

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

app = typer.Typer(
    help="Curated face datasets, face-swap models and converted archives, as scheduled, resumable, versioned work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(stages.check)
app.command()(stages.stage)
app.command()(stages.why)
app.command()(stages.accept)
app.command()(stages.clean)
app.add_typer(run.app, name="run")
app.command()(serve.serve)
app.command()(serve.server)
app.command()(serve.login)
app.command()(serve.pools)
app.command()(videos.convert)
app.command()(videos.detect)
app.command()(models.export)
app.add_typer(detector_app, name="detector")
app.add_typer(versions.app, name="version")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    if version:
        say(VERSION)
        raise typer.Exit


def main() -> None:
    """Runs the command that was typed, and ends the process with its code."""
    never_fail_to_print()
    try:
        app()
    except FacemillError as error:
        _end("error", error)
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this code and says nothing
            say("interrupted: what was finished is kept; run the same command to go on", error=True)
        raise
    except Exception as error:  # a defect: still one line first, and where to look
        _end(
            "defect",
            f"{type(error).__name__}: {error}\nrun again as `facemill --traceback …` and report what it prints",
        )


def _end(kind: str, message: object) -> NoReturn:
    if "--traceback" in sys.argv:
        say_traceback()
    say_error(kind, message)
    sys.exit(EXIT_ERROR)
