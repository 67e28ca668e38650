"""Fetching pictures from addresses that strangers wrote: bounded in time, bytes and reach, and polite.

- http and https only, no credentials in the address, ports 80 and 443. Every redirect is checked again.
- The connection goes to an address that was judged, and one deadline holds in every phase (`_wire`).
- Nothing is unpacked: what came is what is kept. Too many bytes is an error, never a shortened picture. The first bytes
  decide what it is, not the header.
- 429, 5xx and time-outs are tried again after a pause with full jitter; Retry-After is honoured.
- What sites and pictures say against being collected is obeyed (`_opt_outs`), and a Crawl-delay is kept.

Certificates are always verified, proxies of the environment are not used: they would connect where we did not look.
Whatever a host answers, `Downloader.fetch` raises nothing but `InputError`.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import random
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from urllib.parse import quote

import certifi
import httpcore
import httpx

from facemill.errors import InputError
from facemill.patience import PICTURE_DOWNLOAD
from facemill.pictures import sniff
from facemill.reasons import Reason
from facemill.sources._opt_outs import (
    AGENT,
    ROBOTS_BYTES,
    RobotRules,
    embedded_rule,
    header_rule,
    tdm_forbids,
    tdm_header,
    trust_forbids,
)
from facemill.sources._wire import Budget, Wire

USER_AGENT = f"{AGENT}/0.1 ({{contact}}dataset collection; respects robots.txt and X-Robots-Tag)"
"""Some sites ask for a `contact`, and shut out whoever names none."""
CONTACT = r"[\w.+-]{1,64}@[A-Za-z0-9.-]{1,190}|https?://[!#-'*-~]{1,250}"
"""A mail address or that of a page, of characters that can stand in a header's comment."""
_OK, _NOT_MODIFIED = 200, 304
_GONE = frozenset({404, 410, 451})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONDITIONS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
_SNIFFED_BYTES = 32
_AROUND_BYTES = 1_000_000
"""Headers and framing of an answer, beside twice its body."""
_TOLD_CHARACTERS = 200
"""Of a library's message, which may hold all that a host sent."""
_KNOWN_SITES = 256
_ROBOTS_REDIRECTS = 5
_KEPT_S, _REFUSED_S = 24 * 3600.0, 60.0
"""How long a site's word holds, and how long a site is left alone whose robots.txt could not be read."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How far a download may go."""

    max_bytes: int = 25_000_000
    deadline_s: float = PICTURE_DOWNLOAD.deadline_s
    """For one address, whatever happens: names, connections, redirects, pauses and further tries included. What a site
    asks to be waited between two requests is beside it."""
    connect_s: float = 5.0
    read_s: float = 10.0
    max_redirects: int = 3
    tries: int = PICTURE_DOWNLOAD.tries
    pause_s: float = PICTURE_DOWNLOAD.wait_s
    """Upper bound of the first pause; it doubles with each try."""
    max_crawl_delay_s: float = 60.0
    """A site that asks for longer pauses between two requests is not asked at all."""
    allow_private_addresses: bool = False
    """Also loopback and private networks, on any port: for mirrors in one's own network, and tests."""
    contact: str = ""
    """Whom a site can write to, told in the User-Agent; see CONTACT."""

    @property
    def user_agent(self) -> str:
        """The User-Agent header: this program and its version, and whom a site can write to."""
        return USER_AGENT.format(contact=f"{self.contact}; " if self.contact else "")


@dataclass(frozen=True)
class Download:
    """What an address gave: the bytes, and the address after redirects.

    Attributes:
        data: None where the picture is the one that was known (304).
        said: by what it can be asked whether the picture is still the same, see `Downloader.fetch`.
    """

    data: bytes | None
    url: str
    said: Mapping[str, str] = field(default_factory=dict)


class GoneError(InputError):
    """The host has answered that nothing is at the address, or nothing any longer: 404, 410, 451."""


