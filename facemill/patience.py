"""How long something may take and how often it is tried: a rule for each thing that may hang, or fail for a moment.

Only what may go better is tried again: a second try that would fail alike costs time and hides the cause. The library's
own rules stand here; those of the stages in their table (`tasks.stages`), that of DVC's transfers beside them
(`tasks.versions.dvc.TRANSFER`). What was at work in a worker that died is tried by `tasks.work.cluster.run_all`, once
more and alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """How long something may take and how often it is tried where nobody watches."""

    deadline_s: float
    """Each try is ended after so many seconds. Generous: it is there for what hangs, not for what is slow."""
    tries: int
    wait_s: float
    """Before the next try."""
    reason: str
    """Why another try can help, or cannot."""


TRIES_AFTER_DEATH = 2
"""At least so often a flow tries a stage whose process was killed, by the kernel for want of memory or by somebody: its
own rule speaks of errors, and a death tells nothing about the work."""

PICTURE_DOWNLOAD = Rule(30.0, 3, 0.5, "a host may be busy for a moment; what it refuses, it would refuse again")
"""Of one address. Unlike a stage's, its deadline covers all tries and the pauses between them, and a pause is drawn
from nothing up to `wait_s`, which doubles with each try; Retry-After of the host counts before that."""

PICTURE_SEARCH = Rule(300.0, 1, 0, "a search has no parts that are kept; the stage that wants it is tried as a whole")
"""Of one search for pictures, browser included. A source's `deadline_s` overrules it."""

WEIGHTS_SILENCE_S = 60.0
"""Longest silence of the network while a net's published weights are fetched: half a gigabyte may take any time, and
there is nothing to watch but that bytes come. Not tried again, since a person can fetch the file and name it."""

FRAME_SILENCE_S = 300.0
"""Longest silence between two frames of a video. Those of 8K with a face take seconds on a slow machine, where usual
ones take hundredths: what takes a hundred times longer than the slowest does not get on."""
