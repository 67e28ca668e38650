"""Collecting: every input ends as one row with one state, again with the same bytes, and refreshes only add."""

import http.server
import shutil
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from odd_files import make_broken_links, make_no_files, make_odd_files, odd_names

from facemill import sources, tables
from facemill.errors import FacemillError
from facemill.files import folder_sha256, read_json
from facemill.pictures import encode_jpeg
from facemill.schema import RAW, VIDEOS
from facemill.sources.sample.pictures import huge_png
from facemill.sources.sample.videos import sample_archive, write_archive_video
from tasks import collect, inventory
from tasks.collecting import network
from tasks.collecting.planning import plan_units
from tasks.params import Params, parse_params
from tasks.work import file_hashes, results, spread
from tasks.work.forgotten import What, add_forgotten

RIGHTS = {"basis": "own", "evidence": "pictures made by this test"}


def _picture(seed: int, side: int = 16) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def _params(sources: list[dict], archive: dict | None = None, **changes: object) -> Params:
    people = {
        "anna": {"rights": RIGHTS, "references": ["anna/reference.jpg"], "sources": sources},
        "bea": {"rights": RIGHTS, "references": ["sample:collins"], "sources": [_sample("collins")]},
    }
    values = {
        "identities": people,
        "archive": archive or {"kind": "folder", "path": "archive"},
        "collect": {"rows_per_shard": 4, "failure_limit": 1.0},
        "convert": {"becomes": {"anna": "bea"}},
        "cluster": {"kind": "inline"},
    }
    return parse_params(values | changes)


