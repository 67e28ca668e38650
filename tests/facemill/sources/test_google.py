"""google-images-download in its own process: every way in which it ends, and once for real with Chromium."""

import os
import shutil
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from facemill.errors import FacemillError
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import Surroundings, Unit, fetch
from facemill.sources.google import GoogleSource, read_page, search

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
WRITE_LOG = """
os.makedirs("logs")
json.dump({entries}, open("logs/q.json", "w"))
"""
WRITE_PAGE = 'open("page.html", "w").write({page!r})'


def plan(collected: tuple[str, ...] = (), **options: object) -> list[Unit]:
    return GoogleSource(**options).plan("anna", "sample", Surroundings(collected=collected))


@pytest.fixture
def driver(tmp_path: Path) -> str:
    """A file that may be run: the stand-in never does."""
    path = tmp_path / "chromedriver"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_found_addresses_are_fetched_by_our_own_downloader(site, library, driver, tmp_path: Path) -> None:
    good, gone = site.put("/a.jpg?x=1&y=2", PICTURE), site.url + "/gone.jpg"
    entries = [
        {"image_link": good.replace("&", "\\u0026"), "image_source": "https://example.org/page"},
        {"image_link": gone, "image_source": ""},
        {"image_link": good, "image_source": ""},
    ]
    library(WRITE_LOG.format(entries=entries))
    [unit] = plan(query="anna, smiling", chromedriver=driver, allow_private_addresses=True)
    items = list(fetch(unit))
    assert [(item.url, item.error) for item in items] == [(good, None), (gone, Reason.DOWNLOAD_FAILED)]
    assert (items[0].data, items[0].page, items[0].licence) == (PICTURE, "https://example.org/page", "unknown")


def test_addresses_of_an_earlier_run_are_not_fetched_again(site, library, driver, tmp_path: Path) -> None:
    url = site.put("/a.jpg", PICTURE)
    library(WRITE_LOG.format(entries=[{"image_link": url}]))
    [unit] = plan(query="anna", chromedriver=driver, collected=(url,))
    assert list(fetch(unit)) == []
    assert site.visits == {}


def test_at_the_deadline_the_browser_ends_too(library, driver, tmp_path: Path) -> None:
    """Chrome runs in a process group of its own, which a kill of the library's group alone would leave behind."""
    note = tmp_path / "pid"
    library(
        "browser = subprocess.Popen(['sleep', '600'], process_group=0)\n"
        f"open({str(note)!r}, 'w').write(str(browser.pid))\n"
        "time.sleep(600)"
    )
    with pytest.raises(FacemillError, match=r"not finished within 3 s.*deadline_s"):
        search("anna", limit=3, deadline_s=3, chromedriver=driver)
    assert _ended(int(note.read_text()))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('cannot locate the path of chrome'); sys.exit()", "install Chrome and the chromedriver"),
        ("raise RuntimeError('net::ERR_NAME_NOT_RESOLVED')", "could not be loaded"),
        ("raise TypeError('changed')", "TypeError: changed"),
        (WRITE_LOG.format(entries=[]), "held no pictures"),
        (WRITE_PAGE.format(page="<form action='https://consent.google.de/save'>"), "asks for consent"),
        (WRITE_PAGE.format(page="<form id='captcha-form'>"), "unusual traffic"),
        (WRITE_PAGE.format(page="<p>Nothing for these words</p>"), "held no pictures; try other words"),
    ],
)
def test_every_other_end_is_an_error_with_a_remedy(library, driver, body: str, message: str) -> None:
    library(body)
    with pytest.raises(FacemillError, match=message):
        search("anna", limit=3, deadline_s=60, chromedriver=driver)


def test_a_missing_driver_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FacemillError, match="apt-get install chromium chromium-driver"):
        search("anna", limit=3, deadline_s=1)
    with pytest.raises(FacemillError, match="/nowhere/chromedriver is not there"):
        search("anna", limit=3, deadline_s=1, chromedriver="/nowhere/chromedriver")


def test_a_result_page_must_be_a_web_address(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="result_url"):
        plan(query="anna", result_url="page.html")


def test_a_page_is_read_by_where_addresses_stand_and_not_by_how_they_end() -> None:
    thumb = '["https://encrypted-tbn0.gstatic.com/images?q\\u003dtbn:a",183,275]'
    page = (
        '["https://www.google.com/logo.png",92,272] ["https://fonts.gstatic.com/icon.svg",24,24]'
        f'[1,[0,"id",{thumb},["https://a.example/photo?id\\u003d7\\u0026w=1",1200,800],null,0,"rgb(1,2,3)",'
        '{"2003":[null,"ref","https://a.example/page","A title"]}]]'
        f'[1,[0,"id",{thumb},["https://b.example/2.jpg",90,80],null,{{"2003":[null,"ref","javascript:x"]}}]]'
        f'[1,[0,"id",{thumb},["https://a.example/photo?id\\u003d7\\u0026w=1",1200,800]]]'
        '"https://c.example/banner.png" ["https://d.example/x.jpg","no size"]'
    )
    assert read_page(page) == [
        ("https://a.example/photo?id=7&w=1", "https://a.example/page"),
        ("https://b.example/2.jpg", ""),
    ]


@pytest.mark.skipif(
    not (shutil.which("chromedriver") and shutil.which("chromium")),
    reason="wants Chromium and its driver: apt-get install chromium chromium-driver",
)
def test_chromium_reads_a_result_page_and_its_pictures_are_collected(site, https_site, tmp_path, monkeypatch) -> None:
    """The real library with the real browser, 20–30 s of it asleep; a page on loopback stands in for Google's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(https_site.authority))
    urls = [https_site.put(f"/{name}.jpg", PICTURE) for name in ("one", "two", "three")]
    entries = ",".join(f'["{url}",480,640]' for url in urls)
    script = f"var data = [{entries}]; fetch('/driven?' + navigator.webdriver + navigator.userAgent)"
    page = f"<html><body><p>Results</p><script>{script}</script></body></html>".encode()
    result = site.put("/search", page, Content_Type="text/html")
    [unit] = plan(query="anna", limit=2, result_url=result, allow_private_addresses=True)
    items = list(fetch(unit))
    assert [(item.url, item.data) for item in items] == [(url, PICTURE) for url in urls[:2]]
    assert "/search" in site.visits
    [told] = [unquote(path) for path in site.visits if path.startswith("/driven?")]
    assert told.startswith("/driven?trueMozilla/5.0")
    assert "HeadlessChrome" in told
    assert told.endswith(" facemill/0.1")


def _ended(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # dead, and nobody has asked for its exit code yet
        time.sleep(0.01)
    return False
