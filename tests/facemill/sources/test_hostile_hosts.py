"""Properties of the downloader against hosts that answer with whatever hypothesis makes up: one error, and no other."""

from __future__ import annotations

import http.server
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facemill.errors import InputError
from facemill.pictures import encode_jpeg
from facemill.sources._download import Downloader, Policy

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
POLICY = Policy(
    allow_private_addresses=True,
    deadline_s=1.0,
    connect_s=0.3,
    read_s=0.3,
    pause_s=0.001,
    tries=2,
    max_crawl_delay_s=0.0,
)
QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

_LINES = st.binary(max_size=40).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))
_NAMES = st.sampled_from(
    [
        b"Location", b"Content-Length", b"Content-Encoding", b"Transfer-Encoding", b"Retry-After", b"X-Robots-Tag",
        b"tdm-reservation", b"Connection", b"Content-Range", b"Set-Cookie",
    ]
)  # fmt: skip
_VALUES = _LINES | st.sampled_from(
    [
        b"", b"gzip", b"gzip, gzip", b"br", b"chunked", b"identity, chunked", b"close", b"upgrade", b"-1",
        b"99999999999",
        "²".encode(), b"0", b"1", b"/a.jpg", b"//", b"http://", b"http://xn--a/", b"http://[::1", b"https://127.0.0.1:1/",
        b"http://127.0.0.1:99999/", b"http://user:word@127.0.0.1/", b"javascript:1", b"file:///etc/hostname",
        b"\xff\xfe",
        b"Mon, 99 Foo 99999 99:99:99 +9999", b"http://a..b/", b"http://\xc3\xbc.example.invalid/", b"?", b"#",
    ]
)  # fmt: skip
_BODIES = st.binary(max_size=200) | st.sampled_from([PICTURE, b"", b"\x1f\x8b\x08", b"5\r\nab\r\n0\r\n\r\n"])
_ANSWERS = st.builds(
    lambda status, headers, body: (
        b"HTTP/1.1 " + status + b"\r\n" + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + body
    ),
    (st.integers(0, 1200).map(lambda code: b"%d x" % code) | _LINES),
    st.lists(st.tuples(_NAMES | _LINES, _VALUES), max_size=5),
    _BODIES,
) | st.binary(max_size=300)


def _raw(answer: bytes):
    def send(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(answer)
        request.close_connection = True

    return send


def _ask(asking: Downloader, url: str) -> None:
    asking._sites.clear()  # each example asks the site's files anew
    try:
        found = asking.fetch(url)
    except InputError:
        return
    assert found.data == PICTURE


@pytest.fixture(scope="module")
def asking() -> Iterator[Downloader]:
    """One downloader for all examples: what one of them leaves behind must not harm the next."""
    with Downloader(POLICY) as downloader:
        yield downloader


@QUIET
@given(answer=_ANSWERS)
def test_whatever_comes_for_a_picture_is_a_picture_or_a_reason(site, asking: Downloader, answer: bytes) -> None:
    site.answers["/a.jpg"] = _raw(answer)
    _ask(asking, site.url + "/a.jpg")


@QUIET
@given(answer=_ANSWERS, path=st.sampled_from(["/robots.txt", "/ai.txt", "/trust.txt", "/.well-known/tdmrep.json"]))
def test_whatever_comes_for_a_file_of_the_site_is_a_picture_or_a_reason(
    site, asking: Downloader, answer: bytes, path: str
) -> None:
    site.put("/a.jpg", PICTURE)
    site.answers.pop("/robots.txt", None)
    site.answers[path] = _raw(answer)
    _ask(asking, site.url + "/a.jpg")


@settings(max_examples=300, deadline=None)
@given(
    url=st.text(max_size=60)
    | st.text(max_size=40).map("http://{}".format)
    | st.text(max_size=20).map("http://{}.invalid/a.jpg".format)
    | st.text(max_size=20).map("http://127.0.0.1:1/{}".format)
)
def test_no_address_is_too_odd(nowhere: Downloader, url: str) -> None:
    with pytest.raises(InputError):
        nowhere.fetch(url)


@pytest.fixture(scope="module")
def nowhere() -> Iterator[Downloader]:
    """A downloader for which no name is known: this is about addresses, and nothing must leave the machine."""
    with pytest.MonkeyPatch.context() as patch, Downloader(Policy(deadline_s=1.0)) as downloader:
        patch.setattr("facemill.sources._wire.socket.getaddrinfo", _unknown)
        yield downloader


def _unknown(*rest: object, **named: object) -> None:
    raise OSError("not known")
