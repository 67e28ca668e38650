"""Which addresses may be connected to, judged without ever connecting, and that no phase outlasts its budget."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from facemill.errors import InputError
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import _wire
from facemill.sources._download import Downloader, Policy
from facemill.sources._wire import Budget, is_public, judged_addresses

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))

Form = Callable[[int], int]
FORMS: dict[str, Form] = {
    "mapped": lambda v4: 0xFFFF << 32 | v4,
    "compatible": lambda v4: v4,
    "translated": lambda v4: 0xFFFF << 48 | v4,
    "NAT64": lambda v4: 0x64FF9B << 96 | v4,
    "NAT64 of a local network": lambda v4: 0x64FF9B0001 << 80 | v4,
    "6to4": lambda v4: 0x2002 << 112 | v4 << 80 | 1,
    "Teredo's client": lambda v4: 0x20010000 << 96 | 0x08080808 << 64 | v4 ^ 0xFFFFFFFF,
    "Teredo's server": lambda v4: 0x20010000 << 96 | v4 << 64 | 0x08080808 ^ 0xFFFFFFFF,
    "ISATAP": lambda v4: 0x2606_4700 << 96 | 0x5EFE << 32 | v4,
    "ISATAP, universal": lambda v4: 0x2606_4700 << 96 | 0x0200_5EFE << 32 | v4,
}
INWARDS = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", INWARDS)
def test_an_address_that_carries_one_that_points_inwards_is_not_public(form: str, inner: str) -> None:
    assert not is_public(ipaddress.IPv6Address(FORMS[form](int(ipaddress.IPv4Address(inner)))))


@pytest.mark.parametrize("form", FORMS)
@given(number=st.integers(0, 2**32 - 1))
def test_an_address_is_as_public_as_what_it_carries(form: str, number: int) -> None:
    assume("local" not in form or number % 2**24)  # else the prefix may have another length, and it is refused
    inner = ipaddress.IPv4Address(number)
    assert is_public(ipaddress.IPv6Address(FORMS[form](number))) == is_public(inner)


@given(number=st.integers(0, 2**32 - 1), shift=st.sampled_from([(80, 48), (72, 56), (64, 64)]))
def test_a_local_nat64_address_of_any_length_does_not_lead_inwards(number: int, shift: tuple[int, int]) -> None:
    """RFC 6052, section 2.2: the octet from bit 64 on is 0 and parts what is carried."""
    behind, length = shift
    high, low = divmod(number, 2 ** (32 - (64 - length)))  # what stands before bit 64, and after the octet
    carried = high << 64 | low << (56 - (32 - (64 - length)))
    address = ipaddress.IPv6Address(0x64FF9B0001 << 80 | carried)
    if not is_public(ipaddress.IPv4Address(number)):
        assert not is_public(address), (address, behind)


@pytest.mark.parametrize(
    "text",
    [
        "::1",
        "::",
        "fe80::1",
        "fe80::1%1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "5f00::1",
    ],
)
def test_other_addresses_that_are_nobody_s_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808"])
def test_public_addresses_are_public(text: str) -> None:
    assert judged_addresses(text, 443, Budget(1)) == [text]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Iterator[list[str]]]:
    """What a name resolves to, time after time; others as they are."""
    known: dict[str, Iterator[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, *rest: object, **named: object) -> list[tuple[object, ...]]:
        if host in known:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, rest[0])) for address in next(known[host])]
        return real(host, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(_wire.socket, "getaddrinfo", look_up)
    return known


def test_a_name_with_one_private_address_is_refused_whole(names) -> None:
    names["both.example"] = itertools.repeat(["8.8.8.8", "127.0.0.1"])
    with pytest.raises(InputError, match="not a public one"):
        judged_addresses("both.example", 80, Budget(1))


def test_a_name_that_changes_its_meaning_is_judged_where_it_is_connected_to(names, site) -> None:
    """Each connection goes to an address of the answer that was judged: there is no second question in between."""
    port = int(site.url.rpartition(":")[2])
    site.put("/a.jpg", PICTURE)
    asked = itertools.count()

    def answers() -> Iterator[list[str]]:
        while True:
            next(asked)
            yield ["127.0.0.1"]

    names["site.example"] = answers()
    with Downloader(Policy(allow_private_addresses=True)) as downloader:
        assert downloader.fetch(f"http://site.example:{port}/a.jpg").data == PICTURE
    assert next(asked) == len(site.clients)

    names["rebound.example"] = iter([["8.8.8.8"], ["127.0.0.1"]])
    wire = _wire.Wire(connect_s=1, read_s=1, allow_private=False)
    wire.budget = Budget(1)
    tried: list[str] = []

    class Sockets:
        def connect_tcp(self, host: str, *rest: object) -> None:
            tried.append(host)
            raise _wire.httpcore.ConnectError("nobody there")

    wire._sockets = Sockets()
    with pytest.raises(_wire.httpcore.ConnectError):
        wire.connect_tcp("rebound.example", 80)
    with pytest.raises(InputError, match="not a public one"):
        wire.connect_tcp("rebound.example", 80)
    assert tried == ["8.8.8.8"]


def test_a_resolver_that_does_not_answer_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    monkeypatch.setattr(_wire.socket, "getaddrinfo", lambda *rest, **named: gone.wait(30))
    begun = time.monotonic()
    with Downloader(Policy(deadline_s=0.3)) as downloader, pytest.raises(InputError) as found:
        downloader.fetch("http://slow.example/a.jpg")
    gone.set()
    assert time.monotonic() - begun < 3
    assert found.value.reason is Reason.DOWNLOAD_FAILED


HEAD = b"HTTP/1.1 200 OK\r\n"
PHASES: dict[str, tuple[bytes, bytes]] = {
    "nothing at all": (b"", b""),
    "the status": (b"", b"H"),
    "a header": (HEAD + b"X-Long: ", b"x"),
    "headers": (HEAD, b"X: y\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "the body": (HEAD + b"\r\n", b"\xff"),
    "the size of a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "the extension of a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=", b"x"),
    "chunks of one byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n\xff\r\n"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
}


@pytest.fixture
def dripping() -> Iterator[Callable[[bytes, bytes], str]]:
    """Starts a host that answers each request with some bytes and then drips others, for ever."""
    gone = threading.Event()
    sockets: list[socket.socket] = []

    def start(first: bytes, drip: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            while not gone.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.sendall(first)
                    while not gone.wait(0.01):
                        connection.sendall(drip)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"

    yield start
    gone.set()
    for one in sockets:
        one.close()


@pytest.mark.parametrize("phase", PHASES)
def test_a_host_that_drips_is_left_at_the_deadline_in_every_phase(dripping, phase: str) -> None:
    place = dripping(*PHASES[phase])
    begun = time.monotonic()
    with (
        Downloader(Policy(allow_private_addresses=True, deadline_s=0.5)) as downloader,
        pytest.raises(InputError) as told,
    ):
        downloader.fetch(f"http://{place}/a.jpg")
    assert time.monotonic() - begun < 3
    assert told.value.reason is Reason.DOWNLOAD_FAILED
    assert "not finished within 0.5 s" in told.value.detail


@pytest.mark.parametrize("drip", [b"", b"\x16", b"\x16\x03\x03\x40\x00"])
def test_a_handshake_that_drips_is_left_at_the_deadline(dripping, drip: bytes) -> None:
    place = dripping(b"\x16\x03\x03\x40\x00" if len(drip) == 1 else b"", drip)
    begun = time.monotonic()
    with (
        Downloader(Policy(allow_private_addresses=True, deadline_s=0.5)) as downloader,
        pytest.raises(InputError) as told,
    ):
        downloader.fetch(f"https://{place}/a.jpg")
    assert time.monotonic() - begun < 3
    assert told.value.reason is Reason.DOWNLOAD_FAILED


@pytest.mark.parametrize("phase", ["headers", "early hints", "chunks of one byte"])
def test_bytes_around_a_picture_are_counted(dripping, phase: str) -> None:
    first, drip = PHASES[phase]
    place = dripping(first, drip * 20_000)
    begun = time.monotonic()
    policy = Policy(allow_private_addresses=True, max_bytes=1000, deadline_s=5, tries=1)
    with Downloader(policy) as downloader, pytest.raises(InputError) as told:
        downloader.fetch(f"http://{place}/a.jpg")
    assert told.value.reason is Reason.DOWNLOAD_FAILED
    assert time.monotonic() - begun < 15
