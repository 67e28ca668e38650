"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasks.paths import PATH

Root = Annotated[
    Path, typer.Option("--root", help="Folder of the project, which holds params.yaml.", show_default="here", **PATH)
]
LetFailuresPass = Annotated[
    bool,
    typer.Option(
        "--let-failures-pass",
        help="End with code 0 though some videos failed; they are named in the table of conversions all the same.",
    ),
]
Retry = Annotated[
    bool,
    typer.Option(
        "--retry",
        help="Also take up the videos that failed in an earlier run because of what is in them; those that failed for "
        "another reason are always taken up again.",
    ),
]
HERE = Path(".")
