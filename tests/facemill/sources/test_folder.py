"""Folders as people keep them: spaces, Unicode, hidden files, loops of links, files that are not what they seem."""

from pathlib import Path

import numpy as np
import pytest

from facemill.errors import FacemillError
from facemill.pictures import decode, encode_jpeg
from facemill.reasons import Reason
from facemill.sources import SOURCES, Source, Surroundings, Unit, fetch
from facemill.sources.folder import FolderSource

PICTURE = b"\x89PNG, as far as a folder is concerned"


def plan(root: Path, source: Source, role: str = "sample", **around: int) -> list[Unit]:
    return source.plan("anna", role, Surroundings(place=lambda path: root / path, **around))


def _keys(root: Path, path: str, max_files: int | None = None) -> list[str]:
    return [unit.key for unit in plan(root, FolderSource(path=path, max_files=max_files))]


def test_files_come_sorted_by_name_with_spaces_and_unicode(tmp_path: Path) -> None:
    for name in ("b.PNG", "a b.jpg", "ü/größe 1.jpeg", "c.txt", ".hidden.jpg", ".cache/x.jpg", "archive.zip"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PICTURE)
    assert _keys(tmp_path, "photos") == ["photos/a b.jpg", "photos/b.PNG", "photos/ü/größe 1.jpeg"]
    assert _keys(tmp_path, "photos", max_files=1) == ["photos/a b.jpg"]
    assert _keys(tmp_path, "photos/a b.jpg") == ["a b.jpg"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    (tmp_path / "photos" / "inner" / "a.jpg").write_bytes(PICTURE)
    (tmp_path / "photos" / "inner" / "up").symlink_to(tmp_path / "photos")
    assert _keys(tmp_path, "photos") == ["photos/inner/a.jpg"]


def test_a_name_that_is_not_unicode_is_kept_as_text(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    try:
        (tmp_path / "photos" / "\udcff.jpg").touch()
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert _keys(tmp_path, "photos") == ["photos/\\xff.jpg"]


def test_an_item_carries_the_bytes_and_what_was_said_about_them(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    [unit] = plan(tmp_path, FolderSource(path="a.jpg", licence="CC0", author="Bo"), "reference")
    [item] = fetch(unit)
    assert (item.data, item.role, item.licence, item.author) == (PICTURE, "reference", "CC0", "Bo")


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(1001))
    [unit] = plan(tmp_path, FolderSource(path="a.jpg"), max_file_bytes=1000)
    [item] = fetch(unit)
    assert (item.data, item.error, item.detail) == (None, Reason.TOO_LARGE, "1001 bytes, limit 1000")


def test_a_link_to_nowhere_is_one_failed_item(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    [unit] = plan(tmp_path, FolderSource(path="photos"))
    [item] = fetch(unit)
    assert item.error is Reason.UNREADABLE


@pytest.mark.parametrize(("path", "message"), [("photos", "no picture in .*photos"), ("gone", "does not exist")])
def test_an_empty_or_missing_folder_is_one_clear_error(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(FacemillError, match=message):
        plan(tmp_path, FolderSource(path=path))


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(FacemillError, match="folder, google, openverse, remote_folder, sample, urls, video, wikimedia"):
        SOURCES["flickr"]


@pytest.mark.parametrize(
    ("stated", "key"),
    [
        ("photos", "photos/a.jpg"),
        ("~/photos", "photos/a.jpg"),
        ("~", "~/photos/a.jpg"),
        ("~/photos/a.jpg", "a.jpg"),
        (".", "photos/a.jpg"),
        ("photos/..", "../photos/a.jpg"),
    ],
)
def test_a_name_says_nothing_of_the_machine(tmp_path: Path, stated: str, key: str) -> None:
    """`path: ~` named pictures after the home folder, and `path: .` after wherever the project was cloned to."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(PICTURE)
    around = Surroundings(place=lambda path: tmp_path / path.replace("~", str(tmp_path)))
    assert [unit.key for unit in FolderSource(path=stated).plan("anna", "sample", around)] == [key]


def test_the_content_decides_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    jpeg = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
    folder = tmp_path / "photos"
    folder.mkdir()
    pictures = ["a.jpg", "b.jfif", "c.jpe", "d.txt", "e", "f.jpg_large", "g.JPEG"]
    for name in pictures:
        (folder / name).write_bytes(jpeg)
    for name in ("h.avif", "i.heic", "text.jpg"):  # called like pictures: rows with a reason
        (folder / name).write_bytes(b"text")
    for name in ("notes.txt", "more.txt", "without", "talk.mp4", "empty"):
        (folder / name).write_bytes(b"text"[: 4 * (name != "empty")])
    (folder / "link").symlink_to("nowhere")
    told: list[str] = []
    units = FolderSource(path=str(folder)).plan("anna", "sample", Surroundings(tell=told.append))
    assert [unit.key for unit in units] == [f"photos/{name}" for name in [*pictures, "h.avif", "i.heic", "text.jpg"]]
    assert told == [f"{folder}: left out 6 files that are no pictures (3 without a suffix, 2 .txt, 1 .mp4)"]


SUFFIXES = Path(__file__).parents[3] / "shared" / "data" / "dataset_faults" / "suffixes"
if not SUFFIXES.is_dir():
    SUFFIXES = Path(__file__).parents[4] / "shared" / "data" / "dataset_faults" / "suffixes"


@pytest.mark.skipif(not SUFFIXES.is_dir(), reason="wants ../shared/data/dataset_faults/suffixes")
def test_ten_pictures_with_odd_suffixes_are_ten_pictures() -> None:
    units = FolderSource(path=str(SUFFIXES)).plan("anna", "sample", Surroundings())
    assert len(units) == 10
    for unit in units:
        [item] = fetch(unit)
        assert decode(item.data or b"").shape == (96, 96, 3)


def test_files_beside_a_picture_and_the_picture_itself_say_whose_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    (folder / "a.jpg.json").write_text('{"artist": "Anna", "license": "CC0", "post_url": "https://a.example/1"}')
    (folder / "b.jpg.json").write_bytes(b"\xff{")
    (folder / "b.xmp").write_text("<x/>")
    (folder / "alone.json").write_text("{}")
    told: list[str] = []
    source = FolderSource(path="photos", licence="CC-BY-4.0", author="Bo")
    around = Surroundings(place=lambda path: tmp_path / path, tell=told.append)
    units = source.plan("anna", "sample", around)
    first, second, _ = [item for unit in units for item in fetch(unit)]
    assert (first.licence, first.author, first.page) == ("CC0", "Anna", "https://a.example/1")
    assert (second.licence, second.author, second.page) == ("CC-BY-4.0", "Bo", "")
    assert told == [f"{folder}: left out 1 files that are no pictures (1 .json)"]

    (folder / "a.jpg.json").write_text('{"artist": "Bea"}')
    again = source.plan("anna", "sample", around)
    assert [unit.stamp == old.stamp for unit, old in zip(again, units, strict=True)] == [False, True, True]
    [own] = fetch(plan(tmp_path, FolderSource(path="photos/a.jpg"))[0])
    assert own.author == "Bea"
    [unit, *_] = plan(tmp_path, FolderSource(path="photos", author="Bo", read_credits=False))
    assert [item.author for item in fetch(unit)] == ["Bo"]
    assert unit.stamp == ""
