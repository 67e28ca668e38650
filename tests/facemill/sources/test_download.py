"""The downloader against a server on loopback: limits, refusals, retries and opt-outs."""

import gzip
import itertools
import threading
import time

import numpy as np
import pytest

from facemill.errors import InputError
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources._download import Downloader, Policy, retry_after_s

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))


def _fetch(url: str, **limits: float) -> bytes:
    with Downloader(Policy(allow_private_addresses=True, pause_s=0.01, **limits)) as downloader:
        return downloader.fetch(url).data


def _reason(url: str, **limits: float) -> tuple[Reason, str]:
    with pytest.raises(InputError) as found:
        _fetch(url, **limits)
    return found.value.reason, found.value.detail


def test_a_picture_arrives_whole_whatever_its_header_says(site) -> None:
    assert _fetch(site.put("/a.jpg", PICTURE, Content_Type="text/html")) == PICTURE


@pytest.mark.parametrize(
    "url",
    [
        "ftp://8.8.8.8/a.jpg",
        "file:///etc/hostname",
        "a.jpg",
        "http://user:word@8.8.8.8/a.jpg",
        "http://8.8.8.8:22/a.jpg",
        "http://127.0.0.1/a.jpg",
        "http://[::1]/a.jpg",
        "http://10.1.2.3/a.jpg",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:192.168.0.1]/a.jpg",
        "http://0.0.0.0/a.jpg",
        "http://224.0.0.1/a.jpg",
    ],
)
def test_addresses_that_point_inwards_or_elsewhere_are_refused(url: str) -> None:
    with Downloader() as downloader, pytest.raises(InputError) as found:
        downloader.fetch(url)
    assert found.value.reason is Reason.DOWNLOAD_FAILED


def test_a_redirect_is_followed_and_checked_again(site) -> None:
    site.put("/a.jpg", PICTURE)
    assert _fetch(site.put("/old", b"", 302, Location="/a.jpg")) == PICTURE
    reason, detail = _reason(site.put("/out", b"", 302, Location="file:///etc/hostname"))
    assert (reason, "scheme" in detail) == (Reason.DOWNLOAD_FAILED, True)


def test_a_circle_of_redirects_ends(site) -> None:
    assert _reason(site.put("/round", b"", 302, Location="/round"))[1] == "more than 3 redirects"


def test_too_many_bytes_are_an_error_stated_or_not(site) -> None:
    assert _reason(site.put("/a.jpg", PICTURE), max_bytes=100)[0] is Reason.TOO_LARGE

    def unstated(request) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(PICTURE)

    site.answers["/b.jpg"] = unstated
    assert _reason(site.url + "/b.jpg", max_bytes=100)[0] is Reason.TOO_LARGE


def test_a_host_that_drips_is_left_at_the_deadline(site) -> None:
    gone = threading.Event()

    def drip(request) -> None:
        request.send_response(200)
        request.end_headers()
        while not gone.wait(0.02):
            request.wfile.write(b"\xff")
            request.wfile.flush()

    site.answers["/slow.jpg"] = drip
    reason, detail = _reason(site.url + "/slow.jpg", deadline_s=0.3)
    gone.set()
    assert (reason, detail) == (Reason.DOWNLOAD_FAILED, "not finished within 0.3 s")


def test_a_busy_host_is_asked_again_when_it_says(site) -> None:
    answers = itertools.count()

    def busy_once(request) -> None:
        first = next(answers) == 0
        request.send_response(429 if first else 200)
        if first:
            request.send_header("Retry-After", "0")
        request.end_headers()
        request.wfile.write(b"" if first else PICTURE)

    site.answers["/a.jpg"] = busy_once
    assert _fetch(site.url + "/a.jpg") == PICTURE


def test_a_host_that_stays_broken_is_given_up_after_three_tries(site) -> None:
    assert _reason(site.put("/a.jpg", b"", 503)) == (Reason.DOWNLOAD_FAILED, "status 503, 3 tries")
    assert site.visits["/a.jpg"] == 3


def test_a_pause_longer_than_the_deadline_is_not_waited_for(site) -> None:
    url = site.put("/a.jpg", b"", 503, Retry_After="3600")
    assert _reason(url, deadline_s=5)[1] == "status 503, 1 tries"


def test_a_page_in_place_of_a_picture_is_said_so(site) -> None:
    assert _reason(site.put("/a.jpg", b"<html>no</html>"))[1] == "what came is not a picture"
    assert _reason(site.put("/b.jpg", b""))[0] is Reason.EMPTY_FILE
    assert _reason(site.url + "/gone.jpg")[1] == "status 404"


def test_opt_outs_are_obeyed_and_named(site) -> None:
    url = site.put("/a.jpg", PICTURE, X_Robots_Tag="noimageai")
    assert _reason(url) == (Reason.OPTED_OUT, "X-Robots-Tag: noimageai")
    site.put("/robots.txt", b"User-agent: *\nDisallow: /private/\n")
    assert _reason(site.put("/private/a.jpg", PICTURE)) == (Reason.OPTED_OUT, "robots.txt")
    assert _fetch(site.put("/open/a.jpg", PICTURE)) == PICTURE


