"""The two work pools: `cpu`, and `gpu` with one run at a time.

facemill pools && prefect --no-prompt deploy --all
facemill worker cpu        on machines for CPU work
facemill worker gpu        where the GPU is
"""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

POOLS: dict[str, int | None] = {"cpu": None, "gpu": 1}
"""Name → how many runs at a time; None is no limit."""


def create_pools() -> list[str]:
    """Makes the pools, or sets their limits if they are there. Returns a line for each."""
    lines = []
    with get_client(sync_client=True) as client:
        for name, limit in POOLS.items():
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                template = ProcessWorker.get_default_base_job_template()
                client.create_work_pool(
                    WorkPoolCreate(name=name, type="process", base_job_template=template, concurrency_limit=limit)
                )
                made = "made"
            else:
                client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
                made = "was there"
            lines.append(f"work pool {name}: {made}, {f'{limit} run at a time' if limit else 'no limit'}")
    return lines
