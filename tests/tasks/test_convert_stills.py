"""Pictures beside videos in an archive: converted by the same stages, in their own format, each with one state."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import make_clip
from odd_files import damaged
from PIL import Image

from facemill import schema, tables
from facemill.files import file_sha256
from facemill.media import media_facts
from facemill.pictures import decode, sniff
from facemill.video import probe
from tasks import collect_videos, convert, track
from tasks.commands.preview import write_preview
from tasks.converting.state import VideoStage, read_status
from tasks.params import Params, parse_params


@pytest.fixture(scope="module")
def face(hopper: np.ndarray) -> np.ndarray:
    """256×320 with Hopper in it."""
    return cv2.resize(hopper[20:420, 60:460], (320, 256), interpolation=cv2.INTER_AREA)


def values(**changes: Any) -> dict[str, Any]:
    person = {"rights": {"basis": "own", "evidence": "a test's own"}, "references": ["sample:hopper"]}
    person["sources"] = [{"kind": "sample", "person": "hopper"}]
    group: dict[str, Any] = {"becomes": {"hopper": "collins"}, "encoder": {"preset": "ultrafast"}}
    group |= {"detail": "match", "occlusion": "none"}
    told = {"identities": {"hopper": person, "collins": person}, "archive": {"kind": "sample"}}
    return told | {"convert": group | changes, "cluster": {"kind": "inline"}}


def parameters(**changes: Any) -> Params:
    return parse_params(values(**changes))


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    folder = out / ".facemill" / "conversions"
    return {row["video"]: row for row in tables.iterate_rows(folder, schema.CONVERSIONS)}


def encoded(rgb: np.ndarray, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, name, **options)
    return buffer.getvalue()


def moving(face: np.ndarray, name: str) -> bytes:
    pages = [Image.fromarray(np.roll(face, shift, axis=1)) for shift in (0, 2, 4)]
    buffer = io.BytesIO()
    pages[0].save(buffer, name, save_all=True, append_images=pages[1:], duration=[100, 300, 50])
    return buffer.getvalue()


def test_pictures_and_videos_of_a_folder_each_become_one_row(face: np.ndarray, model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "день").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "Maker"
    lying = np.ascontiguousarray(np.rot90(face))  # which orientation 6 turns upright
    files = {
        "portrait.jpg": encoded(face, "JPEG", quality=90),
        "turned.JPG": encoded(lying, "JPEG", quality=90, exif=turned.tobytes()),
        "день/b.png": encoded(face, "PNG"),
        "c.webp": encoded(face, "WEBP", quality=90),
        "d.tif": encoded(face, "TIFF"),
        "e.bmp": encoded(face, "BMP"),
        "f.gif": encoded(face, "GIF"),
        "no suffix": encoded(face, "PNG"),
        "clothes.mp4": encoded(face, "JPEG"),  # a picture in a video's clothes
        "landscape.jpg": encoded(np.roll(face, 90, axis=0)[:80], "JPEG"),
        "moves.gif": moving(face, "GIF"),
        "moves.webp": moving(face, "WEBP"),
        "cut.jpg": encoded(face, "JPEG")[:3000],
        "bomb.png": encoded(face, "PNG")[:16] + b"\0\1\x86\xa0\0\1\x86\xa0" + encoded(face, "PNG")[24:],
        "page.jpg": b"<html>404</html>" * 99,
        "empty.png": b"",
        "notes.txt": b"not for us",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    make_clip(folder / "talk.mp4", frames=[face] * 3)
    make_clip(folder / "portrait.mp4", frames=[face] * 3, sound=None).rename(folder / "film.jpg")
    os.utime(folder / "portrait.jpg", (1e9, 1e9))

    totals = convert.convert_folder(parameters(), folder, out, model)

    rows = rows_of(out)
    assert len(rows) == len(files) - 1 + 2
    assert totals.counts["ok"] == {"": 14}
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == {
        "cut.jpg": "truncated",
        "bomb.png": "too_large",
        "page.jpg": "not_a_picture",
        "empty.png": "empty_file",
    }
    swapped = {name for name, row in rows.items() if row["frames_swapped"]}
    assert swapped == set(files) - {"landscape.jpg", "cut.jpg", "bomb.png", "page.jpg", "empty.png", "notes.txt"} | {
        "talk.mp4", "film.jpg",
    }  # fmt: skip
    assert rows["landscape.jpg"]["passed_on"]
    assert (out / "landscape.jpg").read_bytes() == files["landscape.jpg"]
    own = {"f.gif": "f.gif.png"} | {name: f"{name}.mp4" for name in ("moves.gif", "moves.webp", "film.jpg")}
    assert rows["clothes.mp4"]["warnings"] == ["a picture (JPEG) in the name of a video"]
    for name in swapped:
        assert rows[name]["output"] == own.get(name, name)
    for name in swapped & set(files) - {"moves.gif", "moves.webp"}:
        before, after = files[name], (out / rows[name]["output"]).read_bytes()
        assert sniff(after) == ("png" if name == "f.gif" else sniff(before)), name
        old, new = decode(before).astype(int), decode(after).astype(int)
        assert old.shape == new.shape == face.shape
        inside, outside = np.s_[100:140, 140:180], np.s_[:24]
        assert np.abs(old - new)[inside].mean() > 8, f"{name}: nobody was replaced"
        assert np.abs(old - new)[outside].mean() < 2, f"{name}: something else changed"
        assert rows[name]["frames_in"] == rows[name]["frames_out"] == 1
    assert Image.open(out / "turned.JPG").getexif()[0x010F] == "Maker"
    assert (out / "portrait.jpg").stat().st_mtime == 1e9
    assert [probe(out / f"moves.{kind}.mp4").frames for kind in ("gif", "webp")] == [3, 3]

    counts = read_status(out / ".facemill").count()
    assert counts == {VideoStage.CONVERTED: 13, VideoStage.PASSED_ON: 1, VideoStage.FAILED: 4}
    before = {path: path.stat().st_ino for path in out.rglob("*.*") if path.is_file()}
    again = convert.convert_folder(parameters(), folder, out, model)
    assert again.counts == totals.counts
    after = {path: path.stat().st_ino for path in before if path.exists()}
    assert {path: after.get(path) for path in before if ".facemill" not in path.parts} == {
        path: number for path, number in before.items() if ".facemill" not in path.parts
    }, "nothing was converted twice"


def test_a_single_picture_and_a_broken_one_leave_nothing_half_written(
    face: np.ndarray, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "other.png").write_bytes(b"not asked for")
    (tmp_path / "in" / "me.png").write_bytes(encoded(face, "PNG"))
    convert.convert_folder(parameters(), tmp_path / "in" / "me.png", tmp_path / "out", model)
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == ["me.png"]
    assert not np.array_equal(decode((tmp_path / "out/me.png").read_bytes()), face)


def test_the_table_of_videos_has_a_row_for_a_picture(face: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "me.jpg").write_bytes(encoded(np.ascontiguousarray(face[:, :200]), "JPEG"))
    row = collect_videos._row(tmp_path, "me.jpg", "0" * 64)
    assert (row["codec"], row["width"], row["height"], row["frames"]) == ("jpeg picture", 200, 256, 1)
    assert row["status"] == "ok"
    facts = media_facts(tmp_path / "me.jpg")
    assert (facts.duration_s, facts.audio) == (None, None)


def test_preview_shows_a_picture_without_a_clip(
    face: np.ndarray, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(json.dumps(values()))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "me.png").write_bytes(encoded(face, "PNG"))
    [shown] = write_preview(tmp_path, tmp_path / "in", tmp_path / "look", model=model)
    assert (shown.problem, shown.clip) == (None, None)
    [one] = shown.faces
    assert one.becomes == "collins"
    assert len(one.pictures) == 2


OF_THE_INPUT = {"truncated", "damaged", "not_a_picture", "too_large", "empty_file", "not_a_video", "video_truncated"}


def test_damaged_pictures_have_one_state_each(face: np.ndarray, model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    deep = cv2.imencode(".tif", face[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    kinds = {name: encoded(face, name) for name in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000")}
    kinds |= {"deep": deep, "moves": moving(face, "WEBP"), "progressive": encoded(face, "JPEG", progressive=True)}
    chance = random.Random(11)
    for number in range(44):
        kind = [*kinds][number % len(kinds)]
        (folder / f"{number:02d} {kind}.jpg").write_bytes(damaged(kinds[kind], chance))
    totals = convert.convert_folder(parameters(failure_limit=1.0), folder, out, model)
    rows = rows_of(out)
    assert len(rows) == totals.rows_in == 44
    assert {row["error"] for row in rows.values()} - {None} <= OF_THE_INPUT
    assert 5 < sum(row["status"] == "ok" for row in rows.values()) < 40
    there = {path.name for path in out.iterdir() if not path.name.startswith(".facemill")}
    assert there == {row["output"] for row in rows.values() if row["output"]}
    for name in there:
        path = out / name
        assert media_facts(path).frames, name


def test_the_stages_take_pictures_from_the_archive(face: np.ndarray, model: Path, tmp_path: Path) -> None:
    """From the table of videos on, with names that are written as they are and one that is not."""
    root = tmp_path / "project"
    archive = root / "data" / "archive"
    archive.mkdir(parents=True)
    (root / "data" / "model").symlink_to(model)
    (archive / "me.jpg").write_bytes(encoded(face, "JPEG", quality=90))
    (archive / "me.gif").write_bytes(encoded(face, "GIF"))
    (archive / "cut.png").write_bytes(encoded(face, "PNG")[:5000])
    names = sorted(path.name for path in archive.iterdir())
    rows = [collect_videos._row(archive, name, file_sha256(archive / name)) for name in names]
    tables.write_part(root / "data" / "videos" / "00000.parquet", tables.from_rows(rows, schema.VIDEOS))
    assert track.run(parameters(), root).counts == {"ok": {"": 2}, "failed": {"truncated": 1}}
    totals = convert.run(parameters(), root)
    assert totals.counts == {"ok": {"": 2}, "failed": {"truncated": 1}}
    converted = root / "data" / "converted"
    assert sorted(path.name for path in converted.iterdir()) == ["me.gif.png", "me.jpg"]
    assert sniff((converted / "me.jpg").read_bytes()) == "jpeg"
