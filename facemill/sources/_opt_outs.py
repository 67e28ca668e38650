"""How the people behind a picture say that it is not to be collected, and what of that is obeyed.

- `robots.txt` (RFC 9309): the longest rule that matches, of the group for facemill, else of that for all robots.
- `ai.txt` (Spawning): the same rules, in a file that is about training alone.
- `trust.txt` (JournalList): `datatrainingallowed=no`.
- `/.well-known/tdmrep.json` (TDM Reservation Protocol): `"tdm-reservation": 1` for the first location that matches.
- Header `tdm-reservation`: `1`; a `0` stands above the file.
- Header `X-Robots-Tag`: noai, noimageai, noml, noindex, noimageindex, none; a date of `unavailable_after` in the past.
- In the picture, XMP `plus:DataMining` (IPTC 2023.1): prohibited in any form, or under constraints in words.
- In the picture, C2PA `c2pa.training-mining` and `cawg.training-mining`: training or mining that is `notAllowed` or
  `constrained`.

A word for another robot (`otherbot: noai`) is not for us. All functions are pure; `_download` asks for the files.
"""

from __future__ import annotations

import email.utils
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from urllib.parse import unquote

from protego import Protego

AGENT = "facemill"
"""Our product token, by which robots.txt and X-Robots-Tag can name us."""
ROBOTS_BYTES = 500 * 1024
"""So much of a robots.txt is read (RFC 9309, section 2.5)."""

_RULES = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
_VALUED_RULES = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
_AGENT_TOKEN = re.compile(r"[a-z*][a-z0-9_.*-]*")
_UNPACKED_BYTES, _PACKED_TEXTS, _BOXES_TRIED = 1_000_000, 8, 4


class RobotRules:
    """A robots.txt, or a file with its rules, as it concerns facemill."""

    def __init__(self, data: bytes) -> None:
        """Takes whatever came: what is no rule says nothing."""
        self._rules = Protego.parse(_for_us(_text(data[:ROBOTS_BYTES], cut=len(data) > ROBOTS_BYTES)))

    def allow(self, url: str) -> bool:
        """Whether facemill may fetch the address."""
        return self._rules.can_fetch(url, AGENT)

    @property
    def crawl_delay_s(self) -> float:
        """Seconds from one request to the next; 0 where nothing is said."""
        return self._rules.crawl_delay(AGENT) or 0.0


def trust_forbids(data: bytes) -> bool:
    """Whether a trust.txt says that its site's content must not be trained on."""
    return re.search(r"(?im)^[ \t]*datatrainingallowed[ \t]*=[ \t]*no[ \t]*(#.*)?\r?$", _text(data)) is not None


def tdm_forbids(data: bytes, path: str) -> bool:
    """Whether a tdmrep.json reserves text and data mining for a path: the first location that matches decides."""
    try:
        rules = json.loads(_text(data))
    except (ValueError, RecursionError):
        return False
    for rule in rules if isinstance(rules, list) else [rules]:
        if isinstance(rule, dict) and isinstance(location := rule.get("location"), str) and _lies_in(path, location):
            return rule.get("tdm-reservation") in (1, "1", True)
    return False


def header_rule(headers: Iterable[tuple[str, str]]) -> str | None:
    """The header by which a host asks not to be used for training or indexing, as it is told; None where there is none.

    Args:
        headers: names and values as they came, a name as often as it came.
    """
    for name, value in headers:
        if name.lower() == "x-robots-tag" and (rule := _robots_tag_rule(value)):
            return f"X-Robots-Tag: {rule}"
    return "tdm-reservation: 1" if tdm_header(headers) else None


def tdm_header(headers: Iterable[tuple[str, str]]) -> bool | None:
    """Whether the header `tdm-reservation` reserves mining; None where it says nothing."""
    said = [value.strip() for name, value in headers if name.lower() == "tdm-reservation"]
    return True if "1" in said else False if "0" in said else None


def embedded_rule(data: bytes) -> str | None:
    """What a picture says about itself that forbids training on it: XMP's data mining, or a C2PA assertion; or None."""
    for text in (data, *_packed_texts(data)):
        if found := re.search(rb"\bDMI-(?:PROHIBITED[A-Z-]*|SEECONSTRAINT)", text):
            return f"plus:DataMining {found[0].decode('ascii')}"
    return _c2pa_rule(_jumbf(data))


def _robots_tag_rule(value: str) -> str | None:
    """`noai, max-image-preview: large`, `facemill: noai, noindex`, `otherbot: noai`: a name holds for what follows."""
    concerns_us = True
    for token in value.lower().split(","):
        name, colon, rest = (part.strip() for part in token.partition(":"))
        if colon and name not in _VALUED_RULES | _RULES:
            if _AGENT_TOKEN.fullmatch(name) is None:
                continue  # the end of a date with a comma
            concerns_us = name in (AGENT, "*")
            name, colon, rest = (part.strip() for part in rest.partition(":"))
        if concerns_us and name in _RULES:
            return name
        if concerns_us and name == "unavailable_after" and _has_passed(value, rest):
            return f"unavailable_after: {rest}"
    return None


