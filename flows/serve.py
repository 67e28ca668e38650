"""Stay and run: the refresh by the clock, everything on demand, in this process's folder.

For one machine that is all it takes; with several, `prefect.yaml` has the same deployments for work pools.
"""

from __future__ import annotations

from typing import cast

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from flows.convert import convert
from flows.pipeline import pipeline
from flows.refresh import refresh
from flows.train import train

AT_ONCE = 2
"""Runs in all: a refresh and a training or conversion beside it."""


def serve_all(cron: str, timezone: str = "UTC", *, then_train: bool = True) -> None:
    """Registers the deployments and runs what is due until it is interrupted.

    Args:
        cron: when the dataset is refreshed: minute, hour, day, month, weekday.
        timezone: in which that is meant.
        then_train: train and convert after a refresh that brought something new.
    """
    serve(*deployments(cron, timezone, then_train=then_train), limit=AT_ONCE)


def deployments(cron: str, timezone: str, *, then_train: bool) -> list[RunnerDeployment]:
    """The deployments that a process serves, under the names that prefect.yaml gives them."""
    # A night that is still at work when the next one begins: the next one is skipped, it would find the stage locked.
    skip = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    made = [
        refresh.to_deployment(
            "nightly",
            schedule=Cron(cron, timezone=timezone),
            parameters={"then_train": then_train},
            concurrency_limit=skip,
        ),
        train.to_deployment("gpu", concurrency_limit=1),
        convert.to_deployment("cpu", concurrency_limit=1),
        pipeline.to_deployment("cpu", concurrency_limit=skip),
    ]
    return cast(list[RunnerDeployment], made)  # coroutines only where it is called from one
