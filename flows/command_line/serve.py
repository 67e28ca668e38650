"""`facemill serve`, `server`, `login` and `pools`: flows by the clock, the Prefect page, and who may use it."""

from __future__ import annotations

from typing import Annotated

import typer

from facemill.errors import FacemillError
from flows.command_line.options import HERE, Root
from flows.command_line.session import flow_server
from flows.project import enter, given_api
from flows.server import LOGIN_HINT, PORT, describe_login, project_server, running_server, stay
from tasks.work.terminal import say

Port = Annotated[
    int, typer.Option(help="Port of the server that is started if none runs here and PREFECT_API_URL is not set.")
]


def serve(
    root: Root = HERE,
    cron: Annotated[
        str, typer.Option(help="Times of the refresh, as cron writes them: minute, hour, day, month, weekday.")
    ] = "0 3 * * *",
    timezone: Annotated[str, typer.Option(help="Time zone of --cron, such as Europe/Berlin.")] = "UTC",
    port: Port = PORT,
    then_train: Annotated[
        bool, typer.Option(help="Train and convert after a refresh that brought something new.")
    ] = True,
) -> None:
    """Stay and refresh the dataset by the clock; the other flows run on demand.

    Example: facemill serve --cron "0 3 * * *" --timezone Europe/Berlin
    """
    with flow_server(root, port) as server:
        from flows.serve import serve_all

        server.wait()
        say(f"The Prefect page: {server.page}. {LOGIN_HINT} Ctrl-C ends it.")
        serve_all(cron, timezone, then_train=then_train)


def server(root: Root = HERE, port: Port = PORT) -> None:
    """Stay and show the Prefect page: what has run, what runs, and what is due.

    Example: facemill server
    """
    stay(enter(root), port)


def login(root: Root = HERE) -> None:
    """Print the address of the Prefect page, and the login that it asks for once in each browser.

    Example: facemill login
    """
    say(describe_login(enter(root)))


def pools(root: Root = HERE) -> None:
    """Make the work pools cpu and gpu in the project's Prefect server, or set their limits.

    Example: facemill pools
    """
    project = enter(root)
    if not (given_api(project) or running_server(project)):
        raise FacemillError("pools lie in a server: start `facemill server`, or set PREFECT_API_URL to another one")
    with project_server(project) as server:
        from flows.pools import create_pools

        server.wait()
        say("\n".join(create_pools()))
