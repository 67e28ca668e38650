"""`facemill export`: the trained model for other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.command_line.options import HERE, Root
from tasks.work.terminal import say


def export(
    root: Root = HERE,
    identity: Annotated[
        str | None, typer.Option(help="Name of the only identity that is wanted.", show_default="all of them")
    ] = None,
) -> None:
    """Write the trained model as ONNX, a file for each identity, checked against torch.

    Example: facemill export
    """
    from tasks.commands.export import export as write

    for path, difference in write(root.resolve(), identity=identity).items():
        say(f"{path}: differs from torch by at most {difference:.1e}.")
