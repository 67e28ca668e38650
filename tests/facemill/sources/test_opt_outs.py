"""What says that a picture is not to be collected, and what does not."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.sources._opt_outs import (
    ROBOTS_BYTES,
    RobotRules,
    embedded_rule,
    header_rule,
    tdm_forbids,
    tdm_header,
    trust_forbids,
)

URL = "https://example.org/photos/anna%20b.jpg?size=l"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("noai", "noai"),
        ("NoAI", "noai"),
        ("noml", "noml"),
        ("noimageai", "noimageai"),
        ("none", "none"),
        ("noai, max-image-preview: large", "noai"),
        ("max-image-preview: large, noai", "noai"),
        ("max-snippet: 20, noimageindex", "noimageindex"),
        ("facemill: noindex", "noindex"),
        ("facemill: max-snippet: 20, noai", "noai"),
        ("*: noai", "noai"),
        ("otherbot: noai", None),
        ("otherbot: max-snippet: 3, noai", None),
        ("otherbot: nofollow, facemill: noai", "noai"),
        ("facemill: all, otherbot: noai", None),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", "unavailable_after: 25 jun 2010 15:00:00 pst"),
        ("unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT, noai", "unavailable_after: fri"),
        ("unavailable_after: Fri, 25 Jun 2110 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: 2010-06-25", "unavailable_after: 2010-06-25"),
        ("unavailable_after: 2110-06-25", None),
        ("max-image-preview: large", None),
        ("noarchive, nofollow", None),
        ("all", None),
        ("", None),
        (":::,,:noai", None),
    ],
)
def test_the_rules_of_x_robots_tag(value: str, rule: str | None) -> None:
    assert header_rule([("X-ROBOTS-TAG", value)]) == (rule and f"X-Robots-Tag: {rule}")


def test_every_header_of_that_name_is_read() -> None:
    assert header_rule([("X-Robots-Tag", "otherbot: all"), ("X-Robots-Tag", "noai")]) == "X-Robots-Tag: noai"


def test_the_text_mining_reservation_is_an_opt_out() -> None:
    assert header_rule([("TDM-Reservation", "1")]) == "tdm-reservation: 1"
    assert [tdm_header([("tdm-reservation", value)]) for value in ("1", "0", "x")] == [True, False, None]


@given(value=st.text(max_size=200))
def test_no_header_is_too_odd(value: str) -> None:
    header_rule([("X-Robots-Tag", value), ("tdm-reservation", value)])


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("User-agent: *\nDisallow: /\n", False),
        ("User-agent: *\nDisallow:\n", True),
        ("User-agent: otherbot\nDisallow: /\n", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: facemill\nDisallow: /private\n", True),
        ("User-agent: FaceMill\nDisallow: /\n\nUser-agent: *\nAllow: /\n", False),
        ("User-agent: otherbot\nUser-agent: facemill\nDisallow: /\n", False),
        ("User-agent: *\nDisallow: /photos/\nAllow: /photos/anna\n", True),
        ("User-agent: *\nAllow: /photos/\nDisallow: /photos/anna\n", False),
        ("User-agent: *\nDisallow: /*.jpg\n", False),
        ("User-agent: *\nDisallow: /*.jpg$\n", True),  # a query follows
        ("User-agent: *\nDisallow: /*size=l$\n", False),
        ("User-agent: *\nDisallow: /photos/anna b\n", False),
        ("\ufeffUser-agent: *\nDisallow: /\n", False),
        ("User-agent: *\r\nDisallow: /\r\n", False),
        ("user-agent : * # everybody\ndisallow : / # all\n", False),
        ("Sitemap: https://example.org/a.xml\nUser-agent: a\n\n\nUser-agent: *\nDisallow: /\n", False),
        ("<html><body>Disallow: /</body></html>", True),
        ("Disallow: /\n", True),
    ],
)
def test_the_rules_of_robots_txt(text: str, allowed: bool) -> None:
    assert RobotRules(text.encode()).allow(URL) == allowed


def test_of_a_robots_txt_500_kib_are_read_and_half_a_line_is_none() -> None:
    ours = b"User-agent: *\nDisallow: /photos\n"
    filler = b"#" * 99 + b"\n"
    inside = filler * ((ROBOTS_BYTES - len(ours)) // 100) + ours
    assert not RobotRules(inside + filler * 100).allow(URL)
    assert RobotRules(filler * (ROBOTS_BYTES // 100 + 1) + ours).allow(URL)
    cut = b"User-agent: *\n" + b"#" * (ROBOTS_BYTES - 14 - 11 - 1) + b"\nDisallow: /nothing/of/ours\n"
    assert RobotRules(cut).allow(URL)  # `Disallow: /` is what would be left of it


def test_a_robots_txt_for_thousands_of_robots_takes_little_memory() -> None:
    agents = b"".join(b"User-agent: a%d\n" % number for number in range(14_000))
    rules = b"".join(b"Disallow: /%d\n" % number for number in range(14_000))
    tracemalloc.start()
    assert RobotRules((agents + rules)[: ROBOTS_BYTES - 1]).allow(URL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def test_the_crawl_delay_is_that_of_our_group() -> None:
    text = b"User-agent: *\nCrawl-delay: 10\n\nUser-agent: facemill\nCrawl-delay: 2.5\n"
    assert RobotRules(text).crawl_delay_s == 2.5
    assert RobotRules(b"User-agent: *\nCrawl-delay: soon\n").crawl_delay_s == 0
    assert RobotRules(b"User-agent: *\nCrawl-delay: inf\n").crawl_delay_s == 0


@given(data=st.binary(max_size=300))
def test_no_file_of_a_site_is_too_odd(data: bytes) -> None:
    RobotRules(data).allow(URL)
    trust_forbids(data)
    tdm_forbids(data, "/a")
    tdm_forbids(b"[" * len(data), "/a")
    embedded_rule(data)


@pytest.mark.parametrize(
    ("text", "forbids"),
    [
        (b"datatrainingallowed=no", True),
        (b"member=https://a.example/\r\nDataTrainingAllowed = No # since 2024\r\n", True),
        (b"datatrainingallowed=yes", False),
        (b"# datatrainingallowed=no", False),
        (b"<html>datatrainingallowed=no</html>", False),
        (b"", False),
    ],
)
def test_the_word_of_trust_txt(text: bytes, forbids: bool) -> None:
    assert trust_forbids(text) == forbids


@pytest.mark.parametrize(
    ("text", "forbids"),
    [
        (b'[{"location": "/", "tdm-reservation": 1}]', True),
        (b'\xef\xbb\xbf[{"location": "/photos/", "tdm-reservation": 1, "tdm-policy": "https://a.example/"}]', True),
        (b'[{"location": "/photos/anna*", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]', False),
        (b'[{"location": "/*.jpg", "tdm-reservation": 1}]', True),
        (b'[{"location": "/*.jpg$", "tdm-reservation": 1}]', True),
        (b'[{"location": "/photos$", "tdm-reservation": 1}]', False),
        (b'[{"location": "/texts/", "tdm-reservation": 1}]', False),
        (b'{"location": "/", "tdm-reservation": 1}', True),
        (b'[{"location": 5, "tdm-reservation": 1}, 7, null]', False),
        (b"<html>", False),
        (b"", False),
    ],
)
def test_the_reservations_of_tdmrep_json(text: bytes, forbids: bool) -> None:
    assert tdm_forbids(text, "/photos/anna.jpg") == forbids


def _png_text(text: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n....iTXtXML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(text) + b"...."


def _assertion(label: bytes, entries: bytes, salt: bytes = b"") -> bytes:
    content = (len(entries) + 8).to_bytes(4, "big") + b"cbor" + entries
    return b"jumb....jumdcbor0123456789ab\x13" + label + b"\0" + salt + content


SALT = b"\0\0\0\x18c2sh0123456789abcdef"
"""As c2pa-rs writes it between the label and the content."""


def _app11(data: bytes, piece: int) -> bytes:
    """A JPEG whose JUMBF box is spread over several APP11 segments."""
    box = (len(data) + 8).to_bytes(4, "big") + b"jumb" + data
    pieces = [box[:piece], *(box[at : at + piece] for at in range(piece, len(box), piece))]
    segments = [
        b"JP\0\x01" + number.to_bytes(4, "big") + (b"" if number == 1 else box[:8]) + part
        for number, part in enumerate(pieces, 1)
    ]
    return (
        b"\xff\xd8" + b"".join(b"\xff\xeb" + (len(one) + 2).to_bytes(2, "big") + one for one in segments) + b"\xff\xda"
    )


def _gif(data: bytes) -> bytes:
    """A GIF with an extension whose blocks have a byte for their length before each 255."""
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"GIF89a\x21\xff\x0bC2PA_GIF\1\0\0" + b"".join(bytes([len(one)]) + one for one in blocks) + b"\0;"


NOT_ALLOWED = b"\xa1gentries\xa1xc2pa.ai_training\xa1cusejnotAllowed"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (
            b"<x plus:DataMining='http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING'/>",
            "DMI-PROHIBITED-AIMLTRAINING",
        ),
        (b"<plus:DataMining>DMI-SEECONSTRAINT</plus:DataMining>", "DMI-SEECONSTRAINT"),
        (b"<plus:DataMining>DMI-ALLOWED</plus:DataMining>", None),
        (b"<plus:DataMining>DMI-UNSPECIFIED</plus:DataMining>", None),
        (_png_text(b"<plus:DataMining>DMI-PROHIBITED</plus:DataMining>"), "DMI-PROHIBITED"),
        (_png_text(b"nothing"), None),
    ],
)
def test_what_xmp_says_about_data_mining(data: bytes, rule: str | None) -> None:
    assert embedded_rule(data) == (rule and f"plus:DataMining {rule}")


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        (NOT_ALLOWED, "ai_training notAllowed"),
        (b"\xa1gentries\xa2xc2pa.ai_inference\xa1cusejnotAllowedxcawg.ai_training\xa1cusegallowed", None),
        (b"\xa1gentries\xa1xcawg.ai_generative_training\xa1cusekconstrained", "ai_generative_training constrained"),
        (b"\xa1gentries\xa1xc2pa.data_mining\xa1cusejnotAllowed", "data_mining notAllowed"),
        (b'{"entries": {"c2pa.ai_training": {"use": "notAllowed"}}}', "ai_training notAllowed"),
        (b"\xa1gentries\xa1xc2pa.ai_training\xa1cusegallowed", None),
    ],
)
def test_what_a_c2pa_assertion_says_about_training(entries: bytes, rule: str | None) -> None:
    for label in (b"c2pa.training-mining", b"cawg.training-mining", b"c2pa.training-mining__1"):
        told = rule and f"{label[:4].decode()}.training-mining {rule}"
        assert embedded_rule(b"RIFF....WEBP" + _assertion(label, entries)) == told
        assert embedded_rule(b"\x89PNG\r\n\x1a\n" + _assertion(label, entries, SALT)) == told
        assert embedded_rule(_gif(_assertion(label, entries, SALT))) == told
        assert embedded_rule(_app11(_assertion(label, entries), 40)) == told


def test_what_stands_behind_the_assertion_is_not_its_own() -> None:
    other = b"\xa1gentries\xa1xc2pa.ai_training\xa1cusegallowed"
    data = _assertion(b"c2pa.training-mining", other) + b"xc2pa.data_mining\xa1cusejnotAllowed"
    assert embedded_rule(data) is None
