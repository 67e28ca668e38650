"""Openverse: a local server that answers as its API documents it, its limits, and fields of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facemill.errors import FacemillError
from facemill.picture_licences import licence_of
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import Surroundings, Unit, fetch, find
from facemill.sources.openverse import OpenverseSource

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
BY = "https://creativecommons.org/licenses/by/2.0/"


def plan(api: str, *, collected: tuple[str, ...] = (), **options: Any) -> Unit:
    source = OpenverseSource(
        **{"query": "anna", "api": api, "allow_private_addresses": True, "deadline_s": 20.0} | options
    )
    [unit] = source.plan("anna", "sample", Surroundings(collected=collected))
    return unit


def result(url: str, **fields: object) -> dict[str, Any]:
    """A picture as Openverse describes it, in the fields that are read."""
    stated = {"license": "by", "license_version": "2.0", "license_url": BY, "creator": "Bö"}
    return {"id": "4bc43a04", "url": url, "foreign_landing_url": f"{url}/page", **stated, **fields}


def answer(*results: dict[str, Any], page_count: object = 1) -> dict[str, Any]:
    return {"result_count": len(results), "page_count": page_count, "page_size": 20, "page": 1, "results": [*results]}


def test_pictures_come_with_licence_author_and_page_and_a_dead_one_is_a_row(site) -> None:
    good, gone = site.put("/1.jpg", PICTURE), f"{site.url}/gone.jpg"
    api = site.interface("/v1/images/", lambda asked: answer(result(good), result(gone)))
    first, second = fetch(
        plan(api, licences=["CC-BY-2.0", "cc0"], collections=["flickr", "nasa"], contact="https://us.example/")
    )
    assert (first.data, first.licence, first.author, first.page) == (PICTURE, BY, "Bö", f"{good}/page")
    assert (second.url, second.error, second.detail) == (gone, Reason.DOWNLOAD_FAILED, "status 404")
    [(asked, headers)] = site.asked
    assert asked == {"q": "anna", "page_size": "20", "license": "by,cc0", "source": "flickr,nasa", "page": "1"}
    assert headers["User-Agent"].startswith("facemill/0.1 (https://us.example/; ")


def test_pages_are_read_as_far_as_is_wanted_and_the_last_one_says(site) -> None:
    def answers(asked: dict[str, str]) -> dict[str, Any]:
        page = int(asked["page"])
        return answer(*(result(f"https://a.example/{page}-{n}.jpg") for n in range(20)), page_count=3)

    api = site.interface("/v1/images/", answers)
    assert len(find(plan(api, limit=400))) == 60
    assert [asked["page"] for asked, _ in site.asked] == ["1", "2", "3"]
    assert len(find(plan(api, limit=25, collected=("https://a.example/1-0.jpg",)))) == 24
    assert len(site.asked) == 5


def test_pages_without_end_end(site) -> None:
    again = answer(result("https://a.example/1.jpg"), page_count=10**9)
    assert len(find(plan(site.interface("/v1/images/", lambda asked: again)))) == 1
    assert len(site.asked) == 50


def test_a_limit_that_passes_is_waited_for_and_another_keeps_what_was_found(site) -> None:
    said = iter([429, answer(result("https://a.example/1.jpg"), page_count=9)])
    site.retry_after = "0"

    def answers(asked: dict[str, str]) -> Any:
        found = next(said, 429)
        site.retry_after = "0" if len(site.asked) < 2 else "3000"
        return found

    first, last = find(plan(site.interface("/v1/images/", answers)))
    assert first.key == "https://a.example/1.jpg"
    assert last.options["problem"] == ["search_failed", "broke off after 1: openverse:anna: status 429, 1 tries"]
    assert len(site.asked) == 3


def test_a_picture_under_another_version_of_a_licence_is_a_row(site) -> None:
    api = site.interface("/v1/images/", lambda asked: answer(result("https://a.example/1.jpg")))
    [unit] = find(plan(api, licences=["CC-BY-4.0"]))
    assert unit.options["problem"] == [Reason.UNWANTED_LICENCE, BY]


@pytest.mark.parametrize(
    ("code", "version", "name"),
    [
        ("by-nc-nd", "3.0", "CC-BY-NC-ND-3.0"),
        ("cc0", "1.0", "CC0-1.0"),
        ("pdm", "1.0", "CC-PDM-1.0"),
        ("by", "", "CC-BY"),
    ],
)
def test_a_licence_without_an_address_is_read_from_its_words(site, code: str, version: str, name: str) -> None:
    shown = result("https://a.example/1.jpg", license=code, license_version=version, license_url=None)
    [unit] = find(plan(site.interface("/v1/images/", lambda asked: answer(shown))))
    assert licence_of(unit.options["stated"]["licence"]).name == name


def test_a_licence_that_openverse_has_not_is_said_beforehand() -> None:
    with pytest.raises(FacemillError, match="'MIT' is no licence of Creative Commons"):
        plan("https://api.example/", licences=["MIT"])


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"detail": "Not found."}, "no results in the answer .Not found"),
        (401, "status 401"),
        (answer(), "nothing was found"),
        (b'{"results": [', "not JSON"),
    ],
)
def test_every_other_answer_is_an_error_for_a_person(site, said: Any, told: str) -> None:
    with pytest.raises(FacemillError, match=told):
        find(plan(site.interface("/v1/images/", lambda asked: said)))


ANYTHING = st.none() | st.integers() | st.text(max_size=20) | st.lists(st.none()) | st.just("https://a.example/x")
FIELDS = ("url", "foreign_landing_url", "license", "license_version", "license_url", "creator")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    results=st.lists(
        ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING)), min_size=20, max_size=40
    ),
    page_count=ANYTHING,
)
def test_no_field_is_too_odd(site, results: list[Any], page_count: Any) -> None:
    said = iter([{"results": results, "page_count": page_count}])
    api = site.interface("/v1/images/", lambda asked: next(said, answer()))
    try:
        units = find(plan(api))
    except FacemillError:
        return
    assert [unit.key for unit in units] == ["https://a.example/x"]
