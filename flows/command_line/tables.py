"""`facemill query`, `export`, `import`: tables, faces and the model for other tools, and what they bring back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facemill.errors import FacemillError
from flows.command_line.options import HERE, Root
from tasks.paths import EXISTING_PATH, PATH
from tasks.work.terminal import say

export_app = typer.Typer(help="Write the model, or the faces of the dataset, for other tools.")
import_app = typer.Typer(help="Take back what was done elsewhere.", no_args_is_help=True)


def query(
    sql: Annotated[
        str,
        typer.Argument(
            help="Statement that reads the tables, which are called as in data: dataset, faces, raw and others."
        ),
    ],
    root: Root = HERE,
    version: Annotated[
        str | None, typer.Option(help="Name of a version of the dataset.", show_default="the project as it is now")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="Form of the rows: table, csv, jsonl or parquet.", show_default="by --to, else table"
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="File that gets all rows: .csv, .jsonl or .parquet.", **PATH)] = None,
) -> None:
    """Run SQL over the tables of the project or of a version; they are read where they lie.

    DuckDB does it, an extra that `python deploy/install.py query` installs.

    Example: facemill query "SELECT identity, error, count(*) AS faces FROM dataset GROUP BY ALL"
    """
    from tasks.commands.query import Format
    from tasks.commands.query import query as run

    if form is not None and form not in [*Format]:
        raise typer.BadParameter(f"there is no format {form!r}; there are {', '.join(Format)}")
    run(root.resolve(), sql, version, Format(form) if form else None, to)


@export_app.callback(invoke_without_command=True)
def _export(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        raise FacemillError("say what: `facemill export model` writes ONNX, `facemill export faces FOLDER` the dataset")


@export_app.command()
def model(
    root: Root = HERE,
    identity: Annotated[
        str | None, typer.Option(help="Name of the only identity that is wanted.", show_default="all of them")
    ] = None,
) -> None:
    """Write the trained model as ONNX, a file for each identity, checked against torch.

    Example: facemill export model
    """
    from tasks.commands.export_model import export as write

    for path, difference in write(root.resolve(), identity=identity).items():
        say(f"{path}: differs from torch by at most {difference:.1e}.")


@export_app.command("faces")
def export_faces(
    folder: Annotated[Path, typer.Argument(help="New folder that gets a folder for each person.", **PATH)],
    root: Root = HERE,
    rejected: Annotated[bool, typer.Option("--rejected", help="Also write rejected faces, by their reason.")] = False,
) -> None:
    """Write the aligned faces of the dataset as files, with landmarks, pose and licence of each in alignments.jsonl.

    Example: facemill export faces faces
    """
    from tasks.commands.face_folders import LIST
    from tasks.commands.face_folders import export_faces as write

    for identity, count in sorted(write(root.resolve(), folder, rejected=rejected).items()):
        say(f"{folder / identity}: {count} faces.")
    say(f"{folder / LIST} says what is known of each. Delete or move files, then: facemill import faces {folder}")


@import_app.command("faces")
def import_faces(
    folder: Annotated[Path, typer.Argument(help="Folder that `facemill export faces` has written.", **EXISTING_PATH)],
    root: Root = HERE,
    even_many: Annotated[
        bool, typer.Option("--even-many", help="Drop the missing faces even if they are more than half.")
    ] = False,
) -> None:
    """Take what was deleted or moved in the folders of an export as decisions of a person, into decisions.csv.

    Example: facemill import faces faces
    """
    from flows.command_line.review import user
    from tasks.commands.face_folders import describe_import
    from tasks.commands.face_folders import import_faces as taken
    from tasks.commands.review import project_faces

    say(describe_import(taken(project_faces(root.resolve(), user()), folder, even_many=even_many)))