@dataclass(frozen=True)
class Address:
    """An address that may be asked, in parts; `text` is as it is shown and judged by rules."""

    scheme: str
    host: str
    port: int
    target: str
    text: str

    @property
    def site(self) -> str:
        """Scheme, host and port: what a robots.txt holds for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Downloader:
    """Fetches pictures one after another; keeps connections and what each site allows. Close it after use."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._wire = Wire(
            connect_s=self.policy.connect_s,
            read_s=self.policy.read_s,
            allow_private=self.policy.allow_private_addresses,
        )
        self._pool = httpcore.ConnectionPool(
            ssl_context=_authorities(os.environ.get("SSL_CERT_FILE")),
            network_backend=self._wire,
            max_connections=8,
            keepalive_expiry=5.0,
        )
        self._sites: OrderedDict[str, _Site] = OrderedDict()
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._jitter = random.Random()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    def fetch(self, url: str, known: Mapping[str, str] | None = None) -> Download:
        """The picture behind an address.

        Args:
            url: the address.
            known: what `Download.said` was when its picture came, so that the same one need not come again.

        Raises:
            GoneError: DOWNLOAD_FAILED, since the host says that nothing is there.
            InputError: DOWNLOAD_FAILED (address refused, no answer, an error status, no picture), TOO_LARGE,
                EMPTY_FILE, OPTED_OUT (the detail names the rule). Nothing else, whatever comes.
        """
        budget = self._wire.budget = Budget(self.policy.deadline_s)
        address = self._address(url)
        for _ in range(self.policy.max_redirects + 1):
            site = self._known_site(address, budget)
            site.check(address)
            conditions = _conditions(known or {}, address)
            answer = self._try_often(address, budget, self.policy.max_bytes, site.delay_s, conditions=conditions)
            if answer.redirect is None:
                data = self._checked(answer, site, address, may_be_known=bool(conditions))
                return Download(data, address.text, _said(answer, address, known if data is None else None))
            address = self._address(answer.redirect, address)
        raise InputError(Reason.DOWNLOAD_FAILED, f"more than {self.policy.max_redirects} redirects")

    def answer(self, url: str, budget: Budget) -> Answer:
        """What an interface for programs answers, whatever its status; see `_interface` for what is not asked there.

        Raises:
            InputError: DOWNLOAD_FAILED, TOO_LARGE, as `fetch`.
        """
        self._wire.budget = budget
        address = self._address(url)
        for _ in range(self.policy.max_redirects + 1):
            answer = self._try_often(address, budget, self.policy.max_bytes, 0.0)
            if answer.redirect is None:
                return answer
            address = self._address(answer.redirect, address)
        raise InputError(Reason.DOWNLOAD_FAILED, f"more than {self.policy.max_redirects} redirects")

    def _checked(self, answer: Answer, site: _Site, address: Address, *, may_be_known: bool) -> bytes | None:
        """The picture of an answer, if it is one that may be taken; None where it is the one that was known."""
        is_known = may_be_known and answer.status == _NOT_MODIFIED
        if answer.status in _GONE:
            raise GoneError(Reason.DOWNLOAD_FAILED, f"status {answer.status}")
        if answer.status != _OK and not is_known:
            raise InputError(Reason.DOWNLOAD_FAILED, f"status {answer.status}")
        if rule := header_rule(answer.headers):
            raise InputError(Reason.OPTED_OUT, rule)
        if tdm_header(answer.headers) is None and tdm_forbids(site.tdm, address.target):
            raise InputError(Reason.OPTED_OUT, "tdmrep.json")
        if is_known:
            return None
        if not answer.body:
            raise InputError(Reason.EMPTY_FILE)
        if sniff(answer.body[:_SNIFFED_BYTES]) is None:
            raise InputError(Reason.DOWNLOAD_FAILED, _no_picture(answer))
        if rule := embedded_rule(answer.body):
            raise InputError(Reason.OPTED_OUT, rule)
        return answer.body

    def _known_site(self, address: Address, budget: Budget) -> _Site:
        """What the site of an address allows; asked once a day, and soon again where it could not say."""
        site = self._sites.pop(address.site, None)
        if site is None or time.monotonic() >= site.until:
            site = self._ask_site(address, budget)
        self._sites[address.site] = site
        while len(self._sites) > _KNOWN_SITES:
            self._sites.popitem(last=False)
        if site.refusal:
            raise InputError(Reason.DOWNLOAD_FAILED, site.refusal)
        return site

    def _ask_site(self, address: Address, budget: Budget) -> _Site:
        """Asks for the files in which a site says what it allows. Only a robots.txt that fails shuts us out."""
        now = time.monotonic()
        try:
            robots = self._site_file(address, "/robots.txt", budget, tries=self.policy.tries)
        except InputError as problem:
            refusal = f"{problem.detail} (asked for robots.txt, without which nothing is fetched)"
            return _Site(refusal=refusal, until=now + _REFUSED_S)
        rules = RobotRules(robots)
        if rules.crawl_delay_s > self.policy.max_crawl_delay_s:
            asked, most = rules.crawl_delay_s, self.policy.max_crawl_delay_s
            refusal = f"robots.txt asks for {asked:g} s between two requests; at most {most:g} s are waited"
            return _Site(refusal=refusal, until=now + _KEPT_S)
        site = _Site(robots=rules, delay_s=rules.crawl_delay_s, until=now + _KEPT_S)
        if not rules.allow(address.text):
            return site  # no need to ask on
        site.ai = RobotRules(self._said(address, "/ai.txt", budget, site))
        site.forbids_training = trust_forbids(self._said(address, "/trust.txt", budget, site))
        site.tdm = self._said(address, "/.well-known/tdmrep.json", budget, site)
        return site

    def _said(self, address: Address, path: str, budget: Budget, site: _Site) -> bytes:
        """A file that a site need not have: without it, or without an answer soon, nothing is said."""
        self._keep_distance(address, budget, site.delay_s)
        part = self._wire.budget = budget.part(self.policy.connect_s)
        try:
            return self._site_file(address, path, part, tries=1)
        except InputError:
            budget.left_s()
            return b""
        finally:
            self._wire.budget = budget

    def _site_file(self, at: Address, path: str, budget: Budget, *, tries: int) -> bytes:
        """The beginning of a file of the site; empty where it has none (4xx), also behind redirects without end.

        Raises:
            InputError: DOWNLOAD_FAILED, no answer or one that says neither.
        """
        address = self._address(path, at)
        for _ in range(_ROBOTS_REDIRECTS + 1):
            answer = self._try_often(address, budget, ROBOTS_BYTES + 1, 0.0, tries=tries, cut=True)
            if answer.redirect is None:
                if 200 <= answer.status < 300:
                    return answer.body
                if 400 <= answer.status < 500:
                    return b""
                raise InputError(Reason.DOWNLOAD_FAILED, f"status {answer.status}")
            address = self._address(answer.redirect, address)
        return b""

    def _try_often(
        self,
        address: Address,
        budget: Budget,
        max_bytes: int,
        delay_s: float,
        *,
        tries: int | None = None,
        cut: bool = False,
        conditions: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        """An answer that is worth looking at: a host that is busy, or that breaks off, is asked again."""
        most = self.policy.tries if tries is None else tries
        for attempt in range(most):
            self._keep_distance(address, budget, delay_s)
            try:
                return self._try(address, budget, max_bytes, cut=cut, conditions=conditions)
            except (_TryAgain, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
                pause = self._jitter.uniform(0, self.policy.pause_s * 2**attempt)
                if isinstance(error, _TryAgain) and error.after_s is not None:
                    pause = error.after_s
                if attempt + 1 == most or pause >= budget.left_s():
                    what = str(error)[:_TOLD_CHARACTERS] or type(error).__name__
                    raise InputError(Reason.DOWNLOAD_FAILED, f"{what}, {attempt + 1} tries") from error
                time.sleep(pause)
            # httpcore lets through what its parts raise that it did not think of: bytes of strangers are no defect here
            except (OSError, ValueError, RuntimeError) as error:
                raise InputError(
                    Reason.DOWNLOAD_FAILED, f"{type(error).__name__}: {error!s:.{_TOLD_CHARACTERS}}"
                ) from error
        raise AssertionError("the last try returns or raises")

    def _keep_distance(self, address: Address, budget: Budget, delay_s: float) -> None:
        """Waits until the site's Crawl-delay has passed since it was asked last."""
        now = time.monotonic()
        pause = self._asked.pop(address.site, -delay_s) + delay_s - now if delay_s else 0.0
        if pause > 0:
            budget.wait(pause)
        self._asked[address.site] = time.monotonic()
        while len(self._asked) > _KNOWN_SITES:
            self._asked.popitem(last=False)

    def _try(
        self, address: Address, budget: Budget, max_bytes: int, *, cut: bool, conditions: Sequence[tuple[str, str]]
    ) -> Answer:
        budget.allow_bytes(2 * max_bytes + _AROUND_BYTES)
        url = httpcore.URL(scheme=address.scheme, host=address.host, port=address.port, target=address.target)
        headers = [
            ("User-Agent", self.policy.user_agent),
            ("Accept", "text/plain,*/*;q=0.5" if cut else "image/*,*/*;q=0.5"),
            ("Accept-Encoding", "identity"),  # pictures are compressed already, and packed bytes can explode
            *conditions,
        ]
        with self._pool.stream("GET", url, headers=headers) as response:
            answer = Answer(
                response.status, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
            )
            if response.status in _REDIRECTS and (answer.redirect or cut):
                return answer
            if response.status in _RETRIED:
                raise _TryAgain(f"status {response.status}", retry_after_s(answer.header("retry-after")))
            if 200 <= response.status < 300:
                answer.body = self._body(response, answer.header("content-length"), budget, max_bytes, cut=cut)
            elif response.status in _REDIRECTS:
                raise InputError(Reason.DOWNLOAD_FAILED, f"status {response.status} without Location")
            return answer

    def _body(self, response: httpcore.Response, stated: str, budget: Budget, max_bytes: int, *, cut: bool) -> bytes:
        if not cut and re.fullmatch("[0-9]{1,19}", stated) and int(stated) > max_bytes:
            raise InputError(Reason.TOO_LARGE, f"{stated} bytes, limit {max_bytes}")
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > max_bytes:
                if cut:
                    return bytes(body[:max_bytes])
                raise InputError(Reason.TOO_LARGE, f"more than {max_bytes} bytes")
            budget.left_s()  # what lies in our buffer already needs no wait that would end
        return bytes(body)

    def _address(self, text: str, base: Address | None = None) -> Address:
        """An address in parts, of which all has been checked that can be without looking its name up.

        Raises:
            InputError: DOWNLOAD_FAILED with what is wrong.
        """
        try:
            url = httpx.URL(text) if base is None else httpx.URL(base.text).join(text)
            host, target = url.raw_host.decode("ascii"), url.raw_path.decode("ascii")
            port = url.port or (443 if url.scheme == "https" else 80)
            shown = str(url.copy_with(fragment=None))
        except (httpx.InvalidURL, ValueError) as error:  # IDNA's errors are ValueErrors
            raise InputError(Reason.DOWNLOAD_FAILED, f"not an address: {error!s:.{_TOLD_CHARACTERS}}") from error
        if url.scheme not in ("http", "https"):
            raise InputError(Reason.DOWNLOAD_FAILED, f"scheme {url.scheme or 'none'!r}, only http and https")
        if not host or url.userinfo:
            raise InputError(Reason.DOWNLOAD_FAILED, "no host, or credentials in the address")
        if not self.policy.allow_private_addresses and port not in (80, 443):
            raise InputError(Reason.DOWNLOAD_FAILED, f"port {port}, only 80 and 443")
        return Address(url.scheme, host.strip("[]"), port, target, shown)


@lru_cache(maxsize=4)
def _authorities(own: str | None) -> ssl.SSLContext:
    """Whose certificates count; read once, since that takes 40 ms and each thread has a downloader.

    Args:
        own: SSL_CERT_FILE, how a company's own authority is named; certifi's list works without any system package.
    """
    return ssl.create_default_context(cafile=own or certifi.where())


@dataclass
class Answer:
    """The status, the headers as they came, and the body where it is one that is read."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, wanted: str) -> str:
        """The first header of that name (lower case); empty where there is none."""
        return next((value for name, value in self.headers if name.lower() == wanted), "")

    @property
    def redirect(self) -> str | None:
        """Where a redirect leads: bytes that are no ASCII are what browsers take them for, UTF-8 in percent signs."""
        place = self.header("location").strip()
        return (
            quote(place.encode("latin-1"), safe="%/:=&?~#+!$,;'@()*[]") if self.status in _REDIRECTS and place else None
        )


@dataclass
class _Site:
    """What a site allows, and until when that is believed; `refusal`: why nothing of it is fetched at all."""

    until: float
    refusal: str = ""
    robots: RobotRules = field(default_factory=lambda: RobotRules(b""))
    ai: RobotRules = field(default_factory=lambda: RobotRules(b""))
    delay_s: float = 0.0
    forbids_training: bool = False
    tdm: bytes = b""

    def check(self, address: Address) -> None:
        """Raises InputError, OPTED_OUT, where one of the site's files says so."""
        for name, forbids in (
            ("robots.txt", not self.robots.allow(address.text)),
            ("ai.txt", not self.ai.allow(address.text)),
            ("trust.txt: datatrainingallowed=no", self.forbids_training),
        ):
            if forbids:
                raise InputError(Reason.OPTED_OUT, name)


def _said(answer: Answer, address: Address, before: Mapping[str, str] | None) -> dict[str, str]:
    """The validators of an answer (RFC 9110, 8.8), which hold for one address only; those of before where 304 has none.

    The address is told by its hash: what must be found when it is forgotten lies in no file beside the tables.
    """
    said = {name: value for name in _CONDITIONS if _is_plain(value := answer.header(name))}
    return {**(before or {}), **said, "at": _place(address)} if said or before else {}


def _conditions(known: Mapping[str, str], address: Address) -> list[tuple[str, str]]:
    if known.get("at") != _place(address):
        return []  # what another address said of its picture tells nothing of this one's
    return [(header, known[name]) for name, header in _CONDITIONS.items() if _is_plain(known.get(name, ""))]


def _place(address: Address) -> str:
    return hashlib.sha256(address.text.encode()).hexdigest()


def _is_plain(value: str) -> bool:
    """Whether a validator can be sent back: bytes of strangers go into our request."""
    return re.fullmatch(r"[!-~][ -~]{0,499}", value) is not None


class _TryAgain(Exception):
    def __init__(self, message: str, after_s: float | None) -> None:
        super().__init__(message)
        self.after_s = after_s


def _no_picture(answer: Answer) -> str:
    packed = answer.header("content-encoding")
    told = f" (packed as {packed[:40]}, though not asked to be)" if packed and packed.lower() != "identity" else ""
    return f"what came is not a picture{told}"


def retry_after_s(value: str) -> float | None:
    """The header Retry-After in seconds, stated as a number or a date; None where it is neither."""
    if re.fullmatch("[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value)
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
