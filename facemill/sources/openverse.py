"""Source `openverse`: pictures under Creative Commons licences and in the public domain that Openverse finds.

    {kind: openverse, query: Anna Example, licences: [CC0-1.0, CC-BY-4.0, CC-BY-2.0]}

Openverse searches Flickr, Wikimedia, museums and others, and names licence, author and page of each picture. It is
asked without an account (https://api.openverse.org/v1/): 20 pictures a page and some 20 pages at most, 20 requests a
minute and 200 a day; when it says 429, it is left alone as long as it asks. Its terms forbid to copy the catalogue as a
whole. What it knows may be old: a picture that has gone since is a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.picture_licences import licence_of
from facemill.reasons import Reason
from facemill.sources import Item, Surroundings, Unit, register
from facemill.sources._addresses import AddressSource, fetch_address, is_address
from facemill.sources._interface import (
    DEADLINE_S,
    Contact,
    Found,
    Interface,
    Licences,
    WebAddress,
    interface_of,
    objects,
    plain_text,
    units_of,
    web_address,
)

_PAGE_PICTURES = 20
"""More are refused (401) to whoever has no account."""
_MOST_PAGES = 50
"""It gives about 20; one that states more without end is not asked without end."""
_CODES = ("by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd")


@register
@dataclass(frozen=True, kw_only=True)
class OpenverseSource(AddressSource):
    """Pictures that Openverse finds, each with its licence and its author."""

    kind: Literal["openverse"] = "openverse"
    query: Annotated[str, Field(min_length=1, max_length=200)]
    """Words that pictures are searched by; Openverse looks for them in titles, descriptions and tags."""
    collections: list[Annotated[str, Field(pattern="^[a-z0-9_]+$")]] = field(default_factory=list)
    """Only of these, as Openverse calls them: `flickr`, `wikimedia`, `nasa`; all, where none are listed."""
    limit: Annotated[int, Field(ge=1, le=400)] = 50
    """At most so many pictures are taken of what is found."""
    licences: Licences = field(default_factory=list)
    """Only pictures under one of these are fetched, as text or SPDX ids; any, where none are listed."""
    contact: Contact = ""
    """Whom Openverse, and those who show the pictures, can write to: a mail address, or that of a page."""
    deadline_s: Annotated[float, Field(gt=0)] = DEADLINE_S
    """The search is ended after so many seconds; downloads have deadlines of their own."""
    api: WebAddress = "https://api.openverse.org/v1/images/"
    """Address of Openverse's interface for programs, its search of images."""
    allow_private_addresses: bool = False
    """The interface, and downloads, from loopback and private networks are refused unless this is set."""

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """A single unit, the search: the pictures that it finds are a unit each.

        Raises:
            FacemillError: a licence that is none of Creative Commons, under which Openverse has nothing.
        """
        _codes(self.licences, identity)
        options = {
            "query": self.query,
            "collections": self.collections,
            "limit": self.limit,
            "licences": self.licences,
            "contact": self.contact,
            "deadline_s": self.deadline_s,
            "api": self.api,
            "allow_private_addresses": self.allow_private_addresses,
            "max_file_bytes": around.max_file_bytes,
            "skip": list(around.collected),
        }
        key = f"openverse:{self.query}"
        return [Unit(identity=identity, role=role, source=self.kind, key=key, single=False, options=options)]

    @staticmethod
    def find(unit: Unit) -> list[Unit]:
        """One unit for each picture that was not collected before. Raises as `_interface.units_of`."""
        if is_address(unit):
            return [unit]
        with interface_of(unit) as openverse:
            return units_of(unit, _found(openverse, unit), unit.options["licences"])

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The picture, or the reason why there is none."""
        return fetch_address(unit)


def _found(openverse: Interface, unit: Unit) -> Iterator[Found]:
    """The pictures in the order of the search. Raises InputError, SEARCH_FAILED, where it breaks off."""
    options = unit.options
    asked = {"q": options["query"], "page_size": str(_PAGE_PICTURES)}
    if options["licences"]:
        asked["license"] = ",".join(_codes(options["licences"], unit.identity))
    if options["collections"]:
        asked["source"] = ",".join(options["collections"])
    page, pages = 1, 1
    while page <= pages:
        answer = openverse.ask({**asked, "page": str(page)})
        if not isinstance(answer.get("results"), list):
            raise InputError(Reason.SEARCH_FAILED, f"no results in the answer ({plain_text(answer.get('detail'))})")
        for each in objects(answer["results"]):
            if url := web_address(each.get("url")):
                yield Found(
                    url,
                    web_address(each.get("foreign_landing_url")),
                    _licence(each),
                    plain_text(each.get("creator")),
                )
        stated = answer.get("page_count")
        pages = min(stated, _MOST_PAGES) if isinstance(stated, int) else pages
        if not answer["results"]:
            return  # whatever the count says
        page += 1


def _licence(picture: dict[str, Any]) -> str:
    """The licence's address, where it is one that is known; else its words."""
    address = plain_text(picture.get("license_url"))
    code, version = plain_text(picture.get("license")), plain_text(picture.get("license_version"))
    words = f"{'cc ' if code in _CODES else ''}{code} {version}".strip()
    return address if licence_of(address).address or not words else words


def _codes(licences: Licences, identity: str) -> list[str]:
    """Openverse's words for licences: `by-sa`, `cc0`, `pdm`; it knows no versions. Raises FacemillError."""
    codes = []
    for stated in licences:
        name = licence_of(stated).name.lower()
        code = {"cc0-1.0": "cc0", "cc-pdm-1.0": "pdm"}.get(name) or next(
            (code for code in sorted(_CODES, key=len, reverse=True) if f"{name}-".startswith(f"cc-{code}-")), None
        )
        if code is None:
            raise FacemillError(
                f"openverse (identity {identity}): {stated!r} is no licence of Creative Commons, and Openverse has no "
                "pictures under others"
            )
        codes.append(code)
    return sorted(set(codes))
