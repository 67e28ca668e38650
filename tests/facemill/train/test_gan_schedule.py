"""The published schedule at its borders, on its own length and scaled to another."""

from __future__ import annotations

import pytest

from facemill.errors import FacemillError
from facemill.train.schedule import SCHEDULES, Event, Phase, Schedule, named_schedule

PUBLISHED = SCHEDULES["published"]


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (7_850, (False, None, 1.0, 0), (True, None, 1.0, 0)),
        (11_850, (True, None, 1.0, 0), (True, 0.5, 1.0, 0)),
        (15_850, (True, 0.5, 1.0, 0), (True, 0.2, 1.0, 0)),
        (19_850, (True, 0.2, 1.0, 0), (True, 0.4, 1.0, 0)),
        (26_516, (True, 0.4, 1.0, 0), (True, None, 0.3, 0)),
        (31_850, (True, None, 0.3, 0), (True, 0.1, 0.3, 1)),
        (35_850, (True, 0.1, 0.3, 1), (True, None, 0.1, 1)),
    ],
)
def test_each_event_begins_at_its_step(
    step: int, before: tuple[bool, float | None, float, int], after: tuple[bool, float | None, float, int]
) -> None:
    for at, (perceptual, hinge, rate, swaps) in ((step - 1, before), (step, after)):
        assert PUBLISHED.at(at, 40_000) == Phase(perceptual=perceptual, hinge=hinge, rate=rate, swaps=swaps)


def test_events_are_scaled_to_the_run() -> None:
    begun = [PUBLISHED.begins(event, 20_000) for event in PUBLISHED.events]
    assert begun == [0, 3_925, 5_925, 7_925, 9_925, 13_258, 15_925, 17_925]
    assert PUBLISHED.at(15_924, 20_000).swaps == 0
    assert PUBLISHED.at(15_925, 20_000).swaps == 1


def test_decoders_stay_where_too_few_steps_would_be_left_to_learn_the_other_face() -> None:
    assert PUBLISHED.at(9_999, 10_000).swaps == 0  # 2,038 steps after the event, 4,000 are asked for
    assert PUBLISHED.at(9_999, 10_000).rate == 0.1


def test_the_long_schedule_goes_on_at_a_tenth_of_the_rate() -> None:
    long = SCHEDULES["long"]
    assert [long.at(step, 80_000) for step in (7_849, 31_850, 39_999)] == [
        PUBLISHED.at(step, 40_000) for step in (7_849, 31_850, 39_999)
    ]
    assert long.at(79_999, 80_000) == long.at(40_000, 80_000) == PUBLISHED.at(39_999, 40_000)


def test_the_open_schedule_presses_the_mask_open_from_the_first_step_to_the_last() -> None:
    phases = [SCHEDULES["open"].at(step, 10) for step in range(10)]
    assert {(phase.hinge, phase.rate, phase.perceptual, phase.swaps) for phase in phases} == {(0.95, 1.0, True, 0)}


@pytest.mark.parametrize("total", [1, 3, 7])
def test_runs_of_a_few_steps_have_a_phase_at_every_step(total: int) -> None:
    for schedule in SCHEDULES.values():
        phases = [schedule.at(step, total) for step in range(total)]
        assert [phase.rate for phase in phases] == sorted((phase.rate for phase in phases), reverse=True)


@pytest.mark.parametrize("steps", [(), (5,), (0, 7, 3), (0, 3, 3), (0, 10)])
def test_tables_that_make_no_sense_are_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(FacemillError, match="begin at 0 and rise below its length 10"):
        Schedule(length=10, events=tuple(Event(at=step) for step in steps))


def test_an_unknown_schedule_names_the_known_ones() -> None:
    with pytest.raises(FacemillError, match="no 'fast'; there are published, long, plain"):
        named_schedule("fast")
