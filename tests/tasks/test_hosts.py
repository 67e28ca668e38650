"""Addresses put together by host: each once, each host in one share, in little memory."""

from __future__ import annotations

import pickle
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill import tables
from facemill.schema import RAW
from facemill.sources import Surroundings, Unit, find
from facemill.sources.urls import UrlsSource
from tasks.collecting.hosts import Host, UnitsByHost
from tasks.collecting.network import fetch_from_network
from tasks.collecting.rows import PictureSettings, Wanted
from tasks.work.cluster import InlinePool
from tasks.work.forgotten import Forgotten
from tasks.work.results import intact_results, open_store

ADDRESSES = st.tuples(st.integers(0, 4), st.integers(0, 5)).map(lambda at: f"http://host{at[0]}.example/{at[1]}.jpg")


def unit(url: str, source: str = "openverse") -> Unit:
    return Unit(identity="anna", role="sample", source=source, key=url, host=url.split("/")[2])


def listed(path: Path, urls: list[str]) -> list[Unit]:
    path.write_text("".join(f"{url}\n" for url in urls))
    [search] = UrlsSource(path=str(path)).plan("anna", "sample", Surroundings())
    return find(search)


def dealt(by_host: UnitsByHost, shares: int) -> list[tuple[Host, ...]]:
    return [pickle.loads(pickle.dumps(by_host.share(number, shares))) for number in range(shares)]


@given(lists=st.lists(st.lists(ADDRESSES, max_size=30), max_size=3), shares=st.integers(1, 4))
def test_each_unit_is_dealt_once_with_all_others_of_its_host(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[str]], shares: int
) -> None:
    by_host = UnitsByHost()
    for number, urls in enumerate(lists):  # a search's, and those of lists
        by_host.add(listed(tmp_path_factory.mktemp("x") / "l.txt", urls) if number else [unit(url) for url in urls])
    hosts = [[one for piece in host for one in piece] for share in dealt(by_host, shares) for host in share]
    names = [(one.source, one.key) for host in hosts for one in host]
    wanted = [("urls" if number else "openverse", url) for number, urls in enumerate(lists) for url in urls]
    assert Counter(names) == Counter(set(wanted))
    assert all(len({one.host for one in host}) == 1 for host in hosts)
    assert len(hosts) == len(by_host) == len({one.host for host in hosts for one in host})
    for host in hosts:  # in the order in which they came
        places = [wanted.index((one.source, one.key)) for one in host]
        assert places == sorted(places)


def test_shares_have_as_many_units_as_whole_hosts_allow() -> None:
    by_host = UnitsByHost()
    by_host.add([unit(f"http://host{host}.example/{n}.jpg") for host in range(10) for n in range(host + 1)])
    sizes = [sum(len(piece) for host in share for piece in host) for share in dealt(by_host, 2)]
    assert sizes == [30, 25]


class LastFirst(InlinePool):
    """Ends the last piece of work first."""

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Any:
        yield from reversed(list(super().run(function, arguments)))


@pytest.mark.parametrize("pool", [InlinePool(), LastFirst()])
def test_an_address_of_several_lists_has_the_licence_of_the_first_one_whichever_is_read_first(
    tmp_path: Path, pool: InlinePool
) -> None:
    searches, known = [], []
    for name, licence in (("one.csv", "CC0-1.0"), ("two.csv", "CC-BY-NC-4.0"), ("three.csv", "CC-BY-4.0")):
        rows = [f"http://127.0.0.1/{path},{licence}" for path in ("both.jpg", "known.jpg", name)]  # are refused unasked
        (tmp_path / name).write_text("\n".join(["url,licence", *rows]))
        [search] = UrlsSource(path=str(tmp_path / name)).plan("anna", "sample", Surroundings())
        searches.append(Wanted({}, search, None, name))
        known = find(search)[1:2]
    store, settings = open_store(tmp_path, "collect", RAW, code=""), PictureSettings(1000, Forgotten())
    fetch_from_network(store, searches, known, settings, pool, 1)
    kept = [row for path in intact_results(store) for row in tables.part_rows(path, RAW)]
    assert {row["url"].removeprefix("http://127.0.0.1/"): row["licence"] for row in kept} == {
        "both.jpg": "CC0-1.0",
        "known.jpg": "CC-BY-4.0",
        "one.csv": "CC0-1.0",
        "two.csv": "CC-BY-NC-4.0",
        "three.csv": "CC-BY-4.0",
    }
    assert len(kept) == 5


def test_what_is_not_wanted_is_left_out() -> None:
    by_host = UnitsByHost()
    by_host.add([unit("http://a.example/1.jpg"), unit("http://b.example/1.jpg")], lambda one: one.host != "a.example")
    assert [piece[0].host for [host] in dealt(by_host, 1) for piece in host] == ["b.example"]


def test_what_a_list_holds_is_read_once_for_its_repeats_and_once_for_each_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[bytes]()
    decompress = zlib.decompress
    monkeypatch.setattr("zlib.decompress", lambda block: read.append(block) or decompress(block))
    units = listed(tmp_path / "l.txt", [f"http://host{n % 10}.example/{n % 640}.jpg" for n in range(1280)])
    assert len(units) == 640
    assert len(read) == 20 + 10  # blocks of 64 rows: all for their keys, and then those that have no repeats
    by_host = UnitsByHost()
    by_host.add(units)
    by_host.add(units)  # another list's, which says the same
    read.clear()
    assert sum(len(piece) for share in dealt(by_host, 4) for host in share for piece in host) == 640
    assert len(read) <= 4 * 10


def test_a_row_of_a_long_list_costs_some_dozen_bytes(tmp_path: Path) -> None:
    listed(tmp_path / "short.txt", ["http://host.example/1.jpg"])  # imports
    tracemalloc.start()
    by_host = UnitsByHost()
    by_host.add(listed(tmp_path / "l.txt", [f"http://host{n % 100}.example/pictures/{n}.jpg" for n in range(10_000)]))
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(by_host) == 100
    assert held_bytes < 80 * 10_000  # a unit alone has some 800
