"""Settings declare their limits once: they check themselves, pydantic checks them, command lines are made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from facemill.command_options import from_options, options
from facemill.detector_training.settings import DetectorTraining, Sampling
from facemill.device_choice import DeviceChoice
from facemill.errors import FacemillError
from facemill.settings import Count, Limits, Name, Settings, SettingsError, descriptions, hints
from facemill.swap.settings import SwapSettings
from facemill.track.settings import TrackingSettings
from facemill.train.settings import Augmentation, CosinePlan, FaceTraining
from facemill.video import EncoderSettings

EVERY = [
    Augmentation,
    CosinePlan,
    DetectorTraining,
    DeviceChoice,
    EncoderSettings,
    FaceTraining,
    TrackingSettings,
    Sampling,
    SwapSettings,
]


@dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    depth: Count = 1
    """How deep."""


@dataclass(frozen=True, kw_only=True)
class Example(Inner):
    """A field of each kind."""

    share: Annotated[float, Limits(gt=0, lt=1)] = 0.5
    """How much,
    on two lines."""
    name: Name = "anna"
    rate: Annotated[float, Limits(gt=0)] | Literal["auto"] | None = "auto"
    on: bool = False
    pairs: tuple[tuple[float, float], ...] = ((0, 1),)
    inner: Inner = field(default_factory=Inner)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"depth": 0}, "depth must be at least 1, got 0"),
    ({"depth": 1.5}, "depth must be a whole number, got 1.5"),
    ({"depth": True}, "depth must be a whole number, got True"),
    ({"share": 1.0}, "share must be less than 1, got 1.0"),
    ({"share": "x"}, "share must be a number, got 'x'"),
    ({"name": "../x"}, "name must match "),
    ({"name": "a" * 65}, "name must not be longer in characters than 64"),
    ({"rate": -1.0}, "rate must be more than 0, got -1.0"),
    ({"rate": "fast"}, "rate must be a number, got 'fast'"),
    ({"on": 1}, "on must be true or false, got 1"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_value_is_refused_by_the_class_and_by_pydantic(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        Example(**values)
    with pytest.raises(ValidationError):
        by_pydantic(values)


def by_pydantic(values: dict[str, Any]) -> Example:
    """As params.yaml is read."""
    return TypeAdapter(Example).validate_json(json.dumps(values), strict=True)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        Example(depth=0, share=2)
    assert list(error.value.problems) == ["depth", "share"]


@given(st.floats(-2, 3), st.integers(-3, 3))
def test_the_class_and_pydantic_take_the_same_numbers(share: float, depth: int) -> None:
    def takes(make: Callable[[], Example]) -> bool:
        try:
            make()
        except (SettingsError, ValidationError):
            return False
        return True

    values: dict[str, Any] = {"share": share, "depth": depth}
    assert takes(lambda: Example(**values)) == takes(lambda: by_pydantic(values))


def test_the_text_below_a_field_describes_it_in_subclasses_too() -> None:
    assert descriptions(Example) == {"depth": "How deep.", "share": "How much, on two lines."}


@pytest.mark.parametrize("settings", EVERY)
def test_every_setting_has_a_sentence_and_limits(settings: type[Settings]) -> None:
    """A number without limits is one that nobody thought about."""
    texts = descriptions(settings)
    for name, hint in hints(settings).items():
        assert texts.get(name, "").endswith("."), f"{settings.__name__}.{name} has no sentence below it"
        assert hint not in (int, float), f"{settings.__name__}.{name} has no limits"


@pytest.mark.parametrize("settings", [*EVERY, Example])
def test_without_options_settings_are_as_the_class_has_them(settings: type[Settings]) -> None:
    if settings is not CosinePlan:  # which wants a learning rate
        assert from_options(settings, dict.fromkeys(one.name for one in options(settings))) == settings()
    names = [one.name for one in fields(settings)]  # type: ignore[arg-type]  # mypy does not see the dataclass
    assert [one.name for one in options(settings)] == names


def test_options_are_read_as_their_fields_are() -> None:
    typed = {"depth": "3", "share": "0.25", "rate": "0.1", "on": "true", "pairs": "0:1,0.5:0.1", "inner": "depth=4"}
    pairs = ((0.0, 1.0), (0.5, 0.1))
    assert from_options(Example, typed) == Example(
        depth=3, share=0.25, rate=0.1, on=True, pairs=pairs, inner=Inner(depth=4)
    )
    assert from_options(Example, {"rate": "auto"}).rate == "auto"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"depth": "0"}, "--depth must be at least 1, got 0"),
        ({"depth": "many"}, "--depth must be a whole number, got 'many'"),
        ({"on": "yes"}, "--on must be true or false, got 'yes'"),
        ({"pairs": "1"}, "--pairs must be NUMBER:NUMBER,…, got '1'"),
        ({"inner": "width=3"}, "--inner must be NAME=VALUE,… with depth, got 'width=3'"),
        ({"inner": "depth=0"}, "--inner depth must be at least 1, got 0"),
        ({"depth": "0", "share": "x"}, "--share must be a number, got 'x'; --depth must be at least 1"),
    ],
)
def test_a_wrong_option_is_named_as_it_was_typed(typed: dict[str, str], message: str) -> None:
    with pytest.raises(FacemillError, match=re.escape(message)):
        from_options(Example, typed)


def test_a_path_knows_home_where_no_shell_has_seen_to_it() -> None:
    made = from_options(DetectorTraining, {"start": "~/dsfd"})
    assert made.start == Path("~/dsfd").expanduser()
    with pytest.raises(FacemillError, match="--start names a home folder that this machine does not know"):
        from_options(DetectorTraining, {"start": "~nobody-here/dsfd"})
