"""The licence of a picture, as its source words it, as an SPDX id with its version and its address.

Sources write `CC BY-SA 3.0`, `cc-by-sa-3.0` or `https://creativecommons.org/licenses/by-sa/3.0/deed.en` for the same
terms. What is none of Creative Commons keeps its own words.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_ELEMENTS = ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd")
_ZERO, _MARK = "CC0-1.0", "CC-PDM-1.0"
_ADDRESS = re.compile(
    r"(?i)^https?://(?:www\.)?creativecommons\.org/(?:licenses/(?P<kind>[a-z-]+)|publicdomain/(?P<free>zero|mark))"
    r"(?:/(?P<version>\d\.\d))?(?:/(?P<port>[a-z]{2,3}(?=/|$)))?(?:[/?#].*)?$"
)
_WORDS = re.compile(r"^(?:cc )?(?P<kind>by(?: nc)?(?: sa| nd)?)(?: (?P<version>\d\.\d))?(?: (?P<port>[a-z]{2,3}))?$")


@dataclass(frozen=True)
class Licence:
    """Terms of a picture.

    Attributes:
        name: the SPDX id (`CC-BY-SA-3.0`), without a version where none was stated (`CC-BY-SA`); else the stated words.
        version: `3.0`; empty where none was stated.
        address: of its text; empty where it is not known.
        asks_credit: whether the author has to be named: of what is not known to be free, everywhere.
    """

    name: str
    version: str = ""
    address: str = ""
    asks_credit: bool = True


def licence_of(stated: str | None) -> Licence:
    """What a source's words for a licence mean; a licence without a name where it says nothing."""
    words = " ".join((stated or "").split())
    if found := _ADDRESS.match(words):
        if found["free"]:
            return _free(found["free"] == "zero")
        kind = found["kind"].lower()
        return _creative_commons(kind, found["version"], found["port"]) if kind in _ELEMENTS else Licence(words)
    plain = re.sub(r"[\s_-]+", " ", words.lower()).replace("creative commons", "cc").replace("attribution", "by")
    if re.fullmatch(r"cc ?0(?: 1\.0)?(?: universal)?|cc zero|zero", plain):
        return _free(zero=True)
    if re.fullmatch(r"(?:cc )?pdm?(?: 1\.0)?|public domain mark(?: 1\.0)?|cc public domain mark(?: 1\.0)?", plain):
        return _free(zero=False)
    if found := _WORDS.match(plain):
        return _creative_commons(found["kind"].replace(" ", "-"), found["version"], found["port"])
    return Licence(words, asks_credit=plain not in ("public domain", "no known copyright restrictions"))


def is_wanted(stated: str | None, wanted: Collection[str]) -> bool:
    """Whether a licence is one of those that a person listed, in whatever words; any is where none are listed."""
    return not wanted or licence_of(stated).name.casefold() in {licence_of(each).name.casefold() for each in wanted}


def _creative_commons(kind: str, version: str | None, port: str | None) -> Licence:
    port = (port or "").lower()
    name = "-".join(
        ["CC", kind.upper(), *([version] if version else []), *([port.upper()] if version and port else [])]
    )
    address = f"https://creativecommons.org/licenses/{kind}/{version}/" if version else ""
    return Licence(name, version or "", f"{address}{port}/" if address and port else address)


def _free(zero: bool) -> Licence:
    kind = "zero" if zero else "mark"
    address = f"https://creativecommons.org/publicdomain/{kind}/1.0/"
    return Licence(_ZERO if zero else _MARK, "1.0", address, asks_credit=False)
