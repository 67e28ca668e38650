"""The licence of a picture, as its source words it: which one it is, and what it allows.

Sources write `CC BY-SA 3.0`, `cc-by-sa-3.0` or `https://creativecommons.org/licenses/by-sa/3.0/deed.en` for the same
terms: an SPDX id with its version and its address. What is none of Creative Commons keeps its own words.

This is the one place that reads such words. Free is only what is recognised as a whole; a word that restricts counts
wherever it stands; all else is in doubt. How the parts of a Creative Commons licence count follows from what facemill
makes of a picture:

    nc      research: commercial use is forbidden, whatever else it says.
    nd      unknown: a crop, or a frame that a net has drawn, is an adaptation, which may be made in private and not be
            shared. Whether a trained net is one is settled nowhere.
    by, sa  any: commercial use is allowed. The author is to be named (`facemill attribution`), and under sa adaptations
            keep the licence.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from facemill.terms import Use

_ELEMENTS = ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd")
_ZERO, _MARK = "CC0-1.0", "CC-PDM-1.0"
_PORT = (  # the countries that CC licences up to 3.0 were ported to: a list, since `CC BY 2.0 NC` names none
    "(?P<port>ar|at|au|az|be|bg|br|ca|ch|cl|cn|co|cr|cz|de|dk|ec|ee|eg|es|fi|fr|ge|gr|gt|hk|hr|hu|ie|igo|il|in|it|jp"
    "|kr|lu|mk|mt|mx|my|nl|no|nz|pe|ph|pl|pr|pt|ro|rs|se|sg|si|th|tw|ua|ug|uk|us|ve|vn|za)"
)
_ADDRESS = re.compile(
    r"(?i)^https?://(?:www\.)?creativecommons\.org/(?:licenses/(?P<kind>[a-z-]+)|publicdomain/(?P<free>zero|mark))"
    rf"(?:/(?P<version>[0-9]\.[0-9]))?(?:/{_PORT}(?=/|$))?(?:[/?#].*)?$"
)

# What follows is matched with `_plain` words: lower case, one space for each gap, hyphen and underscore.
_SYNONYMS = (
    (r"\bcreative commons\b", "cc"),
    (r"\battribution\b", "by"),
    (r"\bnon ?commercial\b", "nc"),
    (r"\bshare ?alike\b", "sa"),
    (r"\bno ?deriv(?:s|atives?)\b", "nd"),
    (r"\blicense\b", "licence"),
    (r"\bu\.? ?s\.?(?= )|\bunited states\b", "us"),
)
_CC_WORDS = re.compile(
    r"(?P<cc>cc )?(?P<kind>by(?: nc)?(?: sa| nd)?)"
    rf"(?: (?P<version>[0-9](?:\.[0-9])?)(?: (?:international|unported|generic|{_PORT}))?)?"
    r"(?(cc)(?: (?:public )?licence)?|)"
)
_ZERO_WORDS = re.compile(r"(?:cc ?(?:0|zero)|zero)(?: v?1\.0)?(?: universal)?(?: public domain dedication)?")
_MARK_WORDS = re.compile(r"(?:cc )?pdm?(?: 1\.0)?|(?:cc )?public domain mark(?: 1\.0)?")
_GOVERNMENT = r"(?:works? of the )?us (?:federal )?government(?: works?)?"
_PUBLIC_DOMAIN = re.compile(
    rf"(?:in the )?public domain(?: \((?:{_GOVERNMENT}|nasa|copyright expired|dedicated by (?:its|the) author)\))?"
    rf"|no known copyright(?: restrictions)?|{_GOVERNMENT}"
    r"|https?://(?:www\.)?(?:rightsstatements\.org/(?:vocab|page)/nkc/1\.0/?|flickr\.com/commons/usage/?"
    r"|usa\.gov/(?:government (?:works|copyright)|copyright\.shtml)/?)"
)
_ATTRIBUTION = re.compile(
    r"(?:gfdl|gnu free documentation licence)(?: v?1\.[123])?(?: (?:only|or later))?"
    r"|(?:fal|free art licence)(?: v?1\.3)?|(?:ogl uk|open government licence)(?: v?[123]\.0)?"
)
"""Licences beside Creative Commons that let everybody use and change a work who names its author."""
_NOTHING_SAID = re.compile(
    r"(?:(?:the )?(?:licence|copyright|rights|status)(?: is)? )*"
    r"(?:unknown|none|no|null|nan|n/?a|not (?:known|stated|given|evaluated|specified)"
    r"|un(?:stated|specified|determined))"
    r"(?: (?:licence|copyright|rights|status))*"
)
_RESTRICTING = frozenset(
    ["nc", "research", "academic", "academia", "education", "educational", "edu", "editorial", "personal"]
)


@dataclass(frozen=True)
class Licence:
    """Terms of a picture. Only `licence_of` makes it.

    Attributes:
        name: the SPDX id (`CC-BY-SA-3.0`), without a version where none was stated (`CC-BY-SA`); else the stated words.
        use: what the picture, and what is made of it, may be used for.
        rank: 0 public domain, 1 attribution, 2 some other stated licence, 3 unknown: freer copies are kept first.
        version: `3.0`; empty where none was stated.
        address: of its text; empty where it is not known.
    """

    name: str
    use: Use
    rank: int
    version: str = ""
    address: str = ""

    @property
    def asks_credit(self) -> bool:
        """Whether the author has to be named: of what is not known to be free, everywhere."""
        return self.rank > 0


@lru_cache(maxsize=4096)
def licence_of(stated: str | None) -> Licence:
    """What a source's words for a licence mean; a licence without a name where it says nothing."""
    words = " ".join((stated or "").split())
    if found := _ADDRESS.match(words):
        if found["free"]:
            return _free(found["free"].lower() == "zero")
        if found["kind"].lower() in _ELEMENTS:
            return _creative_commons(found["kind"].lower(), found["version"], found["port"])
    plain = _plain(words)
    if _ZERO_WORDS.fullmatch(plain):
        return _free(zero=True)
    if _MARK_WORDS.fullmatch(plain):
        return _free(zero=False)
    if found := _CC_WORDS.fullmatch(plain):
        return _creative_commons(found["kind"].replace(" ", "-"), found["version"], found["port"])
    return Licence(words, *_in_own_words(plain))