def _sample(person: str) -> dict:
    return {"kind": "sample", "person": person, "pictures": 4}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder: a reference, a folder of pictures good and bad, and an archive of one text named .mp4."""
    files = {
        "anna/reference.jpg": _picture(0),
        "photos/good one.jpg": _picture(1),
        "photos/ü/größe.png": _picture(2),
        "photos/cut.jpg": _picture(3, 200)[:-100],
        "photos/empty.jpg": b"",
        "photos/text.jpg": b"not a picture",
        "photos/huge.png": huge_png(100_000, 100_000),
        "archive/not a video.mp4": b"text",
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def _run(params: Params, root: Path):
    inventory.run(params, root)
    return collect.run(params, root)


def _rows(root: Path) -> list[dict]:
    return tables.read_table(root / "data" / "raw", RAW).to_pylist()


REFUSED = "the address is not a public one (asked for robots.txt, without which nothing is fetched)"
PHOTOS = [{"kind": "folder", "path": "photos", "licence": "CC0", "author": "Bo"}]


def test_every_file_is_one_row_with_its_reason(root: Path) -> None:
    totals = _run(_params(PHOTOS), root)
    photos = {row["url"]: row for row in _rows(root) if row["source"] == "folder" and row["role"] == "sample"}
    assert {url: row["error"] for url, row in photos.items()} == {
        "photos/cut.jpg": "truncated",
        "photos/empty.jpg": "empty_file",
        "photos/good one.jpg": None,
        "photos/huge.png": "too_large",
        "photos/text.jpg": "not_a_picture",
        "photos/ü/größe.png": None,
    }
    assert totals.rows_in == totals.rows_out == len(_rows(root)) == 12
    good = photos["photos/good one.jpg"]
    assert (good["width"], good["height"], good["rights"], good["licence"]) == (16, 16, "own", "CC0")
    assert good["image"]["bytes"] == _picture(1)
    assert photos["photos/cut.jpg"]["image"] is None


def test_what_a_source_states_of_rights_stands_above_its_identity_for_its_own_pictures(root: Path) -> None:
    (root / "bought").mkdir()
    (root / "bought" / "one.jpg").write_bytes(_picture(20))
    own = {"basis": "licensed", "evidence": " invoice 2026-77 "}
    other = own | {"basis": "consent"}
    cases = [(own, "licensed: invoice 2026-77"), (other, "consent: invoice 2026-77"), (None, "own")]
    for stated, expected in cases:
        _run(_params([*PHOTOS, {"kind": "folder", "path": "bought", "rights": stated}]), root)
        rights = {row["url"]: row["rights"] for row in _rows(root)}
        assert rights["bought/one.jpg"] == expected
        assert rights["photos/good one.jpg"] == rights["reference.jpg"] == "own"


def test_pictures_of_a_list_carry_the_rights_of_their_source(root: Path) -> None:
    (root / "list.txt").write_text("http://127.0.0.1:9/a.jpg\n")
    _run(_params([{"kind": "urls", "path": "list.txt", "rights": RIGHTS | {"basis": "consent"}}]), root)
    [row] = [row for row in _rows(root) if row["source"] == "urls"]
    assert row["rights"] == "consent: pictures made by this test"


def test_references_carry_their_role(root: Path) -> None:
    _run(_params(PHOTOS), root)
    references = [(row["identity"], row["url"]) for row in _rows(root) if row["role"] == "reference"]
    assert sorted(references) == [("anna", "reference.jpg"), ("bea", "sample:collins/reference.png")]


def test_a_second_run_writes_the_same_bytes_and_does_nothing(root: Path, capsys) -> None:
    _run(_params(PHOTOS), root)
    before = folder_sha256(root / "data" / "raw")
    _run(_params(PHOTOS), root)
    assert folder_sha256(root / "data" / "raw") == before
    assert "Stage collect has nothing to do: 3 of 3 parts" in capsys.readouterr().out


def test_another_file_makes_another_row(root: Path) -> None:
    _run(_params(PHOTOS), root)
    (root / "photos" / "new.jpg").write_bytes(_picture(9))
    _run(_params(PHOTOS), root)
    assert sum(row["url"] == "photos/new.jpg" for row in _rows(root)) == 1


def test_more_failures_than_allowed_stop_the_stage_with_the_reasons(root: Path) -> None:
    params = _params(PHOTOS, collect={"failure_limit": 0.1})
    with pytest.raises(FacemillError, match=r"failed \(.*1 truncated.*limit 10%"):
        _run(params, root)


def test_a_broken_video_of_the_archive_is_a_failed_row(root: Path) -> None:
    totals = _run(_params(PHOTOS), root)
    [row] = tables.read_table(root / "data" / "videos", VIDEOS).to_pylist()
    assert (row["video"], row["status"], row["error"]) == ("not a video.mp4", "failed", "not_a_video")
    assert len(row["sha256"]) == 64
    assert totals.extra == {"videos": {"failed": 1}}
    assert list((root / "data" / "archive").iterdir()) == []


def test_the_sample_archive_is_written_and_described(root: Path) -> None:
    _run(_params(PHOTOS, {"kind": "sample", "seconds": 0.12}), root)
    rows = {row["video"]: row for row in tables.read_table(root / "data" / "videos", VIDEOS).to_pylist()}
    assert set(rows) == set(sample_archive())
    assert all((root / "data" / "archive" / name).is_file() for name in rows)
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {"cut off.mp4"}
    assert (rows["both.mp4"]["width"], rows["both.mp4"]["frames"], rows["both.mp4"]["audio"]) == (960, 3, "aac")
    assert rows["hopper without sound.mp4"]["audio"] is None


def test_sample_videos_whose_scratch_has_gone_are_written_again(root: Path) -> None:
    """The rows of their table are known still: by parameters that come back, or by a folder that somebody deleted."""

    def archive(seconds: float) -> str:
        _run(_params(PHOTOS, {"kind": "sample", "seconds": seconds}), root)
        return folder_sha256(root / "data" / "archive")

    first = archive(0.12)
    assert archive(0.08) != first
    assert archive(0.12) == first
    shutil.rmtree(root / ".work" / "collect-archive")
    assert archive(0.12) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": [{"kind": "folder", "path": "gone"}]}, "gone does not exist"),
        ({"sources": [{"kind": "video", "path": "photos"}]}, "no video in .*photos"),
        (
            {"sources": PHOTOS, "archive": {"kind": "folder", "path": "empty"}},
            "archive.path: .*empty is not a folder",
        ),
    ],
)
def test_a_source_with_nothing_in_it_is_one_clear_error(root: Path, change: dict, message: str) -> None:
    (root / "empty").mkdir()
    with pytest.raises(FacemillError, match=message):
        inventory.run(_params(**change), root)


def test_collect_without_an_inventory_says_what_to_run(root: Path) -> None:
    with pytest.raises(FacemillError, match=r"inventory\.json is missing: run the stage that makes it first"):
        collect.run(_params(PHOTOS), root)


def test_a_file_that_vanishes_after_the_inventory_costs_its_row_only(root: Path) -> None:
    params = _params(PHOTOS)
    inventory.run(params, root)
    target = root / "elsewhere.jpg"
    (root / "photos" / "good one.jpg").rename(target)
    (root / "photos" / "good one.jpg").symlink_to(root / "nowhere.jpg")
    totals = collect.run(params, root)
    assert totals.counts["failed"]["unreadable"] == 1
    assert totals.rows_in == 12


@pytest.fixture
def result_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What a search finds, as pictures; a server on loopback gives them, a stand-in library finds them.

    The list may be changed between two runs; each picture keeps its address, `/<its place>.jpg`.
    """
    pictures: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path.strip("/").removesuffix(".jpg")
            self.send_response(200 if place.isdigit() else 404)
            self.end_headers()
            self.wfile.write(pictures[int(place)] if place.isdigit() else b"")

        def log_message(self, *parts: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    package = tmp_path / "stand-in" / "google_images_download"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "google_images_download.py").write_text(
        "import json, os\n"
        "class googleimagesdownload:\n"
        "    def download(self, arguments):\n"
        "        os.makedirs('logs')\n"
        "        places = open(os.environ['FOUND']).read().split()\n"
        f"        found = [{{'image_link': 'http://127.0.0.1:{server.server_port}/' + at + '.jpg'}} for at in places]\n"
        "        json.dump(found, open('logs/q.json', 'w'))\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("FOUND", str(tmp_path / "found"))
    yield pictures
    server.shutdown()
    server.server_close()


@pytest.fixture
def search(root: Path, result_page: list[bytes]) -> Callable[..., list[dict]]:
    """Collects what a search finds (places of `result_page`), beside other sources; gives the rows of that search."""
    driver = root / "chromedriver"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    google = {"kind": "google", "query": "anna", "chromedriver": str(driver), "allow_private_addresses": True}

    def run(places: str, *others: dict) -> list[dict]:
        (root / "found").write_text(places)
        _run(_params([google, *others]), root)
        return [row for row in _rows(root) if row["source"] == "google"]

    return run


def test_one_odd_address_costs_its_own_row(search, result_page: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    result_page += [_picture(20 + number) for number in range(10)]
    rows = search("0 1 2 3 4 5 6 7 8 9 gone")
    assert Counter(row["error"] for row in rows) == {None: 10, "download_failed": 1}
    fetch = network.fetch

    def broken(unit: sources.Unit) -> Iterator[sources.Item]:
        if unit.key.endswith("/broken.jpg"):
            raise ValueError("a defect")
        yield from fetch(unit)

    monkeypatch.setattr(network, "fetch", broken)
    rows = search("broken gone")
    assert Counter(row["error"] for row in rows) == {None: 10, "download_failed": 1, "processing_error": 1}
    assert [row["detail"] for row in rows if row["error"] == "processing_error"] == ["ValueError: a defect"]


def test_a_search_that_finds_nothing_is_a_row_and_the_others_go_on(search, capsys) -> None:
    [row] = search("", *PHOTOS)
    assert (row["error"], row["url"]) == ("search_failed", "google:anna")
    assert "held no pictures" in row["detail"]
    assert "held no pictures" in capsys.readouterr().out


def test_each_line_of_a_list_is_a_row(root: Path) -> None:
    (root / "list.csv").write_text("url,licence\nhttp://127.0.0.1/a.jpg,CC0\nhttp://127.0.0.1/b.jpg,\nno address,\n")
    totals = _run(_params([{"kind": "urls", "path": "list.csv"}, *PHOTOS]), root)
    rows = {row["url"]: row for row in _rows(root) if row["source"] == "urls"}
    assert {url: (row["error"], row["licence"], row["detail"]) for url, row in rows.items()} == {
        "http://127.0.0.1/a.jpg": ("download_failed", "CC0", REFUSED),
        "http://127.0.0.1/b.jpg": ("download_failed", "", REFUSED),
        "list.csv:4": ("broken_line", "", "'no address' is no address"),
    }
    assert totals.rows_in == totals.rows_out
    (root / "list.csv").write_bytes(b"link\n")
    with pytest.raises(FacemillError, match=r"identities\.anna\.sources\.0: .*no column 'url'"):
        inventory.run(_params([{"kind": "urls", "path": "list.csv"}]), root)


def test_a_kill_while_the_table_is_published_loses_nothing(
    search, root: Path, result_page: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    result_page += [_picture(20), _picture(21), _picture(22)]
    search("0 1")

    def killed(*rest: object) -> None:
        shutil.rmtree(root / "data" / "raw")  # the moment between the old table and the new one
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collect, "publish_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            search("2")
    rows = search("")
    assert sorted(row["image"]["bytes"] for row in rows if row["image"]) == sorted(result_page)
    # and once more, by another version of the code, for which no result of the old one is known
    with monkeypatch.context() as patch:
        patch.setattr(collect, "publish_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            search("")
    deciders = collect.read_deciders
    monkeypatch.setattr(
        collect, "read_deciders", lambda *rest: replace(deciders(*rest), code={"facemill/pictures.py": "other"})
    )
    rows = search("")
    assert sorted(row["image"]["bytes"] for row in rows if row["image"]) == sorted(result_page)


def test_equal_names_in_two_folders_are_told_apart(root: Path) -> None:
    for number, name in enumerate(("p1/photos/a.jpg", "p2/photos/a.jpg", "p2/photos/b.jpg"), 30):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_picture(number))
    _run(_params([{"kind": "folder", "path": "p1/photos"}, {"kind": "folder", "path": str(root / "p2/photos")}]), root)
    urls = sorted(row["url"] for row in _rows(root) if row["source"] == "folder" and row["role"] == "sample")
    assert urls == ["p1/photos/a.jpg", "p2/photos/a.jpg", "photos/b.jpg"]


def test_large_pictures_are_spread_over_more_parts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        (root / "photos" / f"large {number}.png").write_bytes(_picture(40 + number, 100))
    most = 2 * (root / "photos" / "large 0.png").stat().st_size + 5000
    for module in (network, results, spread):
        monkeypatch.setattr(module, "SHARD_BYTES", most)
    params = _params(PHOTOS, collect={"rows_per_shard": 64, "failure_limit": 1.0})
    _run(params, root)
    rows = [row for row in _rows(root) if row["url"].startswith("photos/large")]
    assert [row["status"] for row in rows] == ["ok"] * 6
    for part in (root / "data" / "raw").glob("*.parquet"):
        images = [row["image"] for row in tables.part_rows(part, RAW) if row["url"].startswith("photos/")]
        assert sum(len(image["bytes"]) for image in images if image) <= most


@pytest.mark.slow
def test_sixty_two_scans_of_36_mb_are_collected(root: Path) -> None:
    """In one part they would have 2.2 GB, more than a column of Arrow's can hold."""
    header = b"BM" + bytes(8) + struct.pack("<IIiiHHIIiiII", 54, 40, 3464, 3464, 1, 24, 0, 0, 0, 0, 0, 0)
    for number in range(62):
        with (root / "photos" / f"scan {number:02d}.bmp").open("wb") as stream:
            stream.write(header + bytes([number + 1] * 3000))
            stream.truncate(54 + 3464 * 3464 * 3)  # the rest is a hole
    totals = _run(_params(PHOTOS, collect={"rows_per_shard": 64, "failure_limit": 1.0}), root)
    assert totals.counts["ok"][""] == 62 + 8  # which the project has without them


def test_a_refresh_adds_to_what_the_network_gave_before(root: Path, result_page: list[bytes]) -> None:
    driver = root / "chromedriver"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    search = {"kind": "google", "query": "anna", "chromedriver": str(driver), "allow_private_addresses": True}
    params = _params([search])
    result_page += [_picture(20), _picture(21), _picture(22)]

    def found(places: str) -> list[bytes]:
        (root / "found").write_text(places)
        _run(params, root)
        return sorted(row["image"]["bytes"] for row in _rows(root) if row["source"] == "google")

    assert found("0 1") == sorted(result_page[:2])
    assert found("2") == sorted(result_page)
    assert found("0 2") == sorted(result_page)
    assert found("1") == sorted(result_page)
    assert read_json(root / "data" / "metrics" / "collect.json")["in"] == len(_rows(root))


def test_what_is_forgotten_is_neither_asked_for_nor_carried_over(
    root: Path, search, result_page: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    result_page += [_picture(20), _picture(21), _picture(22), _picture(21)]
    rows = search("0 1 2")
    assert len(rows) == 3
    by_place = {row["url"][-5]: row for row in rows}
    add_forgotten(root, [(What.ADDRESS, by_place["0"]["url"]), (What.PICTURE, by_place["1"]["sample_id"])])
    asked, fetch = [], network.fetch
    monkeypatch.setattr(network, "fetch", lambda unit: asked.append(unit.key) or fetch(unit))
    rows = search("0 1 2 3")  # the last has the bytes of one that is forgotten, under another address
    assert [row["url"] for row in rows] == [by_place["2"]["url"]]
    assert by_place["0"]["url"] not in asked
    for scratch in (root / "data" / "raw", root / ".work"):
        shutil.rmtree(scratch)
        assert [row["url"] for row in search("0 1 2 3")] == [by_place["2"]["url"]]


def test_without_the_network_stays_what_it_gave_before(root: Path, search, result_page: list[bytes]) -> None:
    result_page += [_picture(20), _picture(21)]
    search("0")
    (root / "found").write_text("1")
    params = _params([{"kind": "google", "query": "anna", "chromedriver": str(root / "chromedriver")}])
    inventory.run(params, root)
    assert collect.run_without_network(params, root).counts["ok"]
    assert [row["image"]["bytes"] for row in _rows(root) if row["source"] == "google"] == result_page[:1]


def test_the_inventory_says_that_something_else_is_forgotten(root: Path) -> None:
    """DVC runs what follows only where the inventory is another."""
    before = _run(_params(PHOTOS), root).counts
    plain = read_json(root / "data" / "inventory.json")
    assert "forgotten" not in plain
    add_forgotten(root, [(What.AUTHOR, "somebody whom no source states")])
    assert _run(_params(PHOTOS), root).counts == before
    assert set(read_json(root / "data" / "inventory.json")) == {*plain, "forgotten"}


def test_odd_names_are_rows_like_others_and_what_is_no_file_is_told(root: Path, capsys) -> None:
    photos, archive = root / "odd", root / "archive"
    make_odd_files(photos, odd_names(".jpg"), _picture(1))
    make_odd_files(archive, odd_names(".mp4"), b"text")
    for folder, suffix in ((photos, ".jpg"), (archive, ".mp4")):
        make_no_files(folder, suffix)
        make_broken_links(folder, suffix)
    _run(_params([{"kind": "folder", "path": "odd"}]), root)
    rows = [row for row in _rows(root) if row["url"].startswith("odd/")]
    assert Counter(row["error"] for row in rows) == {None: len(odd_names(".jpg")), "unreadable": 4}
    videos = tables.read_table(root / "data" / "videos", VIDEOS).to_pylist()
    assert Counter(row["error"] for row in videos) == {"not_a_video": len(odd_names(".mp4")) + 1, "unreadable": 4}
    said = capsys.readouterr().out
    assert [said.count(f"{folder}: skipped 4 that are no files") for folder in (photos, archive)] == [1, 1]


def test_the_inventory_is_the_same_while_the_files_are_the_same(root: Path) -> None:
    params = _params(PHOTOS)
    file = root / "data" / "inventory.json"
    inventory.run(params, root)
    first = file.read_bytes()
    inventory.run(params, root)
    assert file.read_bytes() == first
    (root / "photos" / "text.jpg").write_bytes(b"another text")
    inventory.run(params, root)
    assert file.read_bytes() != first


def test_the_inventory_reads_a_file_again_only_if_size_or_time_changed(root: Path, monkeypatch) -> None:
    params = _params(PHOTOS)
    inventory.run(params, root)
    read: list[str] = []
    hash_file = file_hashes.file_sha256

    def noted(path: Path) -> str:
        read.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(file_hashes, "file_sha256", noted)
    (root / "photos" / "cut.jpg").write_bytes(b"changed")
    inventory.run(params, root)
    assert "cut.jpg" in read
    assert "good one.jpg" not in read


def test_a_video_of_which_one_frame_is_taken_is_one_row(root: Path) -> None:
    """It was counted twice: as the one row that was planned, and among those that only fetching can tell."""
    write_archive_video(root, "interviews/hopper.mp4", 0.2, seed=1)
    totals = _run(_params([{"kind": "video", "path": "interviews", "max_frames": 1}]), root)
    assert totals.rows_in == totals.rows_out == 1 + 1 + 1 + 4  # the frame, both references, the other's pictures


def test_all_sources_that_are_wrong_are_named_at_once(root: Path) -> None:
    with pytest.raises(FacemillError) as error:
        plan_units(_params([{"kind": "folder", "path": "gone"}, {"kind": "sample", "person": "ada"}]), root)
    assert [line.strip().partition(": ")[0] for line in str(error.value).splitlines()[1:]] == [
        "identities.anna.sources.0",
        "identities.anna.sources.1",
    ]


def test_a_folder_in_the_home_folder_is_collected_from(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    people = _params([{"kind": "folder", "path": "~/photos"}], {"kind": "folder", "path": "~/archive"})
    elsewhere = root / "project"
    (elsewhere / "anna").mkdir(parents=True)
    (elsewhere / "anna" / "reference.jpg").write_bytes(_picture(0))
    _run(people, elsewhere)
    assert "photos/good one.jpg" in {row["url"] for row in _rows(elsewhere)}
    [video] = tables.read_table(elsewhere / "data" / "videos", VIDEOS).to_pylist()
    assert video["video"] == "not a video.mp4"


def test_a_video_is_a_reference_by_some_of_its_frames(tmp_path: Path) -> None:
    write_archive_video(tmp_path, "interviews/hopper.mp4", 2.2, seed=1)
    people = {
        name: {"rights": RIGHTS, "references": [reference], "sources": [_sample("collins")]}
        for name, reference in (("anna", "interviews/hopper.mp4"), ("bea", "sample:collins"))
    }
    [unit] = [
        unit
        for unit in plan_units(_params([_sample("collins")], identities=people), tmp_path)
        if (unit.role, unit.identity) == ("reference", "anna")
    ]
    assert [item.pts is not None and item.role for item in sources.fetch(unit)] == ["reference"] * 2


def test_a_folder_elsewhere_is_followed_and_so_is_what_lies_beside_a_picture(root: Path) -> None:
    """By listings alone: what has changed there is fetched again, and what has gone leaves."""
    there, here = root / "elsewhere", root / "photos"
    there.mkdir()
    for number in range(3):
        (there / f"{number}.jpg").write_bytes(_picture(30 + number, 16 + number))
    remote = {"kind": "remote_folder", "path": f"file://{there}"}
    params = _params([remote, {"kind": "folder", "path": "photos"}])

    def found() -> tuple[list[bytes], set[str]]:
        _run(params, root)
        rows = [row for row in _rows(root) if row["status"] == "ok" and row["role"] == "sample"]
        bytes_there = [row["image"]["bytes"] for row in rows if row["source"] == "remote_folder"]
        return sorted(bytes_there), {row["author"] for row in rows if row["source"] == "folder"}

    assert found() == (sorted(_picture(30 + number, 16 + number) for number in range(3)), {""})
    (there / "0.jpg").unlink()
    (there / "1.jpg").write_bytes(_picture(40, 24))
    (here / "good one.jpg.json").write_text('{"artist": "Anna"}')
    assert found() == (sorted([_picture(40, 24), _picture(32, 18)]), {"", "Anna"})
