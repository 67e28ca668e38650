"""Where pictures come from: one file, or one folder of files, for each kind of source.

    source = SOURCES["folder"](path="photos", licence="CC0")
    for unit in source.plan("anna", "sample", Surroundings()):
        for item in fetch(unit): ...

A source is a frozen dataclass. Its fields are its parameters, with their bounds and defaults, as `params.yaml` has
them; its class says whether it asks the network and which references it answers for (`References`); what it wants of
the project (seed, limits, where paths lie) it takes from `Surroundings`. A module of this package registers it with
`@register` under its `kind`, which is the module's name. Adding one touches nothing else.

A source plans before it fetches: units are small, plain and known in advance, so that shards can be fixed before any
work starts, and any worker can fetch any unit. What only a search can tell is found first (`find`): then each address
is a unit, and a host that is odd, slow or deadly costs its own. `fetch` never raises for one bad input: that is an
`Item` with a reason.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.media_files import Tell, tell_nobody
from facemill.reasons import Reason
from facemill.registry import Registry
from facemill.rights import Rights
from facemill.terms import Terms

StatedPath = Annotated[str, Field(min_length=1)]
"""A path as a person wrote it; `Surroundings.place` says where that is."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a project says to each of its sources.

    Attributes:
        place: where a path lies that a person wrote; by default relative to this process's folder.
        seed: of everything that is drawn by chance.
        max_file_bytes: larger files are not read and not downloaded.
        collected: addresses whose pictures an earlier run has got for the same identity.
        tell: gets what a person should know, such as what is skipped.
    """

    place: Callable[[str], Path] = Path
    seed: int = 0
    max_file_bytes: int = 40_000_000
    collected: tuple[str, ...] = ()
    tell: Tell = tell_nobody


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
        shot: the number of that frame's shot in its video.
        data: the encoded picture; None exactly when `error` is set, or `unchanged`.
        rights: that of its unit.
        detail: what was found, for a failed item.
        said: by what its host can be asked later whether it is still the same; goes into the `said` of a unit.
        unchanged: the picture is the one of which the unit has said something; then there is neither data nor error.
        gone: the host has answered that nothing is at the address.
    """

    identity: str
    role: str
    source: str
    url: str
    page: str = ""
    licence: str = ""
    author: str = ""
    rights: str = ""
    pts: int | None = None
    shot: int | None = None
    data: bytes | None = None
    error: Reason | None = None
    detail: str = ""
    said: Mapping[str, str] = field(default_factory=dict)
    unchanged: bool = False
    gone: bool = False

    def __post_init__(self) -> None:
        if (self.data is not None) + (self.error is not None) + self.unchanged != 1:
            raise ValueError(f"{self.url}: an item has either data or an error, or is unchanged")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The smallest piece of work of a source, picklable and JSON-able.

    Attributes:
        source: kind of the source.
        key: its name, the same in every run and on every machine.
        single: whether it gives exactly one item; of others only fetching can tell how many.
        path: the file that it reads, where there is one: its content decides whether the unit is stale.
        stamp: changes when what it reads has changed, beside the content of `path`; empty where nothing else is read.
        size_bytes: of what it reads, where that is known and there is no `path`.
        host: who is asked for it, where that is somebody else: units of one host are fetched one after another.
        face: which face of a reference picture is meant, see `facemill.references.ReferenceFace`; mostly not stated.
        rights: on what ground its pictures may be used, see `facemill.rights.rights_text`; whoever plans says it.
        options: what `fetch` needs.
        said: what its host said when its picture was fetched, see `Item.said`.
        known: keys of the pictures that earlier runs have got from this address.
    """

    identity: str
    role: str
    source: str
    key: str
    single: bool = True
    path: Path | None = None
    stamp: str = ""
    size_bytes: int = 0
    host: str = ""
    face: str = ""
    rights: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)
    known: tuple[str, ...] = ()

    def item(self, *, url: str | None = None, **fields: Any) -> Item:
        """An item of this unit; its address is the unit's key unless `url` is given."""
        return Item(
            identity=self.identity,
            role=self.role,
            source=self.source,
            rights=self.rights,
            url=url or self.key,
            **fields,
        )

    def failed(self, problem: InputError, *, url: str | None = None, **fields: Any) -> Item:
        """The item that stands for an input that cannot be used."""
        return self.item(url=url, error=problem.reason, detail=problem.detail, **fields)


class UnitList(Sequence[Unit]):
    """Units that are put together when they are asked for, where a unit for each would be too many."""

    @abstractmethod
    def deal(self, hands: Sequence[Sequence[int]]) -> Sequence[Sequence[Unit]]:
        """The units of each hand, whose rows rise, to be sent elsewhere; what is held is gone through once for all."""


