"""Several people in one pass of a video: red and blue squares with known places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pytest
from discs import OTHER, WANTED, DiscWorld, embedding, frame

from facemill.swap.finder import Finder
from facemill.swap.people import PeopleFinder, Sightings
from facemill.swap.settings import FinderSettings
from facemill.video import Frame

REFERENCES = {"red": embedding(WANTED), "blue": embedding(OTHER)}


def settings(**changes: int) -> FinderSettings:
    return FinderSettings(min_face_px=30, **changes)


def follow(frames: Iterable[Frame], world: DiscWorld | None = None, **changes: int) -> Iterator[Sightings]:
    return PeopleFinder(world or DiscWorld(), ["red", "blue"], REFERENCES, settings(**changes)).follow(frames)


def names(sightings: Iterable[Sightings]) -> list[set[str]]:
    return [set(sighting.faces) for sighting in sightings]


def test_each_is_found_from_the_first_frame_on_to_the_last() -> None:
    red, blue = range(5, 40), range(12, 26)
    frames = [frame(i, (40, 50, 80) if i in red else None, (200, 60, 90) if i in blue else None) for i in range(48)]
    sightings = list(follow(frames, search_every=4))
    assert [sighting.frame.pts for sighting in sightings] == list(range(48))
    shown = [{name for name, there in (("red", red), ("blue", blue)) if i in there} for i in range(48)]
    off = [i for i, (found, there) in enumerate(zip(names(sightings), shown, strict=True)) if found != there]
    assert all(i in (*range(26, 35), *range(40, 48)) for i in off)  # followed for a while after they have left


def test_a_face_that_steps_into_anothers_place_stays_who_it_is() -> None:
    """From frame 10 on red is where blue was, and blue is away until frame 20. Nobody is verified on the way: that the
    face at this place is claimed twice must tell."""
    frames = [
        frame(i, (100, 60, 40) if i >= 10 else (20, 60, 40), (106, 60, 40) if i < 10 else None) for i in range(20)
    ]
    frames += [frame(i, (100, 60, 40), (200, 60, 40)) for i in range(20, 40)]
    sightings = list(follow(frames, verify_every=1000))
    found = names(sightings)
    assert found[:10] == [{"red", "blue"}] * 10
    assert found[12:20] == [{"red"}] * 8
    assert found[26:] == [{"red", "blue"}] * 14
    assert all(sighting.faces["red"].box[0] == pytest.approx(100, abs=3) for sighting in sightings[12:])


def test_a_frame_is_searched_once_for_all() -> None:
    """Nobody is there: every stride is searched, by two finders as by one."""
    alone, both = DiscWorld(), DiscWorld()
    list(Finder(alone, REFERENCES["red"], settings()).follow([frame(i) for i in range(30)]))
    list(follow([frame(i) for i in range(30)], both))
    assert alone.searches == both.searches == 10


@pytest.mark.parametrize("search_every", [1, 3, 7])
def test_few_frames_are_held_back(search_every: int) -> None:
    read = 0

    def counted() -> Iterator[Frame]:
        nonlocal read
        for i in range(60):
            read += 1
            yield frame(i, (40, 50, 80) if i % 20 < 10 else None, (200, 60, 90))

    for given, _ in enumerate(follow(counted(), search_every=search_every)):
        assert read - given <= search_every


def test_an_error_for_one_leaves_the_other() -> None:
    world = DiscWorld()
    finder = PeopleFinder(world, ["red", "blue"], REFERENCES, settings(detect_every=4))
    sightings = finder.follow([frame(i, (40, 50, 80), (200, 60, 90)) for i in range(12)])
    list(islice(sightings, 2))
    world.broken_at_search = world.searches + 1
    rest = list(sightings)
    [broken] = [sighting for sighting in rest if sighting.error]
    assert (broken.error, len(broken.faces)) == ("processing_error", 1)
    assert names(rest[-2:]) == [{"red", "blue"}] * 2
