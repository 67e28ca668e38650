"""Pictures in buckets: what has changed or gone, what is too large, what is missing, and an S3 server on loopback."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from facemill.errors import FacemillError
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import Item, Surroundings, Unit, fetch
from facemill.sources.remote_folder import RemoteFolderSource

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
OTHER = encode_jpeg(np.full((16, 8, 3), 30, np.uint8))


def plan(path: str, *, max_file_bytes: int = 10_000, **options: Any) -> list[Unit]:
    source = RemoteFolderSource(path=path, **options)
    return source.plan("anna", "sample", Surroundings(max_file_bytes=max_file_bytes))


def item(unit: Unit) -> Item:
    [found] = fetch(unit)
    return found


@pytest.fixture
def bucket() -> Iterator[str]:
    """An address of fsspec's memory with a folder of its own; what lies there is written by `put`."""
    address = f"memory://{uuid.uuid4().hex}"
    yield address
    fsspec.filesystem("memory").rm(address, recursive=True)


def put(address: str, data: bytes) -> None:
    with fsspec.open(address, "wb") as stream:
        stream.write(data)


def test_pictures_come_by_name_with_what_was_said_about_them(bucket: str) -> None:
    for name in ("b c.png", "a/ü.jpg", ".hidden/x.jpg", "a/.DS_Store"):
        put(f"{bucket}/{name}", PICTURE)
    units = plan(bucket, licence="CC0-1.0", author="Bo")
    assert [unit.key for unit in units] == [f"{bucket.replace('//', '///')}/{name}" for name in ("a/ü.jpg", "b c.png")]
    found = item(units[0])
    assert (found.data, found.licence, found.author, found.error) == (PICTURE, "CC0-1.0", "Bo", None)
    assert len(plan(bucket, max_files=1)) == 1
    assert [unit.key for unit in plan(f"{bucket}/b c.png")] == [units[1].key]


def test_the_stamp_changes_with_the_file_and_only_with_it(bucket: str) -> None:
    put(f"{bucket}/a.jpg", PICTURE)
    put(f"{bucket}/b.jpg", PICTURE)
    a, b = plan(bucket)
    assert [unit.stamp for unit in plan(bucket)] == [a.stamp, b.stamp]
    time.sleep(0.01)
    put(f"{bucket}/a.jpg", OTHER)
    now = plan(bucket)
    assert now[0].stamp != a.stamp
    assert now[1].stamp == b.stamp
    assert item(a).error == Reason.CHANGED  # between the inventory and the collection
    assert item(now[0]).data == OTHER


def test_the_content_decides_and_no_more_is_read_than_may_be(bucket: str) -> None:
    put(f"{bucket}/1 text.jpg", b"not a picture at all")
    put(f"{bucket}/2 picture.txt", PICTURE)
    put(f"{bucket}/3 large.jpg", PICTURE + bytes(20_000))
    put(f"{bucket}/4 empty.jpg", b"")
    found = [item(unit) for unit in plan(bucket)]
    assert [each.error for each in found] == [Reason.OTHER_KIND, None, Reason.TOO_LARGE, None]
    assert found[2].detail.endswith("bytes, limit 10000")
    assert found[3].data == b""  # whoever decodes it says so
    assert plan(bucket)[2].size_bytes == len(PICTURE) + 20_000


def test_a_file_that_has_gone_is_a_row(bucket: str) -> None:
    put(f"{bucket}/a.jpg", PICTURE)
    put(f"{bucket}/b.jpg", PICTURE)
    unit, _ = plan(bucket)
    fsspec.filesystem("memory").rm(f"{bucket}/a.jpg")
    assert item(unit).error == Reason.UNREADABLE
    assert [unit.key.rpartition("/")[2] for unit in plan(bucket)] == ["b.jpg"]


def test_only_regular_files_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    os.mkfifo(tmp_path / "pipe.jpg")
    [unit] = plan(f"file://{tmp_path}")
    assert item(unit).data == PICTURE
    (tmp_path / "a.jpg").unlink()
    os.mkfifo(tmp_path / "a.jpg")  # opening it would wait for ever
    assert item(unit).error in (Reason.CHANGED, Reason.UNREADABLE)


@pytest.mark.parametrize(
    ("path", "options", "told"),
    [
        ("nowhere://bucket", {}, "no address that can be used: ValueError: Protocol not known: nowhere"),
        ("memory://nothing here", {}, "no file below memory://nothing here"),
        ("memory://x", {"options": {"client_secret": "x"}}, r"client_secret would lie in params\.yaml"),
        ("s3://bucket", {"options": {"key": "x"}}, "give it by the environment"),
    ],
)
def test_what_a_person_has_to_mend_is_said(path: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(FacemillError, match=told):
        plan(path, **options)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "smbprotocol", None)
    monkeypatch.setitem(__import__("sys").modules, "smbclient", None)
    with pytest.raises(FacemillError, match=r"needs a package that is missing.*smbprotocol"):
        plan("smb://server/share")


def test_a_bucket_of_s3_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto speaks S3's protocol on loopback; ETags tell what has changed, and an empty object is a folder."""
    pytest.importorskip("s3fs", reason="wants the package s3fs: python deploy/install.py s3")
    server = pytest.importorskip("moto.server", reason="wants a server that speaks S3: pip install 'moto[server]'")
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anna")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anna")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="portraits")
        for key, body in (("anna/", b""), ("anna/1.jpg", PICTURE), ("anna/2/ü.jpg", OTHER), ("bert/1.jpg", OTHER)):
            client.put_object(Bucket="portraits", Key=key, Body=body)
        where = {"options": {"endpoint_url": endpoint}}
        units = plan("s3://portraits/anna", **where)
        assert [unit.key for unit in units] == ["s3://portraits/anna/1.jpg", "s3://portraits/anna/2/ü.jpg"]
        assert [item(unit).data for unit in units] == [PICTURE, OTHER]
        client.put_object(Bucket="portraits", Key="anna/1.jpg", Body=PICTURE)  # another time, the same ETag
        assert [unit.stamp for unit in plan("s3://portraits/anna", **where)] == [unit.stamp for unit in units]
        client.put_object(Bucket="portraits", Key="anna/1.jpg", Body=OTHER)
        assert item(units[0]).error == Reason.CHANGED
        with pytest.raises(FacemillError, match=r"cannot be listed|no file below"):
            plan("s3://no-such-bucket/anna", **where)
    finally:
        running.stop()