@dataclass(frozen=True, kw_only=True)
class References:
    """Which references of identities a kind of source answers for; by default none.

    A prefix counts before a suffix, and a suffix before `other_paths`, so that a kind which claims a suffix takes it
    from the one that answers for paths in general, and neither knows of the other.

    Attributes:
        prefix: those that begin with it, a word and a colon such as `sample:`; they are never paths.
        suffixes: paths that end in one of these, in lower case with the dot.
        other_paths: paths whose suffix nobody claims.
    """

    prefix: str | None = None
    suffixes: Collection[str] = ()
    other_paths: bool = False

    def strength(self, reference: str) -> int:
        """3, 2 or 1 for what is claimed by prefix, by suffix or as another path; 0 for what is not claimed."""
        if not is_path(reference):
            return 3 if self.prefix is not None and reference.startswith(self.prefix) else 0
        return 2 if PurePath(reference).suffix.lower() in self.suffixes else int(self.other_paths)


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """What a module registers: a frozen dataclass with the fields of its kind in `params.yaml`."""

    asks_network: ClassVar[bool] = False
    """Whether it can give other pictures tomorrow though no file here has changed."""
    references: ClassVar[References] = References()
    """Which references of identities it answers for; whoever does has a `from_reference`."""
    kind: str = ""
    """Its name in `params.yaml`; a subclass declares it as a Literal with that one value for a default."""
    rights: Rights | None = None
    """On what ground its pictures may be used, where that is another one than its identity's."""

    @property
    def stated_licence(self) -> str:
        """Of all its pictures, as far as it is known before they are collected; empty where it is not."""
        return str(getattr(self, "licence", ""))

    @property
    def terms(self) -> tuple[Terms, ...]:
        """Of the works that it uses to choose pictures; not those of the pictures."""
        return ()

    @abstractmethod
    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """All units, in a stable order.

        Args:
            identity: for whom pictures are collected.
            role: `sample`, or `reference` for pictures that show what the identity looks like.
            around: what the project says to all sources.

        Raises:
            FacemillError: nothing there, or an option that makes no sense.
        """

    @staticmethod
    def find(unit: Unit) -> Sequence[Unit]:
        """What a planned unit consists of: itself, or of a search the addresses that it finds, a unit for each.

        Raises:
            FacemillError: the search itself failed; the message says what a person can do.
        """
        return [unit]

    @staticmethod
    @abstractmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The items of one unit that `find` gave."""

    @staticmethod
    def again(unit: Unit, url: str, stated: Mapping[str, str]) -> Unit:
        """An address that an earlier run has found, as a unit for `fetch`; only of sources that ask the network.

        Args:
            unit: as `plan` gives it today: it says how the address is fetched.
            url: the address.
            stated: `page`, `licence` and `author` of its picture.
        """
        raise NotImplementedError(f"the addresses of {unit.source} are not asked for again")

    @classmethod
    def from_reference(cls, text: str) -> Source:
        """The source of the pictures that an identity's reference means, one of those in `references`."""
        raise NotImplementedError(f"{cls.__name__} claims references and does not say what they mean")


SOURCES: Registry[type[Source]] = Registry("source of kind", __name__)
"""The class of each source, by the kind that params.yaml names."""

S = TypeVar("S", bound=type[Source])


def register(cls: S) -> S:
    """Class decorator: makes a source known under its `kind`."""
    SOURCES.register(cls.kind)(cls)
    return cls


def find(unit: Unit) -> Sequence[Unit]:
    """What a planned unit consists of. Raises as `Source.find`."""
    return SOURCES[unit.source].find(unit)


def fetch(unit: Unit) -> Iterator[Item]:
    """The items of a planned unit, or of one that `find` gave. Raises as `Source.find`."""
    for each in find(unit):
        yield from SOURCES[each.source].fetch(each)


def again(unit: Unit, url: str, stated: Mapping[str, str]) -> Unit:
    """An address that an earlier run has found, as a unit for `fetch`; arguments as `Source.again`."""
    return SOURCES[unit.source].again(unit, url, stated)


def network_kinds() -> frozenset[str]:
    """The kinds of source that ask the network."""
    return frozenset(source.kind for source in SOURCES.values() if source.asks_network)


def is_path(reference: str) -> bool:
    """Whether a reference is a path: those that begin with a word and a colon are names of a source's own."""
    return re.match(r"[a-z][a-z0-9_]*:", reference) is None


def reference_source(text: str) -> Source:
    """What a reference of an identity stands for: a picture, a folder of pictures, a video, `sample:NAME`, ….

    Raises:
        FacemillError: no kind of source answers for it, or more than one does.
    """
    claims = {kind: SOURCES[kind].references.strength(text) for kind in SOURCES.names()}
    strongest = max(claims.values())
    answers = [kind for kind, strength in claims.items() if strength == strongest > 0]
    if len(answers) == 1:
        return SOURCES[answers[0]].from_reference(text)
    if answers:
        raise FacemillError(f"reference {text!r} can mean several kinds of source ({', '.join(answers)})")
    raise FacemillError(
        f"reference {text!r} is neither a path nor anything that a source knows ({', '.join(SOURCES.names())}); "
        "write ./ before a path with a colon"
    )
