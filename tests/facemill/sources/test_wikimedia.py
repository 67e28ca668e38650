"""Wikimedia Commons: a local wiki that answers as MediaWiki documents it, and every way in which one can be odd."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facemill.errors import FacemillError
from facemill.picture_licences import licence_of
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import Item, Surroundings, Unit, fetch, find
from facemill.sources._interface import plain_text
from facemill.sources.wikimedia import WikimediaSource

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
BY_SA = "https://creativecommons.org/licenses/by-sa/4.0"


def plan(api: str, *, collected: tuple[str, ...] = (), **options: Any) -> Unit:
    source = WikimediaSource(
        **{"contact": "anna@example.org", "api": api, "allow_private_addresses": True, "deadline_s": 20.0} | options
    )
    [unit] = source.plan("anna", "sample", Surroundings(collected=collected))
    return unit


def file_page(name: str, url: str, index: int = 1, /, mime: str = "image/jpeg", **fields: object) -> dict[str, Any]:
    """A page of `query.pages` as MediaWiki describes a file."""
    stated = {"LicenseShortName": "CC BY-SA 4.0", "LicenseUrl": BY_SA, "Artist": "<a href='x'>Bö&nbsp;B.</a>"} | fields
    info = {
        "url": url,
        "descriptionurl": f"https://commons.example/wiki/File:{name}",
        "mime": mime,
        "extmetadata": {field: {"value": value, "source": "commons-desc-page"} for field, value in stated.items()},
    }
    return {"pageid": index, "ns": 6, "title": f"File:{name}", "index": index, "imageinfo": [info]}


def pages(*each: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"batchcomplete": True, "query": {"pages": list(each)}, **more}


def items(unit: Unit) -> list[Item]:
    return list(fetch(unit))


def test_a_search_gives_pictures_with_licence_author_and_page(site) -> None:
    first, second = site.put("/1.jpg", PICTURE), site.put("/2.jpg", PICTURE)
    # sorted by the page's number, as MediaWiki does; `index` is the place in the search
    api = site.interface("/w/api.php", lambda asked: pages(file_page("B.jpg", second, 2), file_page("A.jpg", first, 1)))
    found = items(plan(api, query="Anna Example", width_px=960))
    assert [(item.url, item.data, item.licence, item.author) for item in found] == [
        (first, PICTURE, BY_SA, "Bö B."),
        (second, PICTURE, BY_SA, "Bö B."),
    ]
    assert found[0].page == "https://commons.example/wiki/File:A.jpg"
    assert licence_of(found[0].licence).name == "CC-BY-SA-4.0"
    [(asked, headers)] = site.asked
    assert asked["gsrsearch"] == "filetype:bitmap Anna Example"
    assert (asked["maxlag"], asked["iiurlwidth"], asked["generator"]) == ("5", "960", "search")
    assert headers["User-Agent"].startswith("facemill/0.1 (anna@example.org; ")
    assert "/robots.txt" in site.visits  # of the pictures' host


def test_a_category_is_read_to_its_end_and_each_file_once(site) -> None:
    urls = [site.put(f"/{number}.jpg", PICTURE) for number in range(5)]

    def answers(asked: dict[str, str]) -> dict[str, Any]:
        start = int(asked.get("gcmcontinue", "file|0").partition("|")[2])
        # a file of which imageinfo did not fit comes again, and one that was moved meanwhile comes twice
        half = {"title": "File:later.jpg", "index": 9}
        more = {"continue": {"gcmcontinue": f"file|{start + 2}", "continue": "gcmcontinue||"}} if start < 4 else {}
        shown = [file_page(f"{at}.jpg", urls[at]) for at in range(max(0, start - 1), min(5, start + 2))]
        return pages(half, *shown, **more)

    unit = plan(site.interface("/w/api.php", answers), category="Category:Anna", collected=(urls[1],))
    assert [each.key for each in find(unit)] == [urls[0], *urls[2:]]
    assert site.asked[0][0]["gcmtitle"] == "Category:Anna"
    assert site.asked[1][0]["continue"] == "gcmcontinue||"
    assert len(find(plan(unit.options["api"], category="Anna", limit=2))) == 2


def test_named_files_are_asked_for_50_at_a_time_and_a_missing_one_is_a_row(site) -> None:
    def answers(asked: dict[str, str]) -> dict[str, Any]:
        titles = asked["titles"].split("|")
        return pages(
            *(file_page(title, f"{site.url}/{title[5:]}") for title in titles[1:]),
            {"title": titles[0], "missing": True},
        )

    names = [f"File:{number}.jpg" if number % 2 else f"{number}.jpg" for number in range(60)]
    units = find(plan(site.interface("/w/api.php", answers), files=names, limit=1000))
    assert [len(asked["titles"].split("|")) for asked, _ in site.asked] == [50, 10]
    missing = [item for unit in units if "problem" in unit.options for item in fetch(unit)]
    assert [(item.url, item.error) for item in missing] == [
        ("wikimedia:File:0.jpg", Reason.OTHER_KIND),
        ("wikimedia:File:50.jpg", Reason.OTHER_KIND),
    ]
    assert len(units) == 60


def test_a_thumbnail_is_taken_where_there_is_one_and_the_original_where_that_is_wanted(site) -> None:
    page = file_page("A.jpg", "https://upload.example/A.jpg")
    api = site.interface("/w/api.php", lambda asked: pages(page))
    page["imageinfo"][0]["thumburl"] = "https://thumb.example/1280px-A.jpg"
    assert [unit.key for unit in find(plan(api, query="a"))] == ["https://thumb.example/1280px-A.jpg"]
    del page["imageinfo"][0]["thumburl"]
    assert [unit.key for unit in find(plan(api, query="a", width_px=None))] == ["https://upload.example/A.jpg"]
    assert "iiurlwidth" not in site.asked[-1][0]


def test_what_is_not_wanted_is_a_row_and_not_fetched(site) -> None:
    wanted, other, film = site.put("/1.jpg", PICTURE), site.put("/2.jpg", PICTURE), site.put("/3.webm", PICTURE)
    answer = pages(
        file_page("1.jpg", wanted, 1, LicenseShortName="CC0", LicenseUrl=None),
        file_page("2.jpg", other, 2),
        file_page("3.webm", film, 3, mime="video/webm"),
    )
    found = items(plan(site.interface("/w/api.php", lambda asked: answer), query="a", licences=["CC0-1.0"]))
    assert [(item.url, item.error, item.detail) for item in found] == [
        (wanted, None, ""),
        (other, Reason.UNWANTED_LICENCE, BY_SA),
        (film, Reason.OTHER_KIND, "video/webm"),
    ]
    assert found[1].author == "Bö B."
    assert "/2.jpg" not in site.visits


def test_a_wiki_that_lags_or_is_busy_is_asked_again(site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facemill.sources.wikimedia._LAG_PAUSE_S", 0.01)
    lagging = {"error": {"code": "maxlag", "info": "Waiting for 10.64.1.2: 9 seconds lagged.", "lag": 9}}
    said = iter([503, lagging, 429, pages(file_page("A.jpg", "https://upload.example/A.jpg"))])
    assert len(find(plan(site.interface("/w/api.php", lambda asked: next(said)), query="a"))) == 1
    assert len(site.asked) == 4
    always = site.interface("/lagging", lambda asked: lagging)
    with pytest.raises(FacemillError, match=r"databases lag behind .Waiting for 10.64.1.2: 9 seconds lagged"):
        find(plan(always, query="a"))


def test_a_wiki_that_asks_for_more_patience_than_there_is_ends_the_search(site) -> None:
    site.retry_after = "3600"
    with pytest.raises(FacemillError, match=r"wikimedia:query:a: status 429, 1 tries\. Try again later"):
        find(plan(site.interface("/w/api.php", lambda asked: 429), query="a"))
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"<html>", "not JSON"),
        (b"[1]", "not an object"),
        (b'{"query":' + b"[" * 100_000, "not JSON"),
        (b'{"query": {"pages"', "not JSON"),
        (404, "status 404"),
        ({"error": {"code": "cirrussearch-too-busy", "info": "<b>Too busy</b>"}}, "Too busy"),
        ({"error": "no"}, "an error"),
        ({"batchcomplete": True}, "nothing was found"),
    ],
)
def test_every_other_answer_is_an_error_for_a_person(site, answer, told: str) -> None:
    with pytest.raises(FacemillError, match=told):
        find(plan(site.interface("/w/api.php", lambda asked: answer), query="a"))


def test_a_search_that_breaks_off_keeps_what_it_has_found(site) -> None:
    url = site.put("/1.jpg", PICTURE)
    said = iter([pages(file_page("1.jpg", url), **{"continue": {"gsroffset": 50, "continue": "-||"}}), b"{", b"{"])
    first, last = items(plan(site.interface("/w/api.php", lambda asked: next(said)), query="a"))
    assert first.data == PICTURE
    assert (last.url, last.error) == ("wikimedia:query:a", Reason.SEARCH_FAILED)
    assert last.detail.startswith("broke off after 1: wikimedia:query:a: the answer is not JSON")


def test_answers_that_go_round_in_a_circle_end(site) -> None:
    again = {"continue": {"gsroffset": 50, "continue": "-||"}}
    api = site.interface("/w/api.php", lambda asked: pages(file_page("1.jpg", "https://a.example/1.jpg"), **again))
    *_, last = find(plan(api, query="a"))
    assert "in a circle" in last.options["problem"][1]


def test_a_cut_answer_and_one_without_end_are_failed_searches(site) -> None:
    def cut(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b'{"query"')

    site.answers["/cut"] = cut
    with pytest.raises(FacemillError, match="3 tries"):
        find(plan(f"{site.url}/cut", query="a"))
    site.put("/long", b" " * 9_000_000)
    with pytest.raises(FacemillError, match="9000000 bytes, limit 8000000"):
        find(plan(f"{site.url}/long", query="a"))
    site.put("/moved", b"", 301, Location="/there")
    site.put("/there", json.dumps(pages(file_page("1.jpg", "https://a.example/1.jpg"))).encode())
    assert len(find(plan(f"{site.url}/moved", query="a"))) == 1


@pytest.mark.parametrize("options", [{}, {"query": "a", "category": "b"}, {"files": []}])
def test_one_way_to_find_files_is_stated(options: dict[str, Any]) -> None:
    with pytest.raises(FacemillError, match="just one of query, category and files"):
        plan("https://commons.example/w/api.php", **options)


def test_somebody_to_write_to_is_stated() -> None:
    with pytest.raises(FacemillError, match="state a contact"):
        plan("https://commons.example/w/api.php", query="a", contact="")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.just("https://a.example/x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HOSTILE = st.fixed_dictionaries(
    {},
    optional={
        "title": ANYTHING,
        "index": ANYTHING,
        "missing": ANYTHING,
        "imageinfo": ANYTHING
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    name: ANYTHING | st.just("https://a.example/1.jpg") | st.just("image/jpeg")
                    for name in ("url", "thumburl", "descriptionurl", "mime", "extmetadata")
                }
                | {
                    "extmetadata": st.dictionaries(
                        st.sampled_from(["Artist", "LicenseUrl"]), ANYTHING | st.fixed_dictionaries({"value": ANYTHING})
                    )
                },
            ),
            max_size=2,
        ),
    },
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile=st.lists(HOSTILE, min_size=20, max_size=40), onward=ANYTHING)
def test_no_field_is_too_odd(site, hostile: list[Any], onward: Any) -> None:
    api = site.interface("/w/api.php", lambda asked: {"query": {"pages": hostile}, "continue": onward})
    try:
        units = find(plan(api, query="a", deadline_s=5.0))
    except FacemillError:
        return
    assert all(each.single and isinstance(each.options["stated"].get("author", ""), str) for each in units)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<div class='fn'>Anna&amp;Bo <script>alert(1)</script></div>", "Anna&Bo"),
        ("<p>a</p><p>b<br>c", "a b c"),
        ("a\x00\u202eb <b", "a b <b"),
        ("x" * 5000, "x" * 2000),
        ("<<<>>&#xD800;", "<<<>>\ufffd"),
        (7, ""),
    ],
)
def test_html_in_a_field_becomes_text(html: object, text: str) -> None:
    assert plain_text(html) == text
