"""What is remembered of files decides nothing but whether they are read again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tasks.work.file_hashes import hash_files


@pytest.mark.parametrize(
    "nonsense", [None, 7, "x", [], [1], ["a", "b"], {}, {"a": 1}, [[], "f"], [{}, 1], [{}, "f", 1]]
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_memory_of_another_form_is_as_if_it_were_not_there(tmp_path: Path, nonsense: object, whole: bool) -> None:
    file, memory = tmp_path / "a.txt", tmp_path / ".work" / "hashes" / "some.json"
    file.write_bytes(b"what it holds")
    expected = {file: hashlib.sha256(b"what it holds").hexdigest()}
    assert hash_files(tmp_path, "some", [file], ours=True) == expected
    [name] = json.loads(memory.read_text())
    memory.write_text(json.dumps(nonsense if whole else {name: nonsense}))
    assert hash_files(tmp_path, "some", [file], ours=True) == expected


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path: Path) -> None:
    file, memory = tmp_path / "a.txt", tmp_path / ".work" / "hashes" / "some.json"
    file.write_bytes(b"what it holds")
    hash_files(tmp_path, "some", [file], ours=True)
    known = json.loads(memory.read_text())
    memory.write_text(json.dumps({name: [stamp, "f" * 64] for name, (stamp, _) in known.items()}))
    assert hash_files(tmp_path, "some", [file], ours=True) == {file: "f" * 64}
