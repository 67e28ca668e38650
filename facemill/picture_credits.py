"""What a picture says about who made it, under which licence, and on which page it was shown.

Cameras and agencies write it into the picture (XMP, IPTC, EXIF), editors and downloaders into a file beside it: XMP
sidecars, and the JSON of gallery-dl (`--write-metadata`). All of it is what somebody else has written: what cannot be
read says nothing, and nothing here raises.

A notice such as `© 2020 Anna` names an author's claim and no licence. It counts as one only where it words a licence
that is known; `Usage Terms` count as they are.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any
from xml.etree import ElementTree

from facemill.foreign_files import valid_name
from facemill.picture_licences import licence_of
from facemill.pictures import open_with_pillow, sniff

_TEXT_CHARACTERS = 2000
SIDECAR_BYTES = 2_000_000
"""A larger file beside a picture is not read."""
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_RIGHTS = "{http://ns.adobe.com/xap/1.0/rights/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_CC = "{http://creativecommons.org/ns#}"
_EXIF_ARTIST, _EXIF_COPYRIGHT = 0x013B, 0x8298
_TIFF_XMP = 700
_IPTC_BYLINE, _IPTC_CREDIT, _IPTC_COPYRIGHT = (2, 80), (2, 110), (2, 116)
_JSON_LICENCES = ("license", "licence", "license_url", "license_name", "rights")
_JSON_AUTHORS = ("artist", "author", "creator", "photographer", "uploader", "username", "user", "owner")
_JSON_PAGES = ("post_url", "webpage_url", "page_url", "permalink", "source")


@dataclass(frozen=True, kw_only=True)
class Credits:
    """Text each, empty where nothing is said."""

    licence: str = ""
    author: str = ""
    page: str = ""

    def __bool__(self) -> bool:
        return self != Credits()


def first_said(*said: Credits) -> Credits:
    """Of each field what stands in the first that says something."""
    return Credits(
        **{
            field.name: next((text for each in said if (text := getattr(each, field.name))), "")
            for field in fields(Credits)
        }
    )


def embedded_credits(data: bytes) -> Credits:
    """What an encoded picture says: its XMP before IPTC, and IPTC before EXIF. Nothing of it is decoded."""
    kind = sniff(data)
    if kind is None:
        return Credits()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = open_with_pillow(data, kind)
            said = [xmp_credits(_xmp_of(picture)), _iptc_credits(picture), _exif_credits(picture)]
    except Exception:  # whoever decodes the picture says what is wrong with it
        return Credits()
    return first_said(*said)


def sidecar_credits(name: str, data: bytes) -> Credits:
    """What a file beside a picture says.

    Args:
        name: of the file, which ends in `.json` or `.xmp`.
        data: its bytes.
    """
    return gallery_credits(data) if name.lower().endswith(".json") else xmp_credits(data)


def gallery_credits(data: bytes) -> Credits:
    """What gallery-dl has written beside a picture: an object of JSON, whose names differ by site."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return Credits()
    if not isinstance(said, dict):
        return Credits()
    page = next((text for text in _named(said, _JSON_PAGES) if re.match(r"https?://\S+$", text)), "")
    return Credits(
        licence=next(_named(said, _JSON_LICENCES), ""), author=next(_named(said, _JSON_AUTHORS), ""), page=page
    )


def xmp_credits(data: bytes) -> Credits:
    """What an XMP packet says: Creative Commons' own field, the web statement, the terms of use; creator, or credit."""
    if not data or re.search(rb"<!(DOCTYPE|ENTITY)", data, re.IGNORECASE):  # XMP has none, and entities can explode
        return Credits()
    try:
        tree = ElementTree.fromstring(data.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return Credits()
    said: dict[str, list[str]] = {}
    for description in tree.iter(f"{_RDF}Description"):
        for name, value in description.attrib.items():
            said.setdefault(name, []).append(_text(value))
        for element in description:
            texts = [_text(each.text) for each in element.iter(f"{_RDF}li")]
            said.setdefault(element.tag, []).extend(
                texts or [_text(element.text) or _text(element.get(f"{_RDF}resource"))]
            )
    statement = _joined(said.get(f"{_RIGHTS}WebStatement", ()))
    licence = (
        _joined(said.get(f"{_CC}license", ()))
        or (statement if licence_of(statement).address else "")
        or _joined(said.get(f"{_RIGHTS}UsageTerms", ())[:1])
        or _notice(_joined(said.get(f"{_DC}rights", ())[:1]))
    )
    author = _joined(said.get(f"{_DC}creator", ())) or _joined(said.get(f"{_PHOTOSHOP}Credit", ()))
    return Credits(licence=licence, author=author)


def _xmp_of(picture: Any) -> bytes:
    """A picture's XMP packet: Pillow has it as bytes, in a TIFF as a tag, and of some formats as text."""
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    if not xmp and hasattr(picture, "tag_v2"):
        xmp = picture.tag_v2.get(_TIFF_XMP, b"")
    return xmp.encode() if isinstance(xmp, str) else bytes(xmp)


def _iptc_credits(picture: Any) -> Credits:
    from PIL import IptcImagePlugin

    said = IptcImagePlugin.getiptcinfo(picture) or {}

    def texts(name: tuple[int, int]) -> str:
        value = said.get(name)
        return _joined(value if isinstance(value, list) else [value])

    return Credits(author=texts(_IPTC_BYLINE) or texts(_IPTC_CREDIT), licence=_notice(texts(_IPTC_COPYRIGHT)))


def _exif_credits(picture: Any) -> Credits:
    exif = picture.getexif()
    return Credits(author=_text(exif.get(_EXIF_ARTIST)), licence=_notice(_text(exif.get(_EXIF_COPYRIGHT))))


def _notice(text: str) -> str:
    """A copyright notice where it is the wording of a licence that is known."""
    licence = licence_of(text)
    return text if licence.address or licence.rank < 2 else ""


def _named(said: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """The texts under names of an object, in the order of the names; of an object its own name."""
    for name in names:
        value = said.get(name)
        if isinstance(value, dict):
            value = next((value[inner] for inner in ("name", "username", "nick", "url") if value.get(inner)), None)
        if isinstance(value, list):
            value = ", ".join(each for each in value if isinstance(each, str))
        if text := _text(value):
            yield text


def _joined(texts: Iterable[Any]) -> str:
    return _text(", ".join(text for each in texts if (text := _text(each))))


def _text(value: Any) -> str:
    """A text in one line, of printable characters; empty for what is no text."""
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    if not isinstance(value, str):
        return ""
    shown = "".join(each if each.isprintable() else " " for each in value[: 2 * _TEXT_CHARACTERS])
    return valid_name(" ".join(shown.split())[:_TEXT_CHARACTERS])
