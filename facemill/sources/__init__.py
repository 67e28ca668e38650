"""Where pictures come from: one file, or one folder of files, for each kind of source.

    for unit in plan("folder", "anna", path="photos", root=Path(".")):
        for item in fetch(unit): ...

A source plans before it fetches: units are small, plain and known in advance, so that shards can be fixed before any
work starts, and any worker can fetch any unit. `fetch` never raises for one bad input: that is an `Item` with a reason.

A module of this package registers itself with `@register("kind")`; adding one touches nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from facemill.reasons import Reason
from facemill.registry import Registry

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One collected picture, or the reason why there is none.

    Attributes:
        identity: the person of the dataset for whom it was collected.
        role: `sample` or `reference`.
        source: kind of the source.
        url: where it came from; stable and never a path of one machine: `sample:hopper/0001.jpg`, `photos/a b.jpg`,
            `clips/talk.mp4#pts=1024@1/12800`, `https://…`.
        page: the page that showed it, empty where there is none.
        pts: presentation time stamp of a video frame, in the time base that `url` names.
        data: the encoded picture; None exactly when `error` is set.
        detail: what was found, for a failed item.
    """

    identity: str
    role: str
    source: str
    url: str
    page: str = ""
    licence: str = ""
    author: str = ""
    pts: int | None = None
    data: bytes | None = None
    error: Reason | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if (self.data is None) != (self.error is not None):
            raise ValueError(f"{self.url}: an item has either data or an error")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The smallest piece of work of a source, picklable and JSON-able.

    Attributes:
        key: stable name, unique within identity, role and source.
        rows: how many items it will give; an upper estimate where only fetching can tell.
        path: the file that it reads, where there is one: its content decides whether the unit is stale.
        options: what `fetch` needs.
    """

    identity: str
    role: str
    source: str
    key: str
    rows: int = 1
    path: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """What a module registers."""

    def plan(self, identity: str, role: str, *, root: Path, **options: Any) -> list[Unit]:
        """All units, in a stable order.

        Raises:
            FacemillError: nothing there, or an option that makes no sense.
        """

    def fetch(self, unit: Unit) -> Iterator[Item]:
        """The items of one unit.

        Raises:
            FacemillError: the whole source is out of order (no browser, no permission), which a person must repair.
        """


_SOURCES: Registry[Source] = Registry("source of kind", __name__)


def register(kind: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: makes a source known under its kind."""

    def decorate(cls: type[T]) -> type[T]:
        _SOURCES.register(kind)(cast(Source, cls()))  # each source names its own options, which no common type can
        return cls

    return decorate


def plan(kind: str, identity: str, role: str = "sample", *, root: Path, **options: Any) -> list[Unit]:
    """Plans a source by its kind. Relative paths in the options are below `root`. Raises as `Source.plan`."""
    return source(kind).plan(identity, role, root=root, **options)


def fetch(unit: Unit) -> Iterator[Item]:
    """The items of a planned unit. Raises as `Source.fetch`."""
    return source(unit.source).fetch(unit)


def source(kind: str) -> Source:
    """The source registered under a kind.

    Raises:
        FacemillError: there is none; the message names those that there are.
    """
    return _SOURCES[kind]
