"""`facemill version`: named versions of the dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.command_line.options import HERE, Root
from tasks.paths import PATH
from tasks.work.terminal import say

app = typer.Typer(help="Name, list, compare and bring back versions of the dataset.", no_args_is_help=True)


@app.command("list")
def list_(root: Root = HERE) -> None:
    """List the dataset versions, oldest first.

    Example: facemill version list
    """
    from tasks.versions.store import list_versions, print_versions

    print_versions(list_versions(root.resolve()))


@app.command()
def save(
    name: Annotated[str | None, typer.Argument(help="Name of the version.", show_default="the next v1, v2, …")] = None,
    root: Root = HERE,
) -> None:
    """Name the dataset as it is now; the same data is never two versions.

    Example: facemill version save spring
    """
    from tasks.versions.store import describe_saved, save_version

    say(describe_saved(save_version(root.resolve(), name), name))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Name of the older version.")],
    second: Annotated[str, typer.Argument(help="Name of the newer version.")],
    root: Root = HERE,
    limit: Annotated[int, typer.Option(min=0, help="Number of rows that are listed one by one.")] = 20,
    json: Annotated[
        Path | None, typer.Option("--json", help="File for all rows and parameters that differ, as JSON.", **PATH)
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="File for a page (.html) that shows added, deleted and modified faces.", **PATH),
    ] = None,
) -> None:
    """Show what differs between two versions: faces one by one and by identity and reason, and parameters.

    Example: facemill version compare v1 v2 --json changes.json --sheet changes.html
    """
    from tasks.versions.comparison import compare_versions, print_comparison, write_comparison
    from tasks.versions.sheet import check_sheet, write_sheet

    if sheet is not None:
        check_sheet(sheet)
    found = compare_versions(root.resolve(), first, second)
    print_comparison(found, limit=limit)
    if json is not None:
        write_comparison(json, found)
    if sheet is not None:
        write_sheet(root.resolve(), sheet, found)


@app.command()
def restore(
    name: Annotated[str, typer.Argument(help="Name of the version.")],
    root: Root = HERE,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite parameters and data that are in no version.")
    ] = False,
) -> None:
    """Bring the data and the parameters of a version back.

    Example: facemill version restore v1
    """
    from tasks.versions.store import restore_version

    restore_version(root.resolve(), name, force=force)
    say(f"The data and the parameters are those of {name} now.")
