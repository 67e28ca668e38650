"""`facemill review`: a person looks through the faces of the dataset, on a page or on contact sheets."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

from flows.command_line.options import HERE, Root
from tasks.paths import EXISTING_PATH, PATH
from tasks.work.terminal import say

app = typer.Typer()
_PORT = 4280

By = Annotated[str, typer.Option(help="Name of who decides, as decisions.csv has it.", show_default="the user's")]


@app.callback(invoke_without_command=True)
def review(
    context: typer.Context,
    root: Root = HERE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page on this machine; 0 for any.")] = _PORT,
    by: By = "",
) -> None:
    """Look through the faces of the dataset on a local page, and keep, drop or re-assign them above the rules.

    Example: facemill review
    """
    if context.invoked_subcommand is not None:
        return
    from flows.login import ensure_login
    from flows.project import enter, home_of
    from flows.review import serve_review
    from tasks.commands.review import project_faces

    project = enter(root)
    serve_review(project_faces(project, by or user()), ensure_login(home_of(project)), port)


@app.command()
def sheets(
    folder: Annotated[Path, typer.Argument(help="Folder that gets the sheets and their list.", **PATH)],
    root: Root = HERE,
    identity: Annotated[str, typer.Option(help="Only faces that count for this person.")] = "",
    reason: Annotated[
        str, typer.Option(help="Only faces with this reason, such as blurred; `ok` for those in the dataset.")
    ] = "",
) -> None:
    """Write contact sheets of the faces, each with its number, and a list in which verdicts can be filled in.

    Example: facemill review sheets sheets --reason blurred
    """
    from tasks.commands.review import Wanted, project_faces
    from tasks.commands.review_sheets import write_sheets

    wanted = Wanted(identity, "ok") if reason == "ok" else Wanted(identity, reason=reason)
    say("\n".join(write_sheets(project_faces(root.resolve(), user()), wanted, folder)))


@app.command()
def take(
    listed: Annotated[Path, typer.Argument(help="The list with verdicts filled in.", metavar="FILE", **EXISTING_PATH)],
    root: Root = HERE,
    by: By = "",
) -> None:
    """Take the verdicts of a list that `facemill review sheets` has written into decisions.csv.

    Example: facemill review take sheets/faces.csv
    """
    from tasks.commands.review import project_faces
    from tasks.commands.review_sheets import take_list

    say(take_list(project_faces(root.resolve(), by or user()), listed))


def user() -> str:
    """Who works here; a container may know no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
