"""Starting another deployment, once for each cause."""

from __future__ import annotations

from typing import Any, cast

from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment


def start_once(deployment: str, cause: str, **parameters: Any) -> None:
    """Starts a deployment and does not wait for it.

    A flow that is tried again does not start a second run for the same cause, unless the first one has failed.

    Args:
        deployment: FLOW/NAME, as in prefect.yaml.
        cause: what the run is for, such as the hash of a dataset.
        parameters: of the flow.

    Raises:
        prefect.exceptions.ObjectNotFound: there is no such deployment: run `prefect deploy --all` or `facemill serve`.
    """
    key = cause
    while True:
        made = run_deployment(deployment, parameters=parameters, timeout=0, idempotency_key=key, as_subflow=False)
        run = cast(FlowRun, made)  # a coroutine only where it is called from one
        if run.state is None or not (run.state.is_failed() or run.state.is_crashed() or run.state.is_cancelled()):
            get_run_logger().info("%s: run %s", deployment, run.name)
            return
        key = f"{cause}-after-{run.id}"
