"""Connections that a stranger's host cannot hold on to, and that lead to no other address than the one that was judged.

`Wire` is the network of an httpcore pool. A name is resolved where the connection is made: every address that it has
must be public, and one of just these is connected to, so that a name cannot change its meaning in between. A `Budget`
holds for all that happens for one address of a picture, in whatever phase: looking the name up, connecting, TLS,
headers, interim answers, the framing of chunks, the body.

An IPv6 address that carries an IPv4 address is judged by what it carries, since that is where a translator sends it.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpcore

from facemill.errors import InputError
from facemill.reasons import Reason

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")

_TRIED_ADDRESSES = 4
"""Of one name: a host that has hundreds, all of them dead, is not tried for long."""
_LOOKUPS = threading.BoundedSemaphore(32)
"""Names that are looked up at a time: the system's resolver cannot be interrupted, only left alone."""


class Budget:
    """Seconds for everything that one address costs, and bytes for one request; never more than was given."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._bytes_left = 0

    def left_s(self) -> float:
        """Seconds that are left, more than 0. Raises InputError, DOWNLOAD_FAILED, where none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise InputError(Reason.DOWNLOAD_FAILED, f"not finished within {self.seconds:g} s")
        return left

    def part(self, seconds: float) -> Budget:
        """A budget of at most `seconds` that ends with this one at the latest."""
        return Budget(min(seconds, self.left_s()))

    def wait(self, seconds: float) -> None:
        """Waits for politeness' sake: that is not the host's time, and the end moves along."""
        time.sleep(seconds)
        self._end += seconds

    def allow_bytes(self, count: int) -> None:
        """Says how many bytes the next request may bring, with headers and framing."""
        self._bytes_left = count

    def spend_bytes(self, count: int) -> None:
        """Takes bytes off. Raises InputError, DOWNLOAD_FAILED, where the host sends more than it may."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise InputError(Reason.DOWNLOAD_FAILED, "more bytes around the picture than in any")


class Wire(httpcore.NetworkBackend):
    """Makes connections within the budget at hand; `budget` is set before each request."""

    def __init__(self, *, connect_s: float, read_s: float, allow_private: bool) -> None:
        self.budget = Budget(0)
        self.read_s = read_s
        self._connect_s = connect_s
        self._allow_private = allow_private
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first of the host's judged addresses that answers.

        Raises:
            InputError: DOWNLOAD_FAILED: the host is not known, not public, or the budget is spent.
            httpcore.ConnectError, httpcore.ConnectTimeout: none of them answers.
        """
        addresses = judged_addresses(host, port, self.budget, allow_private=self._allow_private)[:_TRIED_ADDRESSES]
        for number, address in enumerate(addresses, 1):
            try:
                seconds = min(self._connect_s, self.budget.left_s())
                return _Stream(self._sockets.connect_tcp(address, port, seconds, None, socket_options), self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                self.budget.left_s()
                if number == len(addresses):
                    raise
        raise InputError(Reason.DOWNLOAD_FAILED, f"host {host!r} is not known")

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, self.budget.left_s()))


