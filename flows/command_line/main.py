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
from flows.command_line import models, review, run, serve, stages, tables, versions, videos
from tasks.commands.detector import detector_app
from tasks.work.terminal import never_fail_to_print, say, say_error, say_traceback

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

app = typer.Typer(
    help="Build curated face datasets, train face-swap models and convert archives: scheduled, resumable, versioned.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_PIPELINE, _FLOWS, _FOLDERS, _KEPT = "Pipeline", "Prefect flows", "Folders of your own", "Models and versions"
app.command(rich_help_panel=_PIPELINE)(stages.check)
app.command(rich_help_panel=_PIPELINE)(stages.stage)
app.command(rich_help_panel=_PIPELINE)(stages.why)
app.command(rich_help_panel=_PIPELINE)(stages.accept)
app.command(rich_help_panel=_PIPELINE)(stages.verify_repro)
app.command(rich_help_panel=_PIPELINE)(stages.clean)
app.command(rich_help_panel=_KEPT)(stages.freshness)
app.command(rich_help_panel=_KEPT)(stages.forget)
app.add_typer(review.app, name="review", rich_help_panel=_KEPT)
app.add_typer(run.app, name="run", rich_help_panel=_FLOWS)
app.command(rich_help_panel=_FLOWS)(serve.serve)
app.command(rich_help_panel=_FLOWS)(serve.server)
app.command(rich_help_panel=_FLOWS)(serve.login)
app.command(rich_help_panel=_FLOWS)(serve.pools)
app.command(rich_help_panel=_FLOWS)(serve.worker)
app.command(rich_help_panel=_FLOWS)(serve.nights)
app.command(rich_help_panel=_FLOWS)(serve.notify)
app.command(rich_help_panel=_FOLDERS)(videos.convert)
app.command(rich_help_panel=_FOLDERS)(videos.preview)
app.command(rich_help_panel=_FOLDERS)(videos.status)
app.command(rich_help_panel=_FOLDERS)(videos.detect)
app.command(rich_help_panel=_KEPT)(tables.query)
app.add_typer(tables.export_app, name="export", rich_help_panel=_KEPT)
app.add_typer(tables.import_app, name="import", rich_help_panel=_KEPT)
app.command(rich_help_panel=_KEPT)(models.weights)
app.command(rich_help_panel=_KEPT)(models.licences)
app.command(rich_help_panel=_KEPT)(models.attribution)
app.add_typer(versions.app, name="version", rich_help_panel=_KEPT)
app.add_typer(detector_app, name="detector", rich_help_panel=_KEPT)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version of facemill and end.")] = False,
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
            say("Interrupted: what was finished is kept; run the same command to go on.", error=True)
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
