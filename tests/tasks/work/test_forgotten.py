"""The record of what was asked to be forgotten: what it covers, and that nobody can read from it what that was."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.errors import FacemillError
from tasks.work.forgotten import FORGOTTEN_FILE, Forgotten, What, add_forgotten, read_forgotten

SHA = "0123456789abcdef" * 4


def test_without_a_record_nothing_is_forgotten(tmp_path: Path) -> None:
    found = read_forgotten(tmp_path)
    assert not found
    assert not found.covers(identity="anna", sample_id=SHA, addresses=["a.jpg", None], author="Ann")
    assert found.key == found.authors_key == ""


def test_each_of_what_is_known_of_a_picture_is_enough(tmp_path: Path) -> None:
    words = [(What.PICTURE, SHA.upper()), (What.ADDRESS, "https://example.org/a.jpg"), (What.ADDRESS, "clips/talk.mp4")]
    assert add_forgotten(tmp_path, [*words, (What.AUTHOR, "Ann  Other"), (What.IDENTITY, "carl")]) == 5
    found = read_forgotten(tmp_path)
    assert pickle.loads(pickle.dumps(found)) == found
    assert found.covers(sample_id=SHA)
    assert found.covers(addresses=["elsewhere", "https://example.org/a.jpg"])
    assert found.covers(addresses=["clips/talk.mp4#pts=7@1/25"])
    assert found.covers(author=" ann other")
    assert found.covers(identity="carl")
    assert not found.covers(identity="Carl", sample_id=SHA[1:], addresses=["https://example.org/a"], author="Ann")
    assert not read_forgotten(tmp_path / "elsewhere")


def test_a_frame_that_is_forgotten_is_no_other_frame(tmp_path: Path) -> None:
    add_forgotten(tmp_path, [(What.ADDRESS, "clips/talk.mp4#pts=7@1/25")])
    found = read_forgotten(tmp_path)
    assert found.covers(addresses=["clips/talk.mp4#pts=7@1/25"])
    assert not found.covers(addresses=["clips/talk.mp4#pts=8@1/25", "clips/talk.mp4"])


def test_entries_are_added_once_and_tell_nobody_what_they_are_of(tmp_path: Path) -> None:
    words = [(What.AUTHOR, "Ann Other"), (What.ADDRESS, "https://example.org/a.jpg")]
    assert add_forgotten(tmp_path, words) == 2
    before = (tmp_path / FORGOTTEN_FILE).read_bytes()
    assert add_forgotten(tmp_path, words) == 0
    assert (tmp_path / FORGOTTEN_FILE).read_bytes() == before
    assert add_forgotten(tmp_path, [(What.IDENTITY, "carl")]) == 1
    text = (tmp_path / FORGOTTEN_FILE).read_text()
    assert not {"Ann", "example", "carl"} & set(text.replace("/", " ").split())
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    "text", ["what: 1", "- 1", "- {what: picture}", "- {what: face, sha256: a}", "{", "- {what: picture, sha256: 7}",
             "- {what: picture, sha256: abc}", "\x00", "7"],
)  # fmt: skip
def test_a_record_that_cannot_be_read_lets_nothing_in(tmp_path: Path, text: str) -> None:
    (tmp_path / FORGOTTEN_FILE).write_text(text)
    with pytest.raises(FacemillError, match=r"forgotten\.yaml is not a list of what, sha256, date"):
        read_forgotten(tmp_path)
    with pytest.raises(FacemillError, match="mend it or bring it back"):
        add_forgotten(tmp_path, [(What.AUTHOR, "Ann")])
    assert (tmp_path / FORGOTTEN_FILE).read_text() == text


def test_what_is_no_hash_of_a_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="'abc' is no SHA-256 of a picture"):
        add_forgotten(tmp_path, [(What.PICTURE, "abc")])
    assert not (tmp_path / FORGOTTEN_FILE).exists()


@given(st.text(), st.text(), st.text())
def test_nothing_covers_what_was_not_named(identity: str, address: str, author: str) -> None:
    found = Forgotten({What.PICTURE: frozenset({SHA}), What.ADDRESS: frozenset({SHA}), What.AUTHOR: frozenset({SHA})})
    assert not found.covers(identity=identity, sample_id=address, addresses=[address], author=author)
