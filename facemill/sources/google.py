"""Source `google`: addresses found by google-images-download, pictures fetched by our own downloader.

The library drives Chrome, prints, sleeps 20–40 s for a search and calls `sys.exit`. It runs in a process group of its
own with a deadline, and the whole group, browsers included, is ended afterwards. It only finds addresses:
`facemill.sources._download` fetches them, under limits and opt-outs.

Nothing is known about the licence of what it finds, and searching by machine is against Google's terms of service:
see docs. The row says `licence: unknown`.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from facemill.errors import FacemillError
from facemill.patience import PICTURE_SEARCH
from facemill.processes import end_group
from facemill.sources import Item, StatedPath, Surroundings, Unit, register
from facemill.sources._addresses import AddressSource, address_unit, fetch_address, host_of, is_address
from facemill.sources._opt_outs import AGENT

_TOLD_LINES = 4
_PAGE_BYTES = 50_000_000
_AGENT = f"{AGENT}/0.1"
_ENTRY = re.compile(
    r'\["(?P<picture>https?:[^"\s]{1,4000})",\s*\d{1,6},\s*\d{1,6}\]'
    r'|"2003":\[null,"[^"]{0,200}","(?P<page>https?:[^"\s]{1,4000})"'
)
UNKNOWN_LICENCE = "unknown"


@register
@dataclass(frozen=True, kw_only=True)
class GoogleSource(AddressSource):
    """Pictures that Google's picture search finds."""

    kind: Literal["google"] = "google"
    query: Annotated[str, Field(min_length=1)]
    """The words that the picture search is asked for."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    """At most so many pictures are taken of what the search finds."""
    deadline_s: Annotated[float, Field(gt=0)] = PICTURE_SEARCH.deadline_s
    """The search is ended after so many seconds; downloads have deadlines of their own."""
    result_url: str | None = None
    """A result page to read instead of Google's own, for a mirror or a test."""
    chromedriver: StatedPath | None = None
    """Path of chromedriver, by default the one on PATH."""
    allow_private_addresses: bool = False
    """Downloads from loopback and private networks are refused unless this is set."""

    @property
    def stated_licence(self) -> str:
        """Nobody knows it: every picture keeps its owner's."""
        return UNKNOWN_LICENCE

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """A single unit, since a search cannot be divided."""
        url = self.result_url
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise FacemillError(f"result_url {url!r} (identity {identity}) must begin with http:// or https://")
        options = {
            "query": self.query,
            "limit": self.limit,
            "deadline_s": self.deadline_s,
            "result_url": url,
            "chromedriver": None if self.chromedriver is None else str(around.place(self.chromedriver)),
            "allow_private_addresses": self.allow_private_addresses,
            "max_file_bytes": around.max_file_bytes,
            "skip": list(around.collected),
        }
        key = f"google:{self.query}"
        return [Unit(identity=identity, role=role, source=self.kind, key=key, single=False, options=options)]

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The picture of an address, or the reason why there is none."""
        return fetch_address(unit)

    @staticmethod
    def find(unit: Unit) -> list[Unit]:
        """One unit for each address that was not collected before.

        Raises:
            FacemillError: the search failed or found nothing; the message says what to install or change.
        """
        options = unit.options
        if is_address(unit):
            return [unit]
        found = search(
            options["query"],
            limit=options["limit"],
            deadline_s=options["deadline_s"],
            result_url=options["result_url"],
            chromedriver=options["chromedriver"],
        )
        skip = set(options["skip"])
        return [address_unit(unit, url, page=page, licence=UNKNOWN_LICENCE) for url, page in found if url not in skip]


def search(
    query: str,
    *,
    limit: int,
    deadline_s: float,
    result_url: str | None = None,
    chromedriver: str | None = None,
) -> list[tuple[str, str]]:
    """Addresses of pictures and of the pages that show them ("" where unknown), in the order of the result page.

    Args:
        query: what to search for.
        limit: at most so many.
        deadline_s: the search is ended after so long.
        result_url: a page to read instead of Google's.
        chromedriver: path of chromedriver; by default the one on PATH.

    Raises:
        FacemillError: no chromedriver or Chrome, deadline passed, the library failed, or its page had nothing.
    """
    driver = _find_chromedriver(chromedriver)
    request = {"query": query, "limit": limit, "result_url": result_url, "chromedriver": driver, "agent": _AGENT}
    with tempfile.TemporaryDirectory(prefix="facemill-google-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        code, told = _run_worker(folder, deadline_s)
        page, logs = _page(folder), sorted((folder / "logs").glob("*.json"))
        if code is None:
            raise FacemillError(
                f"google: the search for {query!r} was not finished within {deadline_s:g} s and was ended: raise the "
                "source's deadline_s, or try again when the network is better"
            )
        if code != 0 or not (page or logs):
            raise FacemillError(_failure(query, code, told))
        found = read_page(page) if page else _read_logs(logs)
    if not found:
        raise FacemillError(f"google: the result page for {query!r} {_why_nothing(page)}")
    return found[:limit]


def read_page(page: str) -> list[tuple[str, str]]:
    """Addresses of pictures and of the pages that show them ("" where unknown), in a result page's own order.

    A picture is written as `["address", height, width]`, whatever its address ends in: first Google's thumbnail, then
    the picture, then under "2003" the page that shows it. Google's own hosts hold thumbnails, logos and icons.
    """
    found: dict[str, str] = {}
    last = ""
    for match in _ENTRY.finditer(page):
        if match["page"] is not None:
            if last:
                found[last] = found[last] or _address(match["page"])
            continue
        url = _address(match["picture"])
        if url and not _is_googles(url):
            last = url
            found.setdefault(url, "")
    return list(found.items())


def _address(text: str) -> str:
    address = _unescape(text)
    return address if re.fullmatch(r"https?://\S+", address) else ""


def _is_googles(url: str) -> bool:
    return re.search(r"(^|\.)(google(\.[a-z]+)+|gstatic\.com|googleusercontent\.com)$", host_of(url)) is not None


def _why_nothing(page: str) -> str:
    """Why a page holds no pictures, with what to do."""
    by_hand = "collect the pictures by hand into a folder and use a source of `kind: folder`"
    if re.search(r"https://consent\.google\.[a-z.]+/", page):
        return f"is one that asks for consent to cookies, which is a person's to give; {by_hand}"
    if "captcha-form" in page or re.search(r"google\.[a-z.]+/sorry/", page):
        return f"is one that asks whether a person is there (unusual traffic); search less often, or {by_hand}"
    return f"held no pictures; try other words. If there are some, Google has changed the page: {by_hand}"


def _page(folder: Path) -> str:
    """The beginning of the result page that the worker has kept; empty where there is none."""
    try:
        with (folder / "page.html").open("rb") as stream:
            return stream.read(_PAGE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _find_chromedriver(stated: str | None) -> str:
    if stated is not None and not os.access(stated, os.X_OK):
        raise FacemillError(
            f"google: chromedriver {stated} is not there or may not be run; correct the source's chromedriver"
        )
    found = stated or shutil.which("chromedriver")
    if found is None:  # the library would download one and run it
        raise FacemillError(
            "google: no chromedriver on PATH: install Chrome and its driver "
            "(Debian: apt-get install chromium chromium-driver), or name one in the source's chromedriver"
        )
    return found


def _run_worker(folder: Path, deadline_s: float) -> tuple[int | None, str]:
    """Exit code (None: deadline) and the last lines that were printed. Ends the whole session in any case."""
    output = folder / "output.txt"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "HOME": str(folder),
    }
    with output.open("wb") as stream:  # a file, since a browser left behind would keep a pipe open
        worker = subprocess.Popen(
            [sys.executable, "-m", "facemill.sources._google_worker", str(folder / "request.json")],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = worker.wait(deadline_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # chromedriver puts Chrome into another group, but not into another session
            end_group(worker, 0, whole_session=True)
    lines = [line for line in output.read_text("utf-8", "replace").splitlines() if line.strip()]
    return code, "\n".join(lines[-_TOLD_LINES:])


def _failure(query: str, code: int | None, told: str) -> str:
    if "cannot locate the path" in told:
        remedy = (
            "install Chrome and the chromedriver of the same version (Debian: apt-get install chromium chromium-driver)"
        )
    elif code == 3:
        remedy = "pip install 'google-images-download>=3.0.1'"
    elif "net::ERR" in told:
        remedy = "the result page could not be loaded: check the network and the source's result_url"
    else:
        remedy = "try again later, or use a source of `kind: folder`"
    return f"google: the search for {query!r} failed ({remedy}). The library's last words:\n{told or '(nothing)'}"


def _read_logs(logs: list[Path]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for path in logs:
        try:
            entries: Any = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            entries = []
        for entry in entries if isinstance(entries, list) else []:
            url, page = entry.get("image_link"), entry.get("image_source")
            if isinstance(url, str) and url:
                found.setdefault(_unescape(url), _unescape(page) if isinstance(page, str) else "")
    return list(found.items())


def _unescape(text: str) -> str:
    r"""The page's script spells `=` as `\u003d` and HTML spells `&` as `&amp;`; the library leaves both."""
    return html.unescape(re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match.group(1), 16)), text))
