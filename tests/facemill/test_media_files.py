"""Listing: every file with the suffix, whatever it is called, and nothing that is no file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from odd_files import make_broken_links, make_no_files, odd_names

from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, folder_sha256
from facemill.foreign_files import fitting_name, open_regular, valid_name
from facemill.media_files import list_files, read_limited, stable_name
from facemill.reasons import Reason
from facemill.video import probe

names = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 47} & {*name} and name[:1] != b".")


def test_what_is_no_file_is_skipped_and_told_and_the_rest_is_listed(tmp_path: Path) -> None:
    skipped, broken = make_no_files(tmp_path, ".jpg"), make_broken_links(tmp_path, ".jpg")
    (tmp_path / "folder.jpg" / "in.jpg").touch()
    told: list[str] = []
    found = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path, {".jpg"}, told.append)]
    assert found == sorted([*broken, "folder.jpg/in.jpg"])
    assert len(told) == 1
    assert "skipped 4 that are no files (pipe.jpg is a pipe; socket.jpg is a socket; to device.jpg is a dev" in told[0]
    assert [name in told[0] for name in skipped] == [True] * 4


def test_nothing_is_told_where_all_are_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "pipe.txt").touch()
    told: list[str] = []
    assert list_files(tmp_path, {".jpg"}, told.append) == [tmp_path / "a.jpg"]
    assert told == []


def test_a_pipe_that_is_named_itself_is_refused(tmp_path: Path) -> None:
    make_no_files(tmp_path, ".jpg")
    with pytest.raises(FacemillError, match=r"pipe\.jpg is a pipe: name a file or a folder"):
        list_files(tmp_path / "pipe.jpg", {".jpg"})


@pytest.mark.parametrize("suffix", [".jpg", ".mp4"])
def test_whoever_opens_what_is_no_file_gets_a_reason_and_does_not_wait(tmp_path: Path, suffix: str) -> None:
    for name in [*make_no_files(tmp_path, suffix), *make_broken_links(tmp_path, suffix), f"folder{suffix}"]:
        path = tmp_path / name
        for opens in (open_regular, file_sha256):
            with pytest.raises(OSError):
                opens(path)
        for reads in (lambda one: read_limited(one, 1000), probe):
            with pytest.raises(InputError) as raised:
                reads(path)
            assert raised.value.reason == Reason.UNREADABLE


@given(st.sets(names, min_size=1, max_size=8))
def test_files_of_any_name_are_listed_and_get_names_that_are_text(raw: set[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = {os.fsdecode(one[:251]) + ".jpg" for one in raw}
        for one in wanted:
            (folder / one).touch()
        found = list_files(folder, {".jpg"})
        assert {path.name for path in found} == wanted
        assert all(stable_name(path, folder, "").encode() for path in found)
        assert len(folder_sha256(folder)) == 64


@given(st.sets(names, min_size=2, max_size=8), st.sampled_from(["", ".mp4", ".12.mp4", ".json"]))
@example({b"a" * 255, b"a" * 254 + b"b"}, ".mp4")
@example({"ы".encode() * 127, "ы".encode() * 126 + b"\xd1"}, ".json")
def test_fitting_names_fit_and_stay_different(raw: set[bytes], suffix: str) -> None:
    fitted = [fitting_name(f"some/folder/{os.fsdecode(one)}", suffix) for one in raw]
    lasts = [os.fsencode(one.removeprefix("some/folder/")) for one in fitted]
    assert all(len(one) <= 255 and one.endswith(suffix.encode()) for one in lasts)
    assert len(set(lasts)) == len(raw)


def test_a_name_that_fits_is_kept() -> None:
    assert fitting_name("a/b.avi", ".mp4") == "a/b.avi.mp4"
    assert [fitting_name(one) for one in odd_names(".mp4")] == odd_names(".mp4")


escapes = st.lists(st.sampled_from([b"\\", b"x", b"5c", b"e9", b"4", b"a", b"\xe9", b"\xc3\xa9", b"\xc3"]), min_size=1)


@given(st.sets(names | escapes.map(b"".join), min_size=2, max_size=8))
@example({b"\xe9.jpg", rb"\xe9.jpg", rb"\x5cxe9.jpg", rb"\x5cx5cxe9.jpg", rb"\x5c\x5cxe9.jpg", "é.jpg".encode()})
def test_different_names_get_different_text(raw: set[bytes]) -> None:
    texts = {valid_name(os.fsdecode(one)) for one in raw}
    assert len(texts) == len(raw)
    assert all(text.encode() for text in texts)


@given(st.text(st.characters(exclude_characters="\0/\\", exclude_categories=["Cs"]), min_size=1))
@example("день é 50%")
@example(r"C:\new\x41.jpg")
def test_a_name_that_is_text_and_looks_like_no_other_is_kept(name: str) -> None:
    assert valid_name(name) == name
    assert stable_name(Path("in") / f"{name}x", Path("in"), "") == f"{name}x"
