"""Lists of addresses: every format, columns by any name, and lines that are broken as rows with a reason."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facemill.errors import FacemillError
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import Item, Surroundings, Unit, fetch, find
from facemill.sources.urls import UrlsSource

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
A, B = "https://a.example/1.jpg", "http://b.example/2.jpg?x=1,2"


def found(path: Path, *, collected: tuple[str, ...] = (), **options: object) -> Sequence[Unit]:
    [unit] = UrlsSource(path=str(path), **options).plan("anna", "sample", Surroundings(collected=collected))
    return find(unit)


def items(units: Iterable[Unit]) -> list[Item]:
    return [item for unit in units for item in fetch(unit)]


def table(folder: Path, name: str, rows: list[dict[str, str]]) -> Path:
    path = folder / name
    names = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [separator.join(names), *(separator.join(f'"{row[name]}"' for name in names) for row in rows)]
        path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    return path


@given(lines=st.lists(st.sampled_from([*(f"https://a.example/{n}é.jpg" for n in range(150)), "none"]), max_size=300))
@settings(max_examples=20)
def test_the_units_of_a_list_of_any_length_are_those_of_its_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("x") / "list.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    units = found(path)
    wanted = dict.fromkeys(line if line != "none" else f"list.txt:{at}" for at, line in enumerate(lines, start=1))
    for some, names in ((units, list(wanted)), (units[3::2], list(wanted)[3::2]), (units[-5:], list(wanted)[-5:])):
        assert [unit.key for unit in some] == names
        assert list(pickle.loads(pickle.dumps(some))) == list(some)
    assert ["problem" in unit.options for unit in units] == [name.startswith("list") for name in wanted]


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl", "list.parquet"])
def test_a_list_names_addresses_pages_licences_and_authors(tmp_path: Path, name: str) -> None:
    rows = [
        {"link": A, "page": "https://a.example/", "rights": "CC0-1.0", "author": "Bö"},
        {"link": B, "page": "", "rights": "", "author": ""},
        {"link": A, "page": "twice", "rights": "", "author": ""},
    ]
    units = found(table(tmp_path, name, rows), columns={"url": "link", "licence": "rights"}, licence="CC-BY-4.0")
    assert [(unit.key, unit.host, unit.single) for unit in units] == [(A, "a.example", True), (B, "b.example", True)]
    stated = [tuple(unit.options["stated"][name] for name in ("page", "licence", "author")) for unit in units]
    assert stated == [("https://a.example/", "CC0-1.0", "Bö"), ("", "CC-BY-4.0", "")]


def test_a_text_has_an_address_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# ours\n\n{A}\r\n   {B}  \n")
    assert [unit.key for unit in found(path)] == [A, B]
    assert [unit.key for unit in found(path, collected=(A,))] == [B]
    assert [unit.key for unit in found(path, max_urls=1)] == [A]


def test_a_broken_line_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(
        f"name;url\none;{A}\ntwo;no address\nthree\nfour;http://\xe9\n".encode("latin-1") + f"x;{B}\n".encode()
    )
    units = found(path)
    broken = [unit for unit in units if unit.options.get("problem")]
    assert [unit.key for unit in units if unit not in broken] == [A, B]
    assert [(item.url, item.error, item.detail) for item in items(broken)] == [
        ("list.csv:3", Reason.BROKEN_LINE, "'no address' is no address"),
        ("list.csv:4", Reason.BROKEN_LINE, "no address"),
        ("list.csv:5", Reason.BROKEN_LINE, "not UTF-8"),
    ]


def test_broken_json_and_lines_without_end_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    lines = [
        "{",
        "[1]",
        json.dumps({"url": 5}),
        "[" * 100_000,
        "x" * 2_500_000,
        json.dumps({"url": A, "page": {"a": 1}}),
    ]
    path.write_text("\n".join(lines))
    told = [unit.options.get("problem", ("", unit.key))[1] for unit in found(path)]
    assert told[0].startswith("not JSON")
    assert told[1:3] == ["not an object of JSON", "'5' is no address"]
    assert told[3].startswith("not JSON")
    assert told[4:] == ["longer than 1000000 characters", A]


def test_a_list_that_a_person_must_mend_is_said_so_at_once(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"link\n{A}\n")
    with pytest.raises(FacemillError, match=r"no column 'url'; it has 'link'.*columns: \{url: image_link\}"):
        found(path)
    with pytest.raises(FacemillError, match="no column 'rights'"):
        found(path, columns={"url": "link", "licence": "rights"})
    with pytest.raises(FacemillError, match="cannot be read"):
        found(tmp_path / "gone.csv")
    (tmp_path / "list.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(FacemillError, match="cannot be read as Parquet"):
        found(tmp_path / "list.parquet")
    (tmp_path / "list").write_text(A)
    with pytest.raises(FacemillError, match="write the list's format"):
        found(tmp_path / "list")
    assert [unit.key for unit in found(tmp_path / "list", format="txt")] == [A]


def test_the_pictures_of_a_list_are_fetched(site, tmp_path: Path) -> None:
    good, gone = site.put("/a.jpg", PICTURE), site.url + "/gone.jpg"
    path = table(tmp_path, "list.csv", [{"url": good, "author": "Bo"}, {"url": gone, "author": ""}])
    first, second = items(found(path, allow_private_addresses=True))
    assert (first.url, first.data, first.author, first.error) == (good, PICTURE, "Bo", None)
    assert (second.url, second.error, second.detail) == (gone, Reason.DOWNLOAD_FAILED, "status 404")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), form=st.sampled_from(["csv", "tsv", "jsonl", "txt", "parquet"]))
def test_no_list_is_too_odd(tmp_path: Path, data: bytes, form: str) -> None:
    path = tmp_path / "list"
    path.write_bytes((b"url," if form in ("csv", "tsv") else b"") + data)
    try:
        units = found(path, format=form)
    except FacemillError:
        return
    assert all(unit.options.get("problem") or unit.key.lower().startswith("http") for unit in units)