def work_of(page: str | None, url: str | None) -> str:
    """What a picture is named by: the page that showed it, else where it came from; of a frame, the video."""
    return page or (url or "").partition("#pts=")[0]


def attribution(licence: Licence, author: str | None, work: str) -> str:
    """Work, author and licence in a line of text, as the licence asks for them; empty where nobody has to be named."""
    if not licence.asks_credit:
        return ""
    named = " ".join((author or "").split()) or "an author who is not stated"
    terms = licence.name or "no licence stated"
    return f"{work} by {named}, {terms}{f' ({licence.address})' if licence.address else ''}"


def is_wanted(stated: str | None, wanted: Collection[str]) -> bool:
    """Whether a licence is one of those that a person listed, in whatever words; any is where none are listed."""
    return not wanted or licence_of(stated).name.casefold() in {licence_of(each).name.casefold() for each in wanted}


def _plain(words: str) -> str:
    plain = re.sub(r"[\s_-]+", " ", words.lower()).strip()
    for pattern, word in _SYNONYMS:
        plain = re.sub(pattern, word, plain)
    return plain


def _in_own_words(plain: str) -> tuple[Use, int]:
    """Use and rank of what is none of Creative Commons. It is free only as a whole: `not in the public domain` and
    `public domain; cleared for personal use` hold the same words as what is."""
    if not re.search(r"[^\W_]", plain) or _NOTHING_SAID.fullmatch(plain):
        return Use.UNKNOWN, 3
    if _RESTRICTING.intersection(re.findall(r"[^\W\d_]+", plain)):
        return Use.RESEARCH, 2
    if _PUBLIC_DOMAIN.fullmatch(plain):
        return Use.ANY, 0
    return (Use.ANY, 1) if _ATTRIBUTION.fullmatch(plain) else (Use.UNKNOWN, 2)


def _creative_commons(kind: str, version: str | None, port: str | None) -> Licence:
    version, port = version or "", (port or "").lower()
    if len(version) == 1:
        version += ".0"
    name = "-".join(
        ["CC", kind.upper(), *([version] if version else []), *([port.upper()] if version and port else [])]
    )
    address = f"https://creativecommons.org/licenses/{kind}/{version}/" if version else ""
    address += f"{port}/" if address and port else ""
    parts = kind.split("-")
    use = Use.RESEARCH if "nc" in parts else Use.UNKNOWN if "nd" in parts else Use.ANY
    return Licence(name, use, 1 if use is Use.ANY else 2, version, address)


def _free(zero: bool) -> Licence:
    kind = "zero" if zero else "mark"
    return Licence(_ZERO if zero else _MARK, Use.ANY, 0, "1.0", f"https://creativecommons.org/publicdomain/{kind}/1.0/")
