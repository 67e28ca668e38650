"""Known addresses are asked again after a while: what is the same costs no body, what was withdrawn leaves."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from facemill import tables
from facemill.files import folder_sha256
from facemill.pictures import encode_jpeg
from facemill.schema import RAW
from tasks import collect, inventory
from tasks.params import parse_params
from tasks.work.forgotten import What, add_forgotten

ALWAYS = 1e-9
OWN = {"basis": "own", "evidence": "pictures made by this test"}


def _picture(seed: int) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8))


class Host:
    """Pictures by path, with an ETag that is their content's, or a status instead; `asked` holds path and status."""

    def __init__(self) -> None:
        self.pictures = {f"/{name}.jpg": _picture(number) for number, name in enumerate("abcd")}
        self.statuses: dict[str, int] = {}
        self.headers: dict[str, str] = {}
        self.robots = b""
        self.has_validators = True
        self.asked: list[tuple[str, int]] = []
        self.url = ""

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path
        body = self.robots if path == "/robots.txt" else self.pictures.get(path, b"")
        status = self.statuses.get(path, 200 if body else 404)
        tag = f'"{hash(body)}"'
        if status == 200 and self.has_validators and request.headers["If-None-Match"] == tag:
            status = 304
        if path in self.pictures:
            self.asked.append((path, status))
        body = body if status == 200 else b""
        request.send_response(status)
        if self.has_validators:
            request.send_header("ETag", tag)
        for name, value in self.headers.items():
            request.send_header(name, value)
        if status != 304:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def host() -> Iterator[Host]:
    found = Host()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *parts: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def refresh(tmp_path: Path, host: Host):
    """Collects the host's pictures; gives by path the reason and detail of its row, or the bytes of its picture."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "text.mp4").write_bytes(b"text")
    (tmp_path / "list.txt").write_text("".join(f"{host.url}{path}\n" for path in host.pictures))
    people = {
        "anna": {
            "rights": OWN,
            "references": ["sample:hopper"],
            "sources": [{"kind": "urls", "path": "list.txt", "allow_private_addresses": True}],
        },
        "bea": {
            "rights": OWN,
            "references": ["sample:collins"],
            "sources": [{"kind": "sample", "person": "collins", "pictures": 4}],
        },
    }

    def run(days: float | None = ALWAYS) -> dict[str, bytes | tuple[str, str]]:
        params = parse_params(
            {
                "identities": people,
                "archive": {"kind": "folder", "path": "archive"},
                "collect": {"failure_limit": 1.0, "recheck_days": days},
                "convert": {"becomes": {"anna": "bea"}},
                "cluster": {"kind": "inline"},
            }
        )
        host.asked.clear()
        inventory.run(params, tmp_path)
        collect.run(params, tmp_path)
        rows = tables.read_table(tmp_path / "data" / "raw", RAW).to_pylist()
        own = [row for row in rows if row["source"] == "urls"]
        assert len({row["url"] for row in own}) == len(own)
        return {
            row["url"].removeprefix(host.url): row["image"]["bytes"] if row["image"] else (row["error"], row["detail"])
            for row in own
        }

    return run


@pytest.mark.parametrize("days", [None, 0, 30])
def test_what_is_not_due_is_not_asked_for(host: Host, refresh, days: float | None) -> None:
    assert refresh(days) == host.pictures
    assert refresh(days) == host.pictures
    assert host.asked == []


@pytest.mark.parametrize(("has_validators", "status"), [(True, 304), (False, 200)])
def test_what_is_the_same_keeps_its_table_byte_for_byte(
    host: Host, refresh, tmp_path: Path, has_validators: bool, status: int
) -> None:
    host.has_validators = has_validators
    refresh()
    before = folder_sha256(tmp_path / "data" / "raw")
    for _ in range(2):
        refresh()
        assert sorted(host.asked) == [(path, status) for path in sorted(host.pictures)]
        assert folder_sha256(tmp_path / "data" / "raw") == before


def test_each_answer_decides_about_its_picture_and_what_left_stays_away(host: Host, refresh) -> None:
    was = dict(refresh())
    host.pictures["/a.jpg"] = _picture(9)
    host.statuses = {"/b.jpg": 404, "/c.jpg": 410, "/d.jpg": 500}
    expected = {
        "/a.jpg": _picture(9),
        "/b.jpg": ("download_failed", "status 404"),
        "/c.jpg": ("download_failed", "status 410"),
        "/d.jpg": was["/d.jpg"],
    }
    assert refresh() == expected
    assert refresh() == expected  # the results of the run before hold the old pictures still
    assert refresh(None) == expected
    host.statuses = {}
    assert refresh() == was | {"/a.jpg": _picture(9)}


@pytest.mark.parametrize(
    ("robots", "headers", "rule"),
    [
        (b"User-agent: *\nDisallow: /\n", {}, "robots.txt"),
        (b"", {"X-Robots-Tag": "noai"}, "X-Robots-Tag: noai"),
        (b"", {"tdm-reservation": "1"}, "tdm-reservation: 1"),
    ],
)
def test_a_new_opt_out_takes_the_pictures_out(host: Host, refresh, robots: bytes, headers: dict, rule: str) -> None:
    refresh()
    host.robots, host.headers = robots, headers
    assert refresh() == dict.fromkeys(host.pictures, ("opted_out", rule))
    assert {status for _, status in host.asked} <= {304}


@pytest.mark.parametrize("body", [b"a page in place of the picture", _picture(7)[:-40], b""])
def test_what_is_no_picture_replaces_none(host: Host, refresh, body: bytes) -> None:
    was = refresh()
    host.pictures["/a.jpg"] = body
    host.statuses = {"/a.jpg": 200, "/b.jpg": 403, "/c.jpg": 400}
    assert refresh() == was


@pytest.mark.parametrize("moment", ["collect.publish_parts", "collect.make_parts", "work.checks.Checks.save"])
def test_a_run_that_is_killed_before_it_publishes_loses_nothing(
    host: Host, refresh, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    was = refresh()
    host.pictures["/a.jpg"] = _picture(9)
    host.statuses = {"/b.jpg": 410}

    def killed(*rest: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"tasks.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            refresh()
    assert refresh() == was | {
        "/a.jpg": _picture(9),
        "/b.jpg": ("download_failed", "status 410"),
    }


def test_without_what_was_noted_the_time_begins_anew_and_no_picture_is_lost(
    host: Host, refresh, tmp_path: Path
) -> None:
    was = refresh()
    before = folder_sha256(tmp_path / "data" / "raw")
    shutil.rmtree(tmp_path / ".work")
    assert refresh() == was
    assert host.asked == []
    assert refresh() == was
    assert {status for _, status in host.asked} == {200}  # nothing is known to ask by
    assert folder_sha256(tmp_path / "data" / "raw") == before


def test_what_is_forgotten_is_not_asked_for_and_does_not_come_back_as_another_picture(
    host: Host, refresh, tmp_path: Path
) -> None:
    was = refresh()
    rows = {row["url"]: row for row in tables.read_table(tmp_path / "data" / "raw", RAW).to_pylist()}
    add_forgotten(
        tmp_path, [(What.ADDRESS, f"{host.url}/a.jpg"), (What.PICTURE, rows[f"{host.url}/b.jpg"]["sample_id"])]
    )
    host.pictures["/c.jpg"] = was["/b.jpg"]
    assert refresh() == {"/d.jpg": was["/d.jpg"]}
    assert "/a.jpg" not in {path for path, _ in host.asked}
    assert refresh() == {"/d.jpg": was["/d.jpg"]}
