"""When a GAN's losses change: the published training schedule of faceswap-GAN v2.2 as a table.

A row says all that holds from its step on. Steps are counted on the table's own length and scaled to the run's: in a
run of 10,000 steps the event at 7,850 of 40,000 comes after 1,962 finished ones. `Schedule.at` is a pure function, so
that a resumed run stands where the other one stood; what happens once (decoders change places) is counted, and happens
at the step whose count is above that of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass

from facemill.errors import FacemillError


@dataclass(frozen=True, kw_only=True)
class Event:
    """What holds from `at` finished steps on, until the next row."""

    at: int  # steps, of `Schedule.length`
    perceptual: bool = False  # whether features of a network count
    hinge: float | None = None  # m of the mask's hinge loss max(0, m − α); None: |α| is lessened instead
    rate: float = 1.0  # factor on the learning rate, not on the factor before
    swap: bool = False  # decoders change places when this event begins


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What a schedule says of one step of a run."""

    perceptual: bool
    hinge: float | None
    rate: float
    swaps: int
    """How many times the decoders have changed places by now."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Events by rising `at`, the first at 0, on a run of `length` steps."""

    length: int
    events: tuple[Event, ...]
    least_steps_after_swap: int = 0
    """Of the run. Where fewer would be left, the decoders stay where they are: they could not learn the other face."""

    def __post_init__(self) -> None:
        steps = [event.at for event in self.events]
        if not steps or steps[0] != 0 or steps != sorted(set(steps)) or steps[-1] >= self.length:
            raise FacemillError(f"a schedule's events begin at 0 and rise below its length {self.length}, got {steps}")

    def begins(self, event: Event, total: int) -> int:
        """After how many finished steps of a run of `total` an event begins."""
        return event.at * total // self.length

    def at(self, step: int, total: int) -> Phase:
        """What holds for the step that follows `step` finished ones of `total`."""
        begun = [event for event in self.events if self.begins(event, total) <= step] or [self.events[0]]
        swaps = [e for e in begun if e.swap and total - self.begins(e, total) >= self.least_steps_after_swap]
        last = begun[-1]
        return Phase(perceptual=last.perceptual, hinge=last.hinge, rate=last.rate, swaps=len(swaps))


_EVENTS = (
    Event(at=0),
    Event(at=7_850, perceptual=True),
    Event(at=11_850, perceptual=True, hinge=0.5),  # the mask opens: every pixel is drawn for a while
    Event(at=15_850, perceptual=True, hinge=0.2),
    Event(at=19_850, perceptual=True, hinge=0.4),
    Event(at=26_516, perceptual=True, rate=0.3),
    # each decoder has to unlearn the other face: what is common to both stays
    Event(at=31_850, perceptual=True, hinge=0.1, rate=0.3, swap=True),
    Event(at=35_850, perceptual=True, rate=0.1),
)

SCHEDULES = {
    # each event 150 steps (half of the original's display interval) before the round number
    "published": Schedule(length=40_000, events=_EVENTS, least_steps_after_swap=4_000),
    # the original's optional second 40,000 steps at a tenth of the rate
    "long": Schedule(length=80_000, events=_EVENTS, least_steps_after_swap=4_000),
    # one phase from the first step to the last
    "plain": Schedule(length=1, events=(Event(at=0, perceptual=True),)),
    # the same with the mask held open: a narrow net or a short run has no discriminator that would open it, and what
    # shines through a mask that is half shut is the face of the other one
    "open": Schedule(length=1, events=(Event(at=0, perceptual=True, hinge=0.95),)),
}
"""By the name that ``train.options.schedule`` takes. The limit on swaps is ours, as `plain` and `open` are."""


def named_schedule(name: str) -> Schedule:
    """A schedule of `SCHEDULES`. Raises FacemillError that names those that there are."""
    if name not in SCHEDULES:
        raise FacemillError(f"train.options.schedule: there is no {name!r}; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
