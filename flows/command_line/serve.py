"""`facemill serve`, `server`, `login`, `pools`, `worker`, `nights`, `notify`: flows by the clock, and their page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facemill.errors import FacemillError
from flows.command_line.options import HERE, Root
from flows.command_line.session import flow_process, flow_server
from flows.project import enter, given_api
from flows.server import LOGIN_HINT, PORT, describe_login, project_server, running_server, stay
from tasks.paths import typed_path
from tasks.work.terminal import say, say_table

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
        serve_all(server, cron, timezone, then_train=then_train)


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
    _check_server(project)
    with project_server(project) as server:
        from flows.pools import create_pools

        server.wait()
        say("\n".join(create_pools()))


def worker(
    pool: Annotated[
        str, typer.Argument(help="Name of the work pool whose runs are taken: cpu or gpu.", metavar="POOL")
    ],
    root: Root = HERE,
) -> None:
    """Stay and take the runs of a work pool; runs that were missed or whose process is gone are put right.

    Example: facemill worker cpu
    """
    with flow_process(root) as project:
        _check_server(project)
        with project_server(project) as server:
            from flows.worker import work_for

            server.wait()
            say(f"Takes the runs of the work pool {pool}. The Prefect page: {server.page}. Ctrl-C ends it.")
            work_for(server, pool)


def nights(
    root: Root = HERE,
    number: Annotated[int, typer.Option("--number", min=1, max=200, help="Number of nights that are listed.")] = 10,
) -> None:
    """Show what the last nights brought and when the next one is due; the code is 1 where something needs a person.

    Example: facemill nights
    """
    project = enter(root)
    with project_server(project) as server:
        from prefect.client.orchestration import get_client

        from flows.nights import read_nights, rows
        from tasks.params import load_params
        from tasks.versions.freshness import freshness

        server.wait()
        with get_client(sync_client=True) as client:
            found = read_nights(client, number)
    if found.last:
        say_table(("due", "run", "state", "minutes", "what it brought, or why not"), rows(found))
    say("next: " + (", ".join(f"{due.astimezone():%Y-%m-%d %H:%M}" for due in found.coming) or "none"))
    fresh = freshness(project, load_params(project))
    if fresh.is_fresh:
        say(fresh)
    for trouble in (*found.troubles, *([] if fresh.is_fresh else [fresh])):
        say(trouble, error=True)
    if found.troubles or not fresh.is_fresh:
        raise typer.Exit(1)


def notify(
    url: Annotated[
        str,
        typer.Argument(help="Address to which notices are posted as JSON, such as a chat's webhook.", metavar="URL"),
    ],
    root: Root = HERE,
    automations: Annotated[
        Path | None,
        typer.Option(
            parser=typed_path,
            metavar="FILE",
            help="File with the automations; by default deploy/automations.yaml of the project.",
        ),
    ] = None,
) -> None:
    """Have Prefect tell somebody when a night fails, is late or has not come; a test notice is sent at once.

    Example: facemill notify https://chat.example.org/hooks/abc
    """
    automations = automations and automations.absolute()  # before the folder changes
    project = enter(root)
    _check_server(project, "automations")
    with project_server(project) as server:
        from flows.notify import notify_at, send_test

        server.wait()
        names = notify_at(url, automations or project / "deploy" / "automations.yaml")
        send_test("Notices come here when: " + "; ".join(names) + ".")
    say("\n".join(f"automation: {name}" for name in names))


def _check_server(project: Path, what: str = "pools") -> None:
    if not (given_api(project) or running_server(project)):
        raise FacemillError(f"{what} lie in a server: start `facemill server`, or set PREFECT_API_URL to another one")
