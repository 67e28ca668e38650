"""How often what is no stage is tried, and why; each stage has its rule in `tasks.stages.STAGES`.

A single video has no deadline: a Dask worker cannot be made to give up one task, and a video written off while its
worker still wrote would have two outcomes. What bounds it is the operator, who cancels the flow run; finished videos
stay, and the next run goes on with the others. How often a video is tried is the pool's business
(`tasks.work.cluster.run_all`).
"""

from __future__ import annotations

from tasks.stages import Rule

PUSH = Rule(12 * 3600.0, 3, 120, "remotes fail for minutes; what was sent is not sent again")
