"""Fetching pictures from addresses that strangers wrote: bounded in time, bytes and reach, and polite.

- http and https only, no credentials in the address, ports 80 and 443.
- The host is resolved once, every address must be public, and the connection goes to the address that was checked, so
  that a name cannot change its meaning in between. Every redirect is checked again.
- Too many bytes is an error, never a shortened picture. The first bytes decide what it is, not the header.
- 429, 5xx and time-outs are tried again after a pause with full jitter; Retry-After is honoured.
- robots.txt, `X-Robots-Tag` (noai, noimageai, noindex, noimageindex) and `tdm-reservation: 1` are obeyed.

Certificates are always verified, proxies of the environment are not used: they would connect where we did not look.
"""

from __future__ import annotations

import email.utils
import ipaddress
import os
import random
import socket
import ssl
import time
import urllib.robotparser
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

import certifi
import httpx

from facemill.errors import InputError
from facemill.pictures import sniff
from facemill.reasons import Reason

USER_AGENT = "facemill/0.1 (dataset collection; respects robots.txt and X-Robots-Tag)"
_OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", "none")
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_SNIFFED_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How far a download may go."""

    max_bytes: int = 25_000_000
    deadline_s: float = 30.0
    """For one address, redirects, pauses and further tries included."""
    connect_s: float = 5.0
    read_s: float = 10.0
    max_redirects: int = 3
    tries: int = 3
    pause_s: float = 0.5
    """Upper bound of the first pause; it doubles with each try."""
    allow_private_addresses: bool = False
    """Also loopback and private networks, on any port: for mirrors in one's own network, and tests."""


@dataclass(frozen=True)
class Download:
    """What an address gave: the bytes and the address after redirects."""

    data: bytes
    url: str


class Downloader:
    """Fetches pictures one after another; keeps connections and each host's robots.txt. Close it after use."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        timeout = httpx.Timeout(self.policy.read_s, connect=self.policy.connect_s)
        # SSL_CERT_FILE is how a company's own authority is named; certifi's list works without any system package.
        authorities = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        self._client = httpx.Client(timeout=timeout, trust_env=False, follow_redirects=False, verify=authorities)
        self._robots: dict[str, urllib.robotparser.RobotFileParser] = {}
        self._jitter = random.Random()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def fetch(self, url: str) -> Download:
        """The picture behind an address.

        Raises:
            InputError: DOWNLOAD_FAILED (address refused, no answer, an error status, no picture), TOO_LARGE,
                EMPTY_FILE, OPTED_OUT (the detail names the rule).
        """
        deadline = time.monotonic() + self.policy.deadline_s
        try:
            self._ask_robots(httpx.URL(url), deadline)
            found = self._follow(url, deadline, self.policy.max_bytes)
        except httpx.InvalidURL as error:
            raise InputError(Reason.DOWNLOAD_FAILED, f"not an address: {error}") from error
        if not found.data:
            raise InputError(Reason.EMPTY_FILE)
        if sniff(found.data[:_SNIFFED_BYTES]) is None:
            raise InputError(Reason.DOWNLOAD_FAILED, "what came is not a picture")
        return found

    def _follow(self, url: str, deadline: float, max_bytes: int) -> Download:
        for _ in range(self.policy.max_redirects + 1):
            answer = self._try_often(httpx.URL(url), deadline, max_bytes)
            if isinstance(answer, bytes):
                return Download(answer, url)
            self._ask_robots(answer, deadline)
            url = str(answer)
        raise InputError(Reason.DOWNLOAD_FAILED, f"more than {self.policy.max_redirects} redirects")

    def _try_often(self, url: httpx.URL, deadline: float, max_bytes: int) -> bytes | httpx.URL:
        """The body, or where a redirect leads."""
        for attempt in range(self.policy.tries):
            try:
                return self._try(url, deadline, max_bytes)
            except (_TryAgain, httpx.TransportError) as error:
                pause = self._jitter.uniform(0, self.policy.pause_s * 2**attempt)
                if isinstance(error, _TryAgain) and error.after_s is not None:
                    pause = error.after_s
                last = attempt + 1 == self.policy.tries or time.monotonic() + pause >= deadline
                if last:
                    what = str(error) or type(error).__name__
                    raise InputError(Reason.DOWNLOAD_FAILED, f"{what}, {attempt + 1} tries") from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _try(self, url: httpx.URL, deadline: float, max_bytes: int) -> bytes | httpx.URL:
        address = checked_address(url, allow_private=self.policy.allow_private_addresses)
        if time.monotonic() >= deadline:
            raise InputError(Reason.DOWNLOAD_FAILED, f"not finished within {self.policy.deadline_s:g} s")
        headers = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": USER_AGENT,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",  # pictures are compressed already, and packed bytes can explode
        }
        pinned = url.copy_with(host=address)
        with self._client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": url.host}) as response:
            if response.is_redirect:
                return url.join(response.headers["Location"])
            if response.status_code in _RETRIED:
                raise _TryAgain(f"status {response.status_code}", _retry_after_s(response.headers.get("Retry-After")))
            if response.status_code != httpx.codes.OK:
                raise InputError(Reason.DOWNLOAD_FAILED, f"status {response.status_code}")
            if rule := opt_out(response.headers):
                raise InputError(Reason.OPTED_OUT, rule)
            return self._body(response, deadline, max_bytes)

    def _body(self, response: httpx.Response, deadline: float, max_bytes: int) -> bytes:
        stated = response.headers.get("Content-Length", "")
        if stated.isdigit() and int(stated) > max_bytes:
            raise InputError(Reason.TOO_LARGE, f"{stated} bytes, limit {max_bytes}")
        body = bytearray()
        for chunk in response.iter_bytes():  # as it arrives: with a chunk size httpx would wait until one is full
            body += chunk
            if len(body) > max_bytes:
                raise InputError(Reason.TOO_LARGE, f"more than {max_bytes} bytes")
            if time.monotonic() >= deadline:  # a host that drips a byte a second keeps every read time-out
                raise InputError(Reason.DOWNLOAD_FAILED, f"not finished within {self.policy.deadline_s:g} s")
        return bytes(body)

    def _ask_robots(self, url: httpx.URL, deadline: float) -> None:
        """Raises OPTED_OUT where the host's robots.txt shuts us out. No robots.txt, or an unreadable one, allows."""
        checked_address(url, allow_private=self.policy.allow_private_addresses)
        site = f"{url.scheme}://{url.netloc.decode('ascii')}"
        if site not in self._robots:
            rules = urllib.robotparser.RobotFileParser()
            try:
                answer = self._try(httpx.URL(f"{site}/robots.txt"), deadline, 500_000)
                text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else ""
            except (InputError, _TryAgain, httpx.TransportError):
                text = ""
            rules.parse(text.splitlines())
            self._robots[site] = rules
        if not self._robots[site].can_fetch("facemill", str(url)):
            raise InputError(Reason.OPTED_OUT, "robots.txt")


