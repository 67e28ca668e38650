"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasks.paths import PATH

Root = Annotated[
    Path, typer.Option("--root", help="Folder of the project, which holds params.yaml.", show_default="here", **PATH)
]
HERE = Path(".")
