"""Source `wikimedia`: pictures of Wikimedia Commons, with the licence and the author that each file's page states.

    {kind: wikimedia, category: Anna Example, contact: anna@example.org, licences: [CC0-1.0, CC-BY-4.0]}

Files are found by words, by category or by name, through MediaWiki's interface (`action=query`, `prop=imageinfo`), as
its etiquette asks: one request at a time, 50 files each, `maxlag`, and a User-Agent that says whom to write to, without
which Wikimedia shuts programs out. Pictures are fetched in a width that its servers hold ready, or as they were
uploaded.
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

Width = Literal[250, 330, 500, 960, 1280, 1920, 3840]
"""Widths that Wikimedia holds ready; any other is refused (https://www.mediawiki.org/wiki/Common_thumbnail_sizes)."""

_PAGE_FILES = 50
_PHOTOGRAPHS = frozenset({"image/jpeg", "image/png", "image/webp", "image/tiff", "image/gif"})
_MAX_LAG_S, _LAG_TRIES, _LAG_PAUSE_S = 5, 5, 5.0
_ASKED = {
    "action": "query",
    "format": "json",
    "formatversion": "2",
    "maxlag": str(_MAX_LAG_S),
    "prop": "imageinfo",
    "iiprop": "url|mime|size|extmetadata",
    "iiextmetadatafilter": "LicenseShortName|LicenseUrl|UsageTerms|Artist|Attribution|Credit",
}


@register
@dataclass(frozen=True, kw_only=True)
class WikimediaSource(AddressSource):
    """Pictures of Wikimedia Commons, or of another wiki of its kind. Just one of `query`, `category` and `files`."""

    kind: Literal["wikimedia"] = "wikimedia"
    contact: Contact = ""
    """Whom Wikimedia can write to if something goes wrong: a mail address, or that of a page. It asks for one."""
    query: str | None = None
    """Words to search for; also MediaWiki's own: `deepcat:"Anna Example"` for a category with those below it."""
    category: str | None = None
    """The name of a category; the files in it, not those of categories below."""
    files: list[Annotated[str, Field(min_length=1)]] = field(default_factory=list)
    """Names of the files that are taken, with or without `File:` before them."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 50
    """At most so many pictures are taken of what is found."""
    width_px: Width | None = 1280
    """The width in which pictures are fetched, as long as they are wider; null for what was uploaded."""
    licences: Licences = field(default_factory=list)
    """Only pictures under one of these are fetched, as text or SPDX ids; any, where none are listed."""
    deadline_s: Annotated[float, Field(gt=0)] = DEADLINE_S
    """The search is ended after so many seconds; downloads have deadlines of their own."""
    api: WebAddress = "https://commons.wikimedia.org/w/api.php"
    """Address of the wiki's interface for programs, MediaWiki's `api.php`."""
    allow_private_addresses: bool = False
    """The wiki, and downloads, from loopback and private networks are refused unless this is set."""

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """A single unit, the search: the files that it finds are a unit each.

        Raises:
            FacemillError: not just one of `query`, `category` and `files`, or no `contact`.
        """
        asked = {name: value for name in ("query", "category", "files") if (value := getattr(self, name))}
        if len(asked) != 1:
            raise FacemillError(f"wikimedia (identity {identity}): state just one of query, category and files")
        if not self.contact:
            raise FacemillError(
                f"wikimedia (identity {identity}): state a contact, a mail address or that of a page: Wikimedia asks "
                "programs to say whom it can write to, and shuts out those that do not"
            )
        [(way, value)] = asked.items()
        options = {
            **asked,
            "contact": self.contact,
            "limit": self.limit,
            "width_px": self.width_px,
            "licences": self.licences,
            "deadline_s": self.deadline_s,
            "api": self.api,
            "allow_private_addresses": self.allow_private_addresses,
            "max_file_bytes": around.max_file_bytes,
            "skip": list(around.collected),
        }
        key = f"wikimedia:{way}:{value if isinstance(value, str) else value[0]}"
        return [Unit(identity=identity, role=role, source=self.kind, key=key, single=False, options=options)]

    @staticmethod
    def find(unit: Unit) -> list[Unit]:
        """One unit for each file that was not collected before. Raises as `_interface.units_of`."""
        if is_address(unit):
            return [unit]
        with interface_of(unit) as commons:
            return units_of(unit, _found(commons, unit), unit.options["licences"])

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The picture of a file, or the reason why there is none."""
        return fetch_address(unit)


def _found(commons: Interface, unit: Unit) -> Iterator[Found]:
    """The files in the order of the search. Raises InputError, SEARCH_FAILED, where it breaks off."""
    options = unit.options
    asked = dict(_ASKED)
    if options["width_px"] is not None:
        asked["iiurlwidth"] = str(options["width_px"])
    for selection in _selections(options):
        onward: dict[str, str] = {}
        while True:
            answer = _answer(commons, asked | selection | onward)
            query = answer.get("query")
            pages = objects(query.get("pages") if isinstance(query, dict) else None)
            for page in sorted(pages, key=_place):
                # A file whose imageinfo did not fit into this answer comes again with the next one.
                if (found := _read(page)) is not None:
                    yield found
            following = answer.get("continue")
            told = {str(name): str(value) for name, value in following.items()} if isinstance(following, dict) else {}
            if not told:
                break
            if told == onward:
                raise InputError(Reason.SEARCH_FAILED, "the answers go on in a circle")
            onward = told


def _selections(options: Any) -> Iterator[dict[str, str]]:
    """Parameters that say which files: one set for a search or a category, of named files one for 50 each."""
    if "query" in options:
        words = f"filetype:bitmap {options['query']}"
        yield {"generator": "search", "gsrsearch": words, "gsrnamespace": "6", "gsrlimit": str(_PAGE_FILES)}
    elif "category" in options:
        title = f"Category:{options['category'].removeprefix('Category:')}"
        yield {"generator": "categorymembers", "gcmtitle": title, "gcmtype": "file", "gcmlimit": str(_PAGE_FILES)}
    else:
        titles = [f"File:{name.removeprefix('File:')}" for name in options["files"]]
        for start in range(0, len(titles), _PAGE_FILES):
            yield {"titles": "|".join(titles[start : start + _PAGE_FILES])}


def _answer(commons: Interface, parameters: dict[str, str]) -> dict[str, Any]:
    """An answer without an error; where the wiki's databases lag behind, it is left alone for some seconds."""
    for attempt in range(_LAG_TRIES):
        answer = commons.ask(parameters)
        error = answer.get("error")
        if not error:
            return answer
        said = error if isinstance(error, dict) else {}
        if said.get("code") != "maxlag":
            raise InputError(Reason.SEARCH_FAILED, f"{plain_text(said.get('info')) or said.get('code') or 'an error'}")
        if attempt + 1 < _LAG_TRIES:
            commons.wait(_LAG_PAUSE_S)
    raise InputError(Reason.SEARCH_FAILED, f"its databases lag behind ({plain_text(said.get('info'))})")


def _place(page: dict[str, Any]) -> int:
    """Where a page stands in a search: its answers are sorted by something else."""
    index = page.get("index")
    return index if isinstance(index, int) else 0


def _read(page: dict[str, Any]) -> Found | None:
    """A file as its page describes it; None where the page says nothing of a file."""
    info = next(objects(page.get("imageinfo")), None)
    if info is None:
        if "missing" not in page:
            return None
        return Found(f"wikimedia:{plain_text(page.get('title'))}", other_kind="there is no file of that name")
    original = web_address(info.get("url"))
    url = web_address(info.get("thumburl")) or original
    if not url:
        return None
    where = web_address(info.get("descriptionurl"))
    mime = plain_text(info.get("mime"))
    if mime not in _PHOTOGRAPHS:
        return Found(original or url, where, other_kind=mime or "of a kind that is not stated")
    stated = info.get("extmetadata")
    fields = stated if isinstance(stated, dict) else {}
    author = _field(fields, "Artist") or _field(fields, "Attribution") or _field(fields, "Credit")
    return Found(url, where, _licence(fields), author)


def _licence(fields: dict[str, Any]) -> str:
    """The licence's address where it is one that is known, which names version and country; else its words."""
    address = _field(fields, "LicenseUrl")
    words = _field(fields, "LicenseShortName") or _field(fields, "UsageTerms")
    return address if licence_of(address).address or not words else words


def _field(fields: dict[str, Any], name: str) -> str:
    """A field of extmetadata, whose value may be HTML."""
    entry = fields.get(name)
    return plain_text(entry.get("value")) if isinstance(entry, dict) else ""
