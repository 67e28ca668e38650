"""The downloader against a server on loopback: limits, refusals, retries and opt-outs."""

import itertools
import threading

import httpx
import numpy as np
import pytest

from facemill.errors import InputError
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources._download import Downloader, Policy, checked_address, opt_out

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


def test_a_public_address_passes_and_is_the_one_to_connect_to() -> None:
    assert checked_address(httpx.URL("https://8.8.8.8/a.jpg")) == "8.8.8.8"


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
    ("value", "rule"),
    [
        ("max-snippet: 20, noai", "X-Robots-Tag: noai"),
        ("otherbot: noai", None),
        ("facemill: noindex", "X-Robots-Tag: noindex"),
        ("all", None),
    ],
)
def test_a_rule_for_another_robot_is_not_ours(value: str, rule: str | None) -> None:
    assert opt_out(httpx.Headers({"X-Robots-Tag": value})) == rule


def test_the_text_mining_reservation_is_an_opt_out() -> None:
    assert opt_out(httpx.Headers({"tdm-reservation": "1"})) == "tdm-reservation: 1"


def test_a_certificate_of_nobody_is_refused(https_site) -> None:
    assert _reason(https_site.put("/a.jpg", PICTURE))[0] is Reason.DOWNLOAD_FAILED


def test_a_certificate_of_a_named_authority_is_taken(https_site, monkeypatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(https_site.authority))
    assert _fetch(https_site.put("/a.jpg", PICTURE)) == PICTURE