@pytest.mark.parametrize(
    ("status", "headers", "detail"),
    [
        (304, {}, "status 304"),
        (302, {}, "status 302 without Location"),
        (302, {"Location": "http://xn--a/a.jpg"}, "host 'xn--a' is not known"),
        (302, {"Location": "http://[::1"}, "not an address"),
        (302, {"Location": "http://\xff\x00/"}, "illegal header line"),
        (429, {"Retry-After": "²"}, "status 429, 3 tries"),
        (429, {"Retry-After": "Mon, 99 Foo 99999 99:99:99 +9999999999"}, "status 429, 3 tries"),
        (206, {}, "status 206"),
        (204, {}, "status 204"),
        (999, {}, "status 999"),
    ],
)
def test_an_odd_answer_is_a_reason(site, status: int, headers: dict[str, str], detail: str) -> None:
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    reason, told = _reason(site.put("/a.jpg", b"", status, **named))
    assert reason is Reason.DOWNLOAD_FAILED
    assert told.startswith(detail)


def test_bytes_that_were_said_to_be_packed_are_taken_as_they_are(site) -> None:
    assert _fetch(site.put("/a.jpg", PICTURE, Content_Encoding="gzip")) == PICTURE
    bomb = gzip.compress(gzip.compress(bytes(50_000_000)))
    reason, detail = _reason(site.put("/b.jpg", bomb, Content_Encoding="gzip, gzip"))
    assert reason is Reason.DOWNLOAD_FAILED
    assert detail == "what came is not a picture (packed as gzip, gzip, though not asked to be)"


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), (" 7 ", 7.0), ("²", None), ("-1", None), ("", None)])
def test_a_pause_is_read_as_digits_or_not_at_all(value: str, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


def test_a_pause_until_a_date_that_has_passed_is_none() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_the_picture_s_own_word_is_obeyed(site) -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"/>'
    data = PICTURE[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + PICTURE[2:]
    assert _reason(site.put("/a.jpg", data)) == (Reason.OPTED_OUT, "plus:DataMining DMI-PROHIBITED")


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("/ai.txt", b"User-Agent: *\nDisallow: *.jpg\n", "ai.txt"),
        ("/trust.txt", b"# ours\ndatatrainingallowed=no\n", "trust.txt: datatrainingallowed=no"),
        ("/.well-known/tdmrep.json", b'[{"location": "/", "tdm-reservation": 1}]', "tdmrep.json"),
    ],
)
def test_the_site_s_other_files_are_obeyed(site, path: str, text: bytes, rule: str) -> None:
    url = site.put("/a.jpg", PICTURE)
    assert _fetch(url) == PICTURE
    site.put(path, text)
    assert _reason(url) == (Reason.OPTED_OUT, rule)


def test_a_header_that_reserves_nothing_stands_above_the_site_s_file(site) -> None:
    site.put("/.well-known/tdmrep.json", b'[{"location": "/", "tdm-reservation": 1}]')
    assert _fetch(site.put("/a.jpg", PICTURE, tdm_reservation="0")) == PICTURE


@pytest.mark.parametrize("status", [500, 503, 304, 302, 429])
def test_a_robots_txt_that_cannot_be_read_refuses(site, status: int) -> None:
    url = site.put("/a.jpg", PICTURE)
    site.put("/robots.txt", b"", status)
    reason, detail = _reason(url)
    assert reason is Reason.DOWNLOAD_FAILED
    assert detail.startswith(f"status {status}")
    assert detail.endswith("(asked for robots.txt, without which nothing is fetched)")
    assert "/a.jpg" not in site.visits


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_robots_txt_that_is_not_there_allows(site, status: int) -> None:
    site.put("/robots.txt", b"User-agent: *\nDisallow: /\n", status)
    assert _fetch(site.put("/a.jpg", PICTURE)) == PICTURE


def test_a_robots_txt_is_followed_to_where_it_lies(site) -> None:
    site.put("/rules", b"\xef\xbb\xbfUser-agent: *\nDisallow: /*.jpg$\nAllow: /open/*.jpg$\n")
    site.put("/robots.txt", b"", 301, Location="/rules")
    assert _reason(site.put("/a.jpg", PICTURE)) == (Reason.OPTED_OUT, "robots.txt")
    assert _fetch(site.put("/open/a.jpg", PICTURE)) == PICTURE


def test_a_redirect_is_judged_by_the_rules_of_where_it_leads(site) -> None:
    site.put("/robots.txt", b"User-agent: facemill\nDisallow: /shut\n\nUser-agent: *\nDisallow: /\n")
    site.put("/shut/a.jpg", PICTURE)
    assert _reason(site.put("/old", b"", 302, Location="/shut/a.jpg")) == (Reason.OPTED_OUT, "robots.txt")
    assert "/shut/a.jpg" not in site.visits


def test_a_crawl_delay_is_kept_and_one_without_end_is_not_waited_for(site) -> None:
    site.put("/robots.txt", b"User-agent: *\nCrawl-delay: 0.3\n")
    urls = [site.put(f"/{name}.jpg", PICTURE) for name in "ab"]
    begun = time.monotonic()
    with Downloader(Policy(allow_private_addresses=True, deadline_s=1)) as downloader:
        for url in urls:
            downloader.fetch(url)
        # robots.txt, the three other files and two pictures: five pauses, none of which is the pictures' time
        assert 1.5 <= time.monotonic() - begun < 5
    site.put("/robots.txt", b"User-agent: *\nCrawl-delay: 3600\n")
    reason, detail = _reason(urls[0])
    assert (reason, "3600 s between two requests" in detail) == (Reason.DOWNLOAD_FAILED, True)


def test_a_certificate_of_nobody_is_refused(https_site) -> None:
    assert _reason(https_site.put("/a.jpg", PICTURE))[0] is Reason.DOWNLOAD_FAILED


def test_a_certificate_of_a_named_authority_is_taken(https_site, monkeypatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(https_site.authority))
    assert _fetch(https_site.put("/a.jpg", PICTURE)) == PICTURE
