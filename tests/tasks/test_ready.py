"""What stops a conversion before it begins, and what it leaves alone: broken models, full disks, foreign files."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clips import make_clip

from facemill import schema, tables
from facemill.errors import FacemillError
from facemill.files import read_json
from facemill.model_folder import WEIGHTS_FILE
from facemill.video import VideoReader, probe
from facemill.video.hdr import _nits_to_pq
from facemill.weights import load_tensors, save_tensors
from tasks import convert
from tasks.converting.ready import check_model
from tasks.params import Params, parse_params


@pytest.fixture
def archive(hopper: np.ndarray, tmp_path: Path) -> Path:
    """A video with Hopper in it, and one without anybody."""
    (tmp_path / "in").mkdir()
    face = cv2.resize(hopper[20:420, 60:460], (256, 256), interpolation=cv2.INTER_AREA)
    make_clip(tmp_path / "in" / "talk.mp4", frames=[face] * 2, sound=None)
    make_clip(tmp_path / "in" / "nobody.mp4", frames=2, size=(160, 128), sound=None)
    return tmp_path / "in"


def parameters(**changes: Any) -> Params:
    person = {"rights": {"basis": "own", "evidence": "a test's own"}, "references": ["sample:hopper"]}
    person["sources"] = [{"kind": "sample", "person": "hopper"}]
    group: dict[str, Any] = {"becomes": {"hopper": "collins"}, "encoder": {"preset": "ultrafast"}}
    group |= {"detail": "match", "occlusion": "none"}
    values = {"identities": {"hopper": person, "collins": person}, "archive": {"kind": "sample"}}
    return parse_params(values | {"convert": group | changes, "cluster": {"kind": "inline"}})


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    folder = out / ".facemill" / "conversions"
    return {row["video"]: row for row in tables.iterate_rows(folder, schema.CONVERSIONS)}


def spoilt(model: Path, target: Path, change: Any) -> Path:
    shutil.copytree(model, target)
    weights = load_tensors(target / WEIGHTS_FILE, torch.device("cpu"))
    change(weights)
    save_tensors(target / WEIGHTS_FILE, weights)
    return target


def with_nan(weights: dict[str, torch.Tensor]) -> None:
    next(value for value in weights.values() if value.is_floating_point()).view(-1)[0] = torch.nan


def with_another_shape(weights: dict[str, torch.Tensor]) -> None:
    name = next(iter(weights))
    weights[name] = torch.zeros(3, 5, 7)


@pytest.mark.parametrize(("change", "message"), [(with_nan, "NaN or infinity"), (with_another_shape, "weights")])
def test_a_broken_model_is_refused_before_any_video(
    change: Any, message: str, model: Path, archive: Path, tmp_path: Path
) -> None:
    broken = spoilt(model, tmp_path / "broken", change)
    with pytest.raises(FacemillError, match=message):
        convert.convert_folder(parameters(), archive, tmp_path / "out", broken)
    assert not list((tmp_path / "out").glob("*.mp4"))
    check_model(model, {"hopper": "collins"})


def test_an_encoder_that_does_not_open_is_refused_before_any_video(model: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="libx264"):
        convert.convert_folder(parameters(encoder={"name": "h264_nvenc"}), archive, tmp_path / "out", model)
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_too_little_space_is_said_with_both_numbers(
    model: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 900, 900))
    with pytest.raises(FacemillError, match=r"900 bytes free.*2 originals.* KiB.*check_space"):
        convert.convert_folder(parameters(), archive, tmp_path / "out", model)
    convert.convert_folder(parameters(check_space=False), archive, tmp_path / "out", model)
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_place_that_cannot_be_written_is_said_first(model: Path, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(FacemillError, match="writable"):
        convert.convert_folder(parameters(), archive, tmp_path / "out", model)


def test_a_file_of_somebody_else_is_never_overwritten(model: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("talk.mp4", "nobody.mp4"):
        (out / name).write_text("mine")
    with pytest.raises(FacemillError, match=r"talk\.mp4 lies there already.*move it away"):
        convert.convert_folder(parameters(failure_limit=0.0), archive, out, model)
    assert [(out / name).read_text() for name in ("talk.mp4", "nobody.mp4")] == ["mine", "mine"]
    assert {row["error"] for row in rows_of(out).values()} == {"output_taken"}
    (out / "talk.mp4").unlink()
    (out / "nobody.mp4").unlink()
    convert.convert_folder(parameters(), archive, out, model)  # the same command, and nothing to ask for
    assert {row["status"] for row in rows_of(out).values()} == {"ok"}
    assert not list((out / ".facemill" / "parts").iterdir())


def test_what_a_killed_run_had_just_written_is_its_own(
    model: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the name of the finished file and the record of it."""
    from facemill.swap import job

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "_succeeded", killed)
        with pytest.raises(KeyboardInterrupt):
            convert.convert_folder(parameters(), archive, tmp_path / "out", model)
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 1
    convert.convert_folder(parameters(), archive, tmp_path / "out", model)
    assert {row["status"] for row in rows_of(tmp_path / "out").values()} == {"ok"}


def test_thorough_sees_other_bytes_of_the_same_size_and_time(model: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert.convert_folder(parameters(), archive, out, model)
    path = out / "talk.mp4"
    good, stamped = path.read_bytes(), path.stat()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(path, ns=(stamped.st_atime_ns, stamped.st_mtime_ns))
    convert.convert_folder(parameters(), archive, out, model)
    assert path.read_bytes() != good, "the quick way believes size and time"
    convert.convert_folder(parameters(verify="thorough"), archive, out, model)
    assert path.read_bytes() == good
    outcome = read_json(next((out / ".facemill" / "receipts").glob("talk*")))
    assert outcome["verify"] == "thorough"
    first = path.stat().st_ino
    convert.convert_folder(parameters(verify="thorough"), archive, out, model)
    assert path.stat().st_ino == first, "nothing was converted twice"


def test_high_dynamic_range_is_converted_when_asked_for(model: Path, archive: Path, tmp_path: Path) -> None:
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
    with VideoReader(archive / "talk.mp4") as reader:
        # as bright on a screen of high dynamic range as on another one, whose white is 203 nits
        pictures = [np.rint(255 * _nits_to_pq(203 * (frame.rgb / 255) ** 2.4)).astype(np.uint8) for frame in reader]
    for name, frames in (("hdr.mp4", pictures * 3), ("hdr nobody.mp4", [np.full_like(pictures[0], 90)] * 6)):
        make_clip(archive / name, frames=frames, codec="libx265", pix_fmt="yuv420p10le", tags=tags, sound=None)
    out = tmp_path / "out"
    convert.convert_folder(parameters(), archive, out, model)
    rows = rows_of(out)
    assert (rows["hdr.mp4"]["error"], rows["hdr nobody.mp4"]["passed_on"]) == ("hdr_video", True)
    assert "HDR10 (PQ)" in rows["hdr.mp4"]["detail"]
    convert.convert_folder(parameters(hdr="tone_map"), archive, out, model)
    row = rows_of(out)["hdr.mp4"]
    assert row["frames_swapped"] == 6
    assert any("tone mapped" in warning for warning in row["warnings"])
    assert not probe(out / "hdr.mp4").hdr
