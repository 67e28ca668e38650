"""Who made a picture, and under which licence: XMP, IPTC and EXIF inside, XMP and JSON beside, and what is broken."""

from __future__ import annotations

import io
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facemill.picture_credits import (
    Credits,
    embedded_credits,
    first_said,
    gallery_credits,
    sidecar_credits,
    xmp_credits,
)

BY = "https://creativecommons.org/licenses/by/4.0/"


def xmp(body: str = "", attributes: str = "") -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://creativecommons.org/ns#" '
        'xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        f"{attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()


CREATOR = "<dc:creator><rdf:Seq><rdf:li>Anna Bö</rdf:li><rdf:li>Bert</rdf:li></rdf:Seq></dc:creator>"


def alternatives(name: str, text: str) -> str:
    return f"<{name}><rdf:Alt><rdf:li xml:lang='x-default'>{text}</rdf:li></rdf:Alt></{name}>"


@pytest.mark.parametrize(
    ("packet", "licence", "author"),
    [
        (xmp(f"{CREATOR}<cc:license rdf:resource='{BY}'/>"), BY, "Anna Bö, Bert"),
        (xmp(alternatives("xmpRights:UsageTerms", "CC BY 4.0")), "CC BY 4.0", ""),
        (xmp(attributes=f'xmpRights:WebStatement="{BY}" photoshop:Credit="Some agency"'), BY, "Some agency"),
        (xmp(attributes='xmpRights:WebStatement="https://anna.example/terms"'), "", ""),
        (xmp(alternatives("dc:rights", "Public domain")), "Public domain", ""),
        (xmp(alternatives("dc:rights", "© 2020 Anna")), "", ""),
        (b"<x", "", ""),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + xmp(CREATOR), "", ""),
    ],
)
def test_xmp_states_licence_and_author(packet: bytes, licence: str, author: str) -> None:
    assert xmp_credits(packet) == Credits(licence=licence, author=author)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"artist": "Anna", "license": "CC BY 4.0", "post_url": "https://a.example/1"},
            ("CC BY 4.0", "Anna", "https://a.example/1"),
        ),
        ({"artist": [], "author": {"name": "Anna", "id": 5}, "source": "scan"}, ("", "Anna", "")),
        ({"user": ["Anna", 7, "Bert"], "licence": {"url": BY}}, (BY, "Anna, Bert", "")),
        (["artist"], ("", "", "")),
    ],
)
def test_the_json_of_gallery_dl_is_read_whatever_the_site(said: object, expected: tuple[str, str, str]) -> None:
    found = gallery_credits(json.dumps(said).encode())
    assert (found.licence, found.author, found.page) == expected


def _iptc(*records: tuple[int, bytes]) -> bytes:
    """An APP13 segment's content with IPTC records of section 2, as Photoshop writes it."""
    block = b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text)) + text for number, text in records)
    resource = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(block)) + block + b"\0" * (len(block) % 2)
    return b"Photoshop 3.0\0" + resource


def jpeg(*, packet: bytes = b"", artist: str = "", rights: str = "", iptc: bytes = b"") -> bytes:
    exif = Image.Exif()
    if artist:
        exif[0x013B] = artist
    if rights:
        exif[0x8298] = rights
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif, **({"xmp": packet} if packet else {}))
    data = stream.getvalue()
    segment = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc if iptc else b""
    return data[:2] + segment + data[2:]


def test_xmp_stands_before_iptc_and_iptc_before_exif() -> None:
    iptc = _iptc((80, "Bö".encode()), (80, b"Bea"), (116, b"CC0"))
    assert embedded_credits(jpeg(artist="Carl", rights="CC BY 4.0")) == Credits(author="Carl", licence="CC BY 4.0")
    assert embedded_credits(jpeg(artist="Carl", rights="all mine")) == Credits(author="Carl")
    assert embedded_credits(jpeg(artist="Carl", iptc=iptc)) == Credits(author="Bö, Bea", licence="CC0")
    found = embedded_credits(jpeg(packet=xmp(CREATOR), artist="Carl", iptc=iptc))
    assert found == Credits(author="Anna Bö, Bert", licence="CC0")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_other_formats_state_it_too(form: str) -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x013B] = "Carl"
    Image.new("RGB", (8, 8)).save(stream, form, exif=exif)
    assert embedded_credits(stream.getvalue()).author == "Carl"


def test_the_first_that_says_something_is_taken_field_by_field() -> None:
    assert first_said(Credits(author="a"), Credits(author="b", licence="c"), Credits(page="d")) == Credits(
        author="a", licence="c", page="d"
    )


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_nothing_is_too_odd(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from(
            [jpeg(packet=xmp(CREATOR), artist="Carl", iptc=_iptc((80, b"x"))), xmp(CREATOR), b'{"artist": "x"}']
        )
    )
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + data.draw(st.binary(max_size=8)) + whole[at + data.draw(st.integers(0, 8)) :]
    for found in (embedded_credits(broken), sidecar_credits("a.json", broken), sidecar_credits("a.XMP", broken)):
        assert isinstance(found, Credits)
