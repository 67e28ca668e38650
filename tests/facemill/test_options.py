"""Options are what a builder's signature says they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from facemill.detect import DETECTORS, build_detector
from facemill.errors import FacemillError
from facemill.options import checked_options, options_of, path_options


def build(
    least: int,
    *,
    share: float = 0.5,
    count: int | None = None,
    words: Sequence[str] = (),
    twice: bool = False,
    weights: Path | None = None,
    look: str = "one",
) -> None: ...


def test_options_are_the_keyword_only_parameters() -> None:
    assert options_of(build) == {
        "share": (float,),
        "count": (int, type(None)),
        "words": (list,),
        "twice": (bool,),
        "weights": (Path, type(None)),
        "look": (str,),
    }
    assert path_options(build) == ["weights"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"share": 2, "count": None, "words": ["a"], "twice": True, "weights": "~/w", "look": "many"},
        {"weights": None, "count": 3, "words": ("a", "b"), "share": 0.1},
    ],
)
def test_values_of_the_stated_types_are_taken(options: dict[str, Any]) -> None:
    taken = checked_options(build, options, whose="it", key="options")
    assert taken == options | ({"weights": Path("~/w")} if options.get("weights") else {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": 1}, "options: it has no option shares; there are share, count, words, twice, weights, look"),
        ({"least": 1}, "options: it has no option least"),
        ({"share": "much"}, "options.share of it must be a number, got 'much'"),
        ({"share": True}, "options.share of it must be a number, got True"),
        ({"count": 2.0}, "options.count of it must be a whole number or null, got 2.0"),
        ({"count": False}, "options.count of it must be a whole number or null, got False"),
        ({"twice": 1}, "options.twice of it must be true or false, got 1"),
        ({"words": "abc"}, "options.words of it must be a list, got 'abc'"),
        ({"weights": 3}, "options.weights of it must be a path or null, got 3"),
    ],
)
def test_another_value_is_named_with_its_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FacemillError) as error:
        checked_options(build, options, whose="it", key="options")
    assert message in str(error.value)


@pytest.mark.parametrize("name", DETECTORS.names())
def test_every_detector_declares_its_options(name: str) -> None:
    assert not {"min_face_px", "device"} & set(options_of(DETECTORS[name]))
    with pytest.raises(FacemillError, match=f"{name} has no option colour"):
        build_detector(name, min_face_px=80, colour=1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hog", {"upsample": 9}, "detector 'hog': upsample must be 0…4 doublings, got 9"),
        ("hog", {"upsample": True}, "detector options.upsample of hog must be a whole number"),
        ("mmod", {"max_mpx": 0}, "detector 'mmod': max_mpx must be above 0"),
        ("mtcnn", {"thresholds": 0.7}, "detector options.thresholds of mtcnn must be a list"),
        ("dsfd", {"weights": "nowhere"}, "nowhere"),
    ],
)
def test_what_a_detector_cannot_use_is_one_clear_error(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(FacemillError) as error:
        build_detector(name, min_face_px=80, **options)
    assert message in str(error.value)
