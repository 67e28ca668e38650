"""Interfaces for programs: asked page by page for JSON, within one deadline for the whole search.

robots.txt is about robots that follow links, and operators shut their interfaces out of it (`Disallow: /w/`) while
their terms invite programs: it is not asked for here. The pictures that an interface names are fetched like all others,
with all that is obeyed there. What binds is what an interface says itself: 429 and 503 with Retry-After, `maxlag`,
pages of the size that its terms allow, one request at a time.

A search that breaks off keeps what it has found, with a row that says why it is not all.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Annotated, Any
from urllib.parse import urlencode

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.foreign_files import valid_name
from facemill.patience import PICTURE_SEARCH
from facemill.picture_licences import is_wanted
from facemill.reasons import Reason
from facemill.sources import Unit
from facemill.sources._addresses import address_unit, policy_of, told_unit
from facemill.sources._download import CONTACT, Downloader, Policy
from facemill.sources._wire import Budget

Contact = Annotated[str, Field(pattern=rf"^(?:{CONTACT})$")]
WebAddress = Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s?#]*$")]
Licences = list[Annotated[str, Field(min_length=1)]]
DEADLINE_S = PICTURE_SEARCH.deadline_s

_ANSWER_BYTES = 8_000_000
_SLOW_S = 30.0
"""A search takes its time, which a picture does not."""
_TOLD_CHARACTERS = 300
_TEXT_CHARACTERS = 2000
_HTML_CHARACTERS = 100_000


@dataclass(frozen=True)
class Found:
    """A picture that an interface names; `other_kind` says what it is where it is none that is collected."""

    url: str
    page: str = ""
    licence: str = ""
    author: str = ""
    other_kind: str = ""


class Interface:
    """Answers of one interface, each an object of JSON. Close it after use."""

    def __init__(self, address: str, policy: Policy, deadline_s: float) -> None:
        """
        Args:
            address: of the interface, without parameters.
            policy: of whoever asks.
            deadline_s: for all that is asked of this object.
        """
        self._address = address
        self._downloader = Downloader(
            Policy(
                max_bytes=_ANSWER_BYTES,
                deadline_s=deadline_s,
                read_s=_SLOW_S,
                allow_private_addresses=policy.allow_private_addresses,
                contact=policy.contact,
            )
        )
        self._budget = Budget(deadline_s)

    def __enter__(self) -> Interface:
        return self

    def __exit__(self, *problem: object) -> None:
        self._downloader.__exit__(None, None, None)

    def ask(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The object that is answered.

        Raises:
            InputError: SEARCH_FAILED, with what was wrong in words for a person.
        """
        try:
            answer = self._downloader.answer(f"{self._address}?{urlencode(parameters)}", self._budget)
        except InputError as problem:
            raise InputError(Reason.SEARCH_FAILED, problem.detail) from problem
        if answer.status != 200:
            raise InputError(Reason.SEARCH_FAILED, f"status {answer.status}")
        try:
            read = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise InputError(Reason.SEARCH_FAILED, f"the answer is not JSON ({str(error)[:80]})") from error
        if not isinstance(read, dict):
            raise InputError(Reason.SEARCH_FAILED, "the answer is not an object of JSON")
        return read

    def wait(self, seconds: float) -> None:
        """Waits as an interface has asked. Raises InputError, SEARCH_FAILED, where no time would be left then."""
        if seconds >= self._budget.left_s():
            raise InputError(
                Reason.SEARCH_FAILED, f"it asks to wait {seconds:g} s, and the source's deadline_s ends before"
            )
        time.sleep(seconds)


def units_of(search: Unit, found: Iterable[Found], licences: Licences) -> list[Unit]:
    """The units of what an interface finds, each address once, without those collected before.

    Args:
        search: its options hold `limit`, how many pictures are taken at most, and `skip`, addresses collected before.
        found: as they come. InputError out of it ends the search and becomes a row.
        licences: those wanted; a picture under another one is a row, rejected, and is not fetched.

    Raises:
        FacemillError: it finds nothing, or fails before it has found anything.
    """
    limit, skip = search.options["limit"], set(search.options["skip"])
    units: dict[str, Unit] = {}
    taken = 0
    try:
        for each in found:
            if each.url in units:
                continue
            if each.other_kind:
                units[each.url] = told_unit(search, each.url, Reason.OTHER_KIND, each.other_kind, page=each.page)
                continue
            stated = {"page": each.page, "licence": each.licence, "author": each.author}
            if not is_wanted(each.licence, licences):
                units[each.url] = told_unit(
                    search, each.url, Reason.UNWANTED_LICENCE, each.licence or "none stated", **stated
                )
                continue
            taken += 1
            units[each.url] = address_unit(search, each.url, **stated)
            if taken >= limit:
                break
    except InputError as problem:
        detail = f"{search.key}: {problem.detail:.{_TOLD_CHARACTERS}}"
        if not units:
            raise FacemillError(f"{detail}. Try again later, or correct the source in params.yaml") from problem
        units[search.key] = told_unit(search, search.key, Reason.SEARCH_FAILED, f"broke off after {taken}: {detail}")
    if not units:
        raise FacemillError(f"{search.key}: nothing was found; try other words")
    return [unit for unit in units.values() if unit.key not in skip]


def interface_of(search: Unit) -> Interface:
    """The interface that the options of a search name: `api`, `deadline_s`, and what `policy_of` asks for."""
    return Interface(search.options["api"], policy_of(search), search.options["deadline_s"])


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects in a list of JSON; nothing of what is no list, or no object in it."""
    for each in value if isinstance(value, list) else ():
        if isinstance(each, dict):
            yield each


def web_address(value: Any) -> str:
    """An address as an interface states it; empty where it is none that could be asked."""
    return value if isinstance(value, str) and re.fullmatch(r"https?://\S{1,4000}", value) else ""


def plain_text(value: Any) -> str:
    """The text of a field, which may hold HTML, in one line; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    reader = _Text()
    reader.feed(value[:_HTML_CHARACTERS])
    reader.close()
    return valid_name(" ".join("".join(reader.parts).split())[:_TEXT_CHARACTERS])


class _Text(HTMLParser):
    """Collects what a reader of HTML would see, without scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        self.parts.append(" " if tag in ("br", "p", "div", "li", "td", "tr") else "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in ("script", "style")))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append("".join(each if each.isprintable() else " " for each in data))