def checked_address(url: httpx.URL, *, allow_private: bool = False) -> str:
    """The IP address to connect to, after all that can be checked about an address has been.

    Raises:
        InputError: DOWNLOAD_FAILED with what is wrong.
    """
    if url.scheme not in ("http", "https"):
        raise InputError(Reason.DOWNLOAD_FAILED, f"scheme {url.scheme or 'none'!r}, only http and https")
    if not url.host or url.userinfo:
        raise InputError(Reason.DOWNLOAD_FAILED, "no host, or credentials in the address")
    port = url.port or (443 if url.scheme == "https" else 80)
    if not allow_private and port not in (80, 443):
        raise InputError(Reason.DOWNLOAD_FAILED, f"port {port}, only 80 and 443")
    try:
        found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(Reason.DOWNLOAD_FAILED, f"host {url.host!r} is not known") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not allow_private:
        # One private answer among public ones is how a name is made to point inwards: refuse all of it.
        for address in addresses:
            if not _is_public(ipaddress.ip_address(address)):
                raise InputError(Reason.DOWNLOAD_FAILED, "the address is not a public one")
    return addresses[0]


def opt_out(headers: httpx.Headers) -> str | None:
    """The header by which a host asks not to be used for training or indexing, or None.

    `X-Robots-Tag: somebot: noai` concerns somebot alone.
    """
    for value in headers.get_list("X-Robots-Tag"):
        agent, separator, rules = value.partition(":")
        if separator and agent.strip().lower() in ("unavailable_after", "max-image-preview", "max-snippet"):
            rules = value
        elif separator and agent.strip().lower() not in ("facemill", "*"):
            continue
        for rule in (rules if separator else value).lower().split(","):
            if rule.strip() in _OPT_OUTS:
                return f"X-Robots-Tag: {rule.strip()}"
    return "tdm-reservation: 1" if headers.get("tdm-reservation", "").strip() == "1" else None


class _TryAgain(Exception):
    def __init__(self, message: str, after_s: float | None) -> None:
        super().__init__(message)
        self.after_s = after_s


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return _is_public(mapped) if mapped else address.is_global and not address.is_multicast


def _retry_after_s(value: str | None) -> float | None:
    """Retry-After in seconds, stated as a number or a date; None where it is neither."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