class _Stream(httpcore.NetworkStream):
    """A connection of which every wait ends with the budget of the request that is at hand."""

    def __init__(self, inner: httpcore.NetworkStream, wire: Wire) -> None:
        self._inner, self._wire = inner, wire

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._bounded(lambda seconds: self._inner.read(max_bytes, seconds))
        self._wire.budget.spend_bytes(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._bounded(lambda seconds: self._inner.write(buffer, seconds))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._bounded(lambda seconds: self._inner.start_tls(ssl_context, server_hostname, seconds))
        return _Stream(inner, self._wire)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _bounded(self, call: Callable[[float], T]) -> T:
        try:
            return call(min(self._wire.read_s, self._wire.budget.left_s()))
        except httpcore.TimeoutException:
            self._wire.budget.left_s()  # says so where it was the budget that ended the wait
            raise


def judged_addresses(host: str, port: int, budget: Budget, *, allow_private: bool = False) -> list[str]:
    """The addresses of a host, each of which may be connected to.

    Args:
        host: a name, or an address as text, IPv6 without brackets.
        port: passed to the resolver.
        budget: ends the look-up.
        allow_private: take whatever the name says.

    Raises:
        InputError: DOWNLOAD_FAILED: not known, or one of the addresses is not public. One private answer among public
            ones is how a name is made to point inwards, so that all of it is refused.
    """
    addresses = _look_up(host, port, budget)
    if not allow_private and not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise InputError(Reason.DOWNLOAD_FAILED, "the address is not a public one")
    return addresses


def is_public(address: IPAddress) -> bool:
    """Whether an address lies in the public internet, and all that it carries does, too."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    carried = carried_addresses(address)
    if carried is not None:
        return all(map(is_public, carried))
    return (
        address in _GLOBAL_UNICAST
        and address.is_global
        and not any(address in network for network in _NOT_FOR_ANYBODY)
        and all(map(is_public, _isatap(address)))
    )


def carried_addresses(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address] | None:
    """The IPv4 addresses to which a translator would send what is sent to an IPv6 address; None where it carries none.

    Mapped (RFC 4291), compatible (::/96), translated (RFC 2765), NAT64 with the well-known and the local-use prefix
    (RFC 6052, RFC 8215), 6to4 (RFC 3056: its router), Teredo (RFC 4380: its server and its client).
    """
    number = int(address)
    low = _ipv4(number)
    if any(address in network for network in _LOW_32_BITS):
        return [low]
    if address in _LOCAL_NAT64:
        # Its length is a secret of that network. Where the bits behind an embedded address would be 0, as RFC 6052
        # wants them, it may be the one that is meant.
        found = [low]
        if number & (2**40 - 1) == 0:  # /48: 16 bits, the octet that is 0, 16 bits
            found.append(_ipv4((number >> 64 & 0xFFFF) << 16 | (number >> 40 & 0xFFFF)))
        if number & (2**32 - 1) == 0:  # /56: 8 bits, the octet, 24 bits
            found.append(_ipv4((number >> 64 & 0xFF) << 24 | (number >> 32 & 0xFFFFFF)))
        if number & (2**24 - 1) == 0:  # /64: the octet, 32 bits
            found.append(_ipv4(number >> 24))
        return found
    if address in _SIX_TO_FOUR:
        return [_ipv4(number >> 80)]
    if address in _TEREDO:
        return [_ipv4(number >> 64), _ipv4(~number)]
    return None


def _isatap(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """What an interface identifier of ISATAP (RFC 5214) carries, behind any prefix."""
    marked = int(address) >> 32 & 0xFFFFFFFF in (0x00005EFE, 0x02005EFE)
    return [_ipv4(int(address))] if marked else []


def _ipv4(number: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(number & 0xFFFFFFFF)


def _look_up(host: str, port: int, budget: Budget) -> list[str]:
    """The host's addresses in the resolver's order, each once. The resolver is left alone when the budget ends."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # whoever waits for the answer raises it
            answers.put(error)
        finally:
            _LOOKUPS.release()

    if not _LOOKUPS.acquire(timeout=budget.left_s()):
        raise InputError(Reason.DOWNLOAD_FAILED, "too many names are being looked up that get no answer")
    # A daemon, since a resolver may take minutes, and nobody must wait for it when the process ends.
    threading.Thread(target=ask, name="look up", daemon=True).start()
    try:
        answer = answers.get(timeout=budget.left_s())
    except queue.Empty:
        raise InputError(Reason.DOWNLOAD_FAILED, f"host {host!r} was not found within {budget.seconds:g} s") from None
    if isinstance(answer, Exception):
        raise InputError(Reason.DOWNLOAD_FAILED, f"host {host!r} is not known") from answer
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in answer))


def _networks(*texts: str) -> tuple[ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.IPv6Network, texts))


_LOW_32_BITS = _networks("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96")
[_LOCAL_NAT64, _SIX_TO_FOUR, _TEREDO, _GLOBAL_UNICAST] = _networks(
    "64:ff9b:1::/48", "2002::/16", "2001::/32", "2000::/3"
)
_NOT_FOR_ANYBODY = _networks("2001:db8::/32", "3fff::/20")
"""Documentation: later Pythons know these themselves."""
