"""How long each stage may take, how often it and a video are tried, and why.

A single video has no deadline: a Dask worker cannot be made to give up one task, and a video written off while its
worker still wrote would have two outcomes. What bounds it is the operator, who cancels the flow run; finished videos
stay, and the next run goes on with the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.stages import STAGES

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Tries:
    tries: int
    wait_s: float
    """Before the next try."""
    reason: str
    """Why another try can help."""


@dataclass(frozen=True)
class Rule:
    deadline_s: float
    """The stage is ended after so many seconds. Generous: it is there for what hangs, not for what is slow."""
    tries: int
    wait_s: float
    """Before the next try."""
    reason: str
    """Why another try can help, or cannot."""


RULES = {
    "inventory": Rule(1 * _HOUR_S, 2, 30, "reads every file: a network drive may be away for a moment"),
    "collect": Rule(8 * _HOUR_S, 3, 60, "hosts fail for minutes; only the rows that failed are fetched again"),
    "dedup": Rule(4 * _HOUR_S, 1, 0, "no network, no chance: a second try would fail alike"),
    "extract": Rule(12 * _HOUR_S, 2, 60, "a machine may lose its workers; finished shards are kept"),
    "curate": Rule(2 * _HOUR_S, 1, 0, "no network, no chance: a second try would fail alike"),
    "train": Rule(48 * _HOUR_S, 3, 60, "a GPU may be taken or lost; training goes on from its last checkpoint"),
    "convert": Rule(4 * _HOUR_S, 2, 60, "only publishes what the tasks of each video left; a drive may be away"),
    "report": Rule(2 * _HOUR_S, 1, 0, "no network, no chance: a second try would fail alike"),
}
assert tuple(RULES) == STAGES

PUSH = Rule(12 * _HOUR_S, 3, 120, "remotes fail for minutes; what was sent is not sent again")
VIDEO = Tries(2, 10, "a worker that was killed may have been the victim of its neighbour")
