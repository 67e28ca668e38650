"""`facemill serve` and `facemill pools`: flows by the clock, on one machine or on several."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from facemill.errors import FacemillError
from flows.command_line.options import HERE, Root
from flows.command_line.session import flow_process, prefect_settings
from tasks.work.terminal import say

PORT = 4200
"""Prefect's own."""


def serve(
    root: Root = HERE,
    cron: Annotated[
        str, typer.Option(help="When the dataset is refreshed: minute, hour, day, month, weekday.")
    ] = "0 3 * * *",
    timezone: Annotated[str, typer.Option(help="Time zone of --cron, such as Europe/Berlin.")] = "UTC",
    port: Annotated[
        int, typer.Option(help="Port of the Prefect server that is started if PREFECT_API_URL is not set.")
    ] = PORT,
    then_train: Annotated[
        bool, typer.Option(help="Train and convert after a refresh that brought something new.")
    ] = True,
) -> None:
    """Stay and refresh the dataset by the clock; the other flows run on demand.

    Example: facemill serve --cron "0 3 * * *" --timezone Europe/Berlin
    """
    with flow_process(root):
        from flows.server import serve_by_the_clock

        serve_by_the_clock(cron, timezone, port=port, then_train=then_train)


def pools(root: Root = HERE) -> None:
    """Make the work pools cpu and gpu in the server of PREFECT_API_URL, or set their limits.

    Example: PREFECT_API_URL=http://127.0.0.1:4200/api facemill pools
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise FacemillError("pools lie in a server: set PREFECT_API_URL, such as http://127.0.0.1:4200/api")
    prefect_settings(root)
    from flows.pools import create_pools

    say("\n".join(create_pools()))
