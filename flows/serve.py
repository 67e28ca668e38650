"""Stay and run: the refresh by the clock, everything on demand, in this process's folder.

For one machine that is all it takes; with several, `prefect.yaml` has the same deployments for work pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.schedules import Cron

from facemill.locks import locked
from flows.convert import convert
from flows.pipeline import pipeline
from flows.project import home_of
from flows.refresh import refresh
from flows.runs import MAKE_UP, deployments_of_ours
from flows.server import Server
from flows.staying import patient, stay, try_to_put_right
from flows.train import train
from tasks.work.terminal import say

AT_ONCE = 6
"""Runs in all. One that waits until another one of its flow has ended counts, too."""


def serve_all(server: Server, cron: str, timezone: str = "UTC", *, then_train: bool = True) -> None:
    """Registers the deployments and runs what is due until it is told to end.

    Args:
        server: kept alive meanwhile, if it is our own.
        cron: when the dataset is refreshed: minute, hour, day, month, weekday.
        timezone: in which that is meant.
        then_train: train and convert after a refresh that brought something new.

    Raises:
        FacemillError: it is running already in this folder, or Prefect gave up.
        KeyboardInterrupt: it was told to end, and has.
    """
    project = Path.cwd()
    lock, busy = home_of(project) / "serve.lock", f"facemill serve is running already in {project}"
    with locked(lock, busy, "end that one first"), get_client(sync_client=True) as client:
        made = deployments(cron, timezone, then_train=then_train)

        def ours() -> Sequence[DeploymentResponse]:
            return _registered(client, made)

        # Before they are registered anew, which throws away what the clock has asked for.
        try_to_put_right(client, ours, alone=True)
        runner = _Runner(name="facemill", pause_on_shutdown=False, limit=AT_ONCE)
        for each in made:
            runner.add_deployment(each)
        _retire(client, ours())
        stay(server, client, runner.start, ours, alone=True)


def deployments(cron: str, timezone: str, *, then_train: bool) -> list[RunnerDeployment]:
    """The same as in prefect.yaml. None of them has a limit of Prefect's (flows.at_work says why)."""
    made = [
        refresh.to_deployment(
            "nightly",
            schedule=Cron(cron, timezone=timezone),
            parameters={"then_train": then_train},
            concurrency_limit=None,
            tags=[MAKE_UP],
        ),
        *(
            flow.to_deployment(name, concurrency_limit=None, tags=[MAKE_UP])
            for flow, name in ((train, "gpu"), (convert, "cpu"), (pipeline, "cpu"))
        ),
    ]
    return cast(list[RunnerDeployment], made)  # coroutines only where it is called from one


class _Runner(Runner):
    """Prefect's, which would end with all its flows when its server was away for three questions in a row."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        poller = self._scheduled_run_poller
        # Prefect has no place to hook in there: its own method is replaced on this one runner.
        poller._get_and_submit_flow_runs = patient(poller._get_and_submit_flow_runs)  # type: ignore[assignment]
        return self


def _registered(client: SyncPrefectClient, made: Sequence[RunnerDeployment]) -> list[DeploymentResponse]:
    """Those of our deployments that the server knows."""
    wanted = {(each.flow_name, each.name) for each in made}
    return [each for flow, each in deployments_of_ours(client) if (flow, each.name) in wanted]


def _retire(client: SyncPrefectClient, ours: Sequence[DeploymentResponse]) -> None:
    """Pauses deployments that an earlier version served under another name: nobody would run what they ask for."""
    kept = {each.id for each in ours}
    for flow, each in deployments_of_ours(client):
        if each.id not in kept and each.work_pool_name is None and not each.paused:
            client.pause_deployment(each.id)
            say(f"deployment {flow}/{each.name} is not served any more: paused")