def _has_passed(value: str, date: str) -> bool:
    if re.fullmatch(r"[a-z]{3,9}", date):  # `wed, 25 jun 2010`: the comma belongs to the date
        date = value.lower().partition("unavailable_after")[2].lstrip(" :")
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            when = read(date.upper())
            return (when if when.tzinfo else when.replace(tzinfo=UTC)) < datetime.now(UTC)
        except (ValueError, TypeError, OverflowError):
            continue
    return False


def _for_us(text: str) -> str:
    """The file with all other robots under one name: the rules of 20,000 of them would be held 20,000 times."""
    return "\n".join(_renamed(line) for line in text.splitlines())


def _renamed(line: str) -> str:
    found = re.match(r"\s*user[- ]?agent\s*[:\s]\s*(.*?)\s*(#.*)?$", line, re.IGNORECASE)
    ours = found is None or found[1] == "*" or AGENT in found[1].lower()
    return line if ours else "User-agent: another"


def _text(data: bytes, *, cut: bool = False) -> str:
    """A text file as it came; packed though nobody asked for that, its beginning. `cut`: its last line is half a line.

    UTF-8 where it is some, and without a byte-order mark.
    """
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(data, zlib.MAX_WBITS | 16)[:ROBOTS_BYTES]
    text = data.decode("utf-8-sig", "replace")
    return text[: max(text.rfind("\n"), text.rfind("\r")) + 1] if cut else text


def _unpacked(data: bytes, window: int = zlib.MAX_WBITS) -> bytes:
    try:
        return zlib.decompressobj(window).decompress(data, _UNPACKED_BYTES)
    except zlib.error:
        return b""


def _lies_in(path: str, location: str) -> bool:
    """Whether a location of tdmrep.json means a path: `*` for any characters, `$` for the end, else a beginning."""
    parts = unquote(location.removesuffix("$")).split("*")
    rest, at = unquote(path), 0
    for number, part in enumerate(parts):
        found = rest.find(part, at)
        if found < 0 or (number == 0 and found > 0):
            return False
        at = found + len(part)
    return not location.endswith("$") or at == len(rest) or (len(parts) > 1 and rest.endswith(parts[-1]))


def _packed_texts(data: bytes) -> Iterator[bytes]:
    """The compressed texts of a PNG, in which XMP may lie: keyword, 0, packed, method, language, 0, translation, 0."""
    if not data.startswith(b"\x89PNG"):
        return
    for found in islice(re.finditer(rb"iTXtXML:com\.adobe\.xmp\0\x01\0[^\0]*\0[^\0]*\0", data), _PACKED_TEXTS):
        yield _unpacked(data[found.end() : found.end() + _UNPACKED_BYTES])


def _jumbf(data: bytes) -> bytes:
    """The bytes in which a C2PA manifest lies in one piece: the segments of a JPEG, the blocks of a GIF, else all."""
    if data.startswith(b"GIF8"):
        at = data.find(b"\x21\xff\x0bC2PA_GIF") + 14
        blocks: list[bytes] = []
        while 14 <= at < len(data) and data[at]:
            blocks.append(data[at + 1 : at + 1 + data[at]])
            at += 1 + data[at]
        return b"".join(blocks)
    if not data.startswith(b"\xff\xd8"):
        return data
    pieces: dict[bytes, list[bytes]] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if data[at + 1] == 0xEB and segment.startswith(b"JP"):
            box, number = segment[2:4], int.from_bytes(segment[4:8], "big")
            # JP, box, number: 8 bytes; each further piece has the box's length and type once more.
            pieces.setdefault(box, []).append(segment[8 if number == 1 else 16 :])
        at += 2 + max(2, length)
    return b"".join(piece for box in pieces.values() for piece in box)


def _c2pa_rule(data: bytes) -> str | None:
    """Looks into assertions about training, which are CBOR or JSON: the text of a key, then that of its use."""
    for found in re.finditer(rb"(c2pa|cawg)\.training-mining[^\0]{0,8}\0", data):
        # A salt may follow the label, then the box with what is asserted; each begins with its length and type.
        at = found.end()
        for _ in range(_BOXES_TRIED):
            length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if kind in (b"cbor", b"json"):
                if rule := _entry_rule(found[1].decode("ascii"), data[at + 8 : at + min(length, _UNPACKED_BYTES)]):
                    return rule
                break
            at += max(8, length)
    return None


def _entry_rule(vocabulary: str, entries: bytes) -> str | None:
    keys = re.split(rb"(?:c2pa|cawg)\.(ai_generative_training|ai_training|data_mining|ai_inference)", entries)
    for key, said in _pairs(keys[1:]):
        use = re.search(rb'use(?:\x6a|\x6b|":\s*")(notAllowed|constrained)', said)
        if use and key != b"ai_inference":
            return f"{vocabulary}.training-mining {key.decode('ascii')} {use[1].decode('ascii')}"
    return None


def _pairs(parts: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    yield from zip(parts[::2], parts[1::2], strict=False)
