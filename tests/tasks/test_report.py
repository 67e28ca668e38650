from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from facemill import schema, tables
from facemill.align import MEAN_FACE
from facemill.detect import build_detector
from facemill.embeddings import SAME_PERSON
from facemill.files import write_json
from facemill.identity import Embedder
from facemill.landmarks.dlib import DlibPredictor
from facemill.pictures import encode_jpeg
from tasks import report
from tasks.params import Params, parse_params
from tasks.report_page.charts import Series, histogram, line_chart, log_ticks, thinned, ticks, timeline
from tasks.report_page.stages import gather_stages
from tasks.report_page.thumbnails import Album, pictures_of
from tasks.report_page.training import read_history
from tasks.work.totals import times_file

EVIL = "<script>alert('x')</script>"


def params(**report_values: Any) -> Params:
    rights = {"basis": "public_domain", "evidence": f"a catalogue {EVIL}"}
    source = {"kind": "folder", "path": "pictures"}
    identity = {"rights": rights, "references": ["pictures/a.jpg"], "sources": [source]}
    return parse_params(
        {
            "identities": {"hopper": identity, "collins": identity},
            "archive": {"kind": "folder", "path": "films"},
            "convert": {"becomes": {"hopper": "collins"}},
            "report": {"title": f"People {EVIL}", "measured_frames": 2, "frames_per_video": 2, **report_values},
        }
    )


def picture(value: int) -> dict[str, Any]:
    return {"bytes": encode_jpeg(np.full((64, 64, 3), value, np.uint8)), "path": None}


def write_table(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    tables.write_part(root / "data" / name / "00000.parquet", tables.from_rows(rows, schema.ALL[name]))


def write_dataset(root: Path) -> None:
    """Two kept pictures, a near duplicate, a broken file with a wicked name; one face is accepted, one rejected."""
    common = {"identity": "hopper", "role": "sample", "source": "folder"}
    raw = [{**common, "sample_id": name, "url": f"{name}.jpg", "image": picture(60), "status": "ok"} for name in "abc"]
    broken = {"status": "failed", "error": "truncated", "detail": "no end marker"}
    raw.append({**common, "sample_id": "d", "url": f"{EVIL}.jpg", **broken})
    unique = [{**row, "image": None, "keep": row["sample_id"] != "c"} for row in raw[:3]]
    unique[2] |= {"status": "rejected", "error": "near_duplicate", "duplicate_of": "a"}
    face = {**common, "crop": picture(120), "sharpness": 40.0, "yaw": 3.0, "face_px": 90.0}
    face |= {"landmarks": np.ravel(MEAN_FACE).tolist(), "affine": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]}
    face |= {"pitch": 20.0, "look": bytes([120]) * 256}
    faces = [{**face, "sample_id": name, "face_id": f"{name}-hopper-0", "status": "ok"} for name in "ab"]
    dataset = [{**faces[0], "distance": 0.3, "split": "train"}]
    dataset.append({**faces[1], "distance": 0.8, "status": "rejected", "error": "other_identity"})
    for name, rows in (("raw", raw), ("unique", unique), ("faces", faces), ("dataset", dataset)):
        write_table(root, name, rows)


def write_video(path: Path, pictures: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": "18"})
        stream.height, stream.width = pictures[0].shape[:2]
        for one in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="rgb24")))
        container.mux(stream.encode())


def write_model(root: Path, references: dict[str, list[list[float]]]) -> None:
    meta = {"name": "autoencoder", "preset": "small", "train_coverage": 1.1, "references": references}
    write_json(root / "data" / "model" / "model.json", meta)


def write_conversions(root: Path, hopper: np.ndarray) -> None:
    """A video whose face got a grey bar over the mouth, one that is gone, one that failed."""
    portrait = np.ascontiguousarray(hopper[20:420, 60:460])
    points = DlibPredictor().predict(
        portrait, build_detector("hog", min_face_px=80).detect([portrait])[0].boxes_xyxy[:1]
    )
    reference = Embedder().embed(portrait, points)[0].tolist()
    far = (-np.asarray(reference)).tolist()
    write_model(root, {"hopper": [reference], "collins": [far]})
    barred = portrait.copy()
    x, y = points[0, 48:].mean(axis=0).astype(int)
    barred[y - 8 : y + 8, x - 30 : x + 30] = 128
    write_video(root / "films" / "one two.mp4", [portrait] * 6)
    write_video(root / "data" / "converted" / "one two.mp4", [portrait] * 2 + [barred] * 4)
    row: dict[str, Any] = {"becomes": [{"replaced": "hopper", "new": "collins", "frames": 4}], "status": "ok"}
    row |= {"frames_in": 6, "frames_out": 6, "frames_swapped": 4, "frames_passed": 2, "frames_failed": 0}
    gone = {**row, "video": "gone.mp4", "output": "gone.mp4"}
    failed = {"video": EVIL, "status": "failed", "error": "not_a_video", "detail": "text"}
    write_table(root, "conversions", [{**row, "video": "one two.mp4", "output": "one two.mp4"}, gone, failed])


def written(root: Path) -> tuple[str, dict[str, Any]]:
    folder = root / "data" / "report"
    return (folder / "report.html").read_text(), json.loads((folder / "measures.json").read_text())


class Tags(HTMLParser):
    """Collects tags and whatever a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attributes if name in ("src", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing that is open"


def test_a_report_without_any_data_says_what_is_missing(tmp_path: Path) -> None:
    totals = report.run(params(), tmp_path)
    page, metrics = written(tmp_path)
    assert totals.rows_in == totals.rows_out == 0
    for missing in (
        "Nothing has been collected yet",
        "No model has been trained yet",
        "No video has been converted yet",
    ):
        assert missing in page
    assert metrics == {"dataset": {}, "stages": {}, "training": {}}


def test_what_people_typed_is_escaped_and_nothing_is_fetched(tmp_path: Path, hopper: np.ndarray) -> None:
    write_dataset(tmp_path)
    write_conversions(tmp_path, hopper)
    report.run(params(), tmp_path)
    page, _ = written(tmp_path)
    tags = Tags(page)
    assert not tags.open
    assert "script" not in tags.tags
    assert page.count("&lt;script&gt;") >= 5  # title, rights, file, video, parameters
    assert 'dlib&#39;s 68-point shape predictor</td><td class="keep">research only' in page
    assert tags.fetched
    assert all(address.startswith("data:image/jpeg;base64,") for address in tags.fetched)
    assert not re.search(r"url\(|@import", page)


def test_the_funnel_counts_pictures_and_faces_of_an_identity(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    report.run(params(), tmp_path)
    page, metrics = written(tmp_path)
    counts = {"collected": 4, "readable": 3, "unique": 2, "with_a_face": 2, "faces": 2, "accepted": 1}
    assert metrics["dataset"]["identities"] == {"hopper": {**counts, "train": 1, "val": 0}}
    for shown in ("other identity", "near duplicate", "the picture ends before its last row", "no end marker"):
        assert shown in page
    assert f"under {SAME_PERSON} is the same person" in page


def test_the_page_says_what_the_faces_show_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path)
    report.run(params(), tmp_path)
    page, metrics = written(tmp_path)
    readiness = metrics["dataset"]["readiness"]
    assert {name: one["faces"] for name, one in readiness.items()} == {"collins": 0, "hopper": 1}
    assert readiness["hopper"]["counts"]["pitch"]["looking up by 15 to 30°"] == 1
    assert 'title="looking up by 15 to 30°, frontal: 1" style=' in page
    said = "Fewer than 50 faces are too few to train with."
    lacks = "hopper becomes collins, who is hardly ever frontal (100% of hopper&#39;s), looking up by 15 to 30°"
    assert said in page
    assert lacks in page
    out = capsys.readouterr().out
    assert f"report: hopper: 1 face, readiness {readiness['hopper']['readiness']:.0f} of 100; missing" in out
    assert "report: hopper becomes collins" in out


def test_videos_are_measured_and_what_could_not_be_is_counted(tmp_path: Path, hopper: np.ndarray) -> None:
    write_conversions(tmp_path, hopper)
    totals = report.run(params(), tmp_path)
    page, metrics = written(tmp_path)
    assert (totals.rows_in, totals.state("ok"), totals.state("failed")) == (3, 2, 1)
    assert metrics["videos"] == {
        "total": 3,
        "ok": 2,
        "rejected": 0,
        "failed": 1,
        **{f"frames_{name}": n for name, n in {"in": 12, "out": 12, "swapped": 8, "passed": 4, "failed": 0}.items()},
    }
    measures = metrics["by_video"]["one two.mp4"]["measures"]
    assert (measures["frames"], measures["no_output_face"], measures["no_replaced_face"]) == (2, 0, 0)
    assert measures["replaced_before"] + 0.05 < measures["replaced_after"] < 0.6  # a bar makes her nobody else
    assert measures["psnr_outside_db"] > 40
    assert f"to the nearest reference; under {SAME_PERSON} is the same person" in page
    assert "the original is no longer in the archive" in page
    assert "no video stream that FFmpeg reads: text" in page
    compared = json.loads((tmp_path / "data" / "report" / "metrics.json").read_text())
    assert compared.keys() == {"dataset", "training", "videos", "swap"}
    assert compared["swap"] == metrics["swap"]
    # DVC makes a column of each: as many for three videos as for three thousand, and each a number.
    columns = [value for group in compared.values() for value in group.values()]
    assert len(columns) <= 24
    assert all(isinstance(value, int | float) for value in columns)


def test_people_who_become_each_other_are_measured_apart(
    tmp_path: Path, hopper: np.ndarray, collins: np.ndarray
) -> None:
    """Side by side; Collins' mouth is painted over, which concerns her alone."""
    scene = np.zeros((400, 720, 3), np.uint8)
    scene[:, :400], scene[:300, 420:] = hopper[20:420, 60:460], collins[:300, 80:380]
    detector = build_detector("hog", min_face_px=80)
    boxes = detector.detect([scene])[0].boxes_xyxy
    points = DlibPredictor().predict(scene, boxes[np.argsort(boxes[:, 0])])
    known = Embedder().embed(scene, points)
    write_model(tmp_path, {"hopper": [known[0].tolist()], "collins": [known[1].tolist()]})
    barred = scene.copy()
    x, y = points[1, 48:].mean(axis=0).astype(int)
    barred[y - 8 : y + 8, x - 30 : x + 30] = 128
    write_video(tmp_path / "films" / "both.mp4", [scene] * 3)
    write_video(tmp_path / "data" / "converted" / "both.mp4", [scene] + [barred] * 2)
    pairs = [("collins", "hopper"), ("hopper", "collins")]
    becomes = [{"replaced": replaced, "new": new, "frames": 2} for replaced, new in pairs]
    row = {"video": "both.mp4", "output": "both.mp4", "becomes": becomes, "status": "ok", "frames_swapped": 2}
    write_table(tmp_path, "conversions", [row])
    report.run(params(), tmp_path)
    page, metrics = written(tmp_path)
    apart = metrics["swap_by_pair"]
    assert list(apart) == ["collins-as-hopper", "hopper-as-collins"]
    assert [measures["frames"] for measures in apart.values()] == [2, 2]
    assert metrics["swap"]["frames"] == 4
    assert apart["hopper-as-collins"]["replaced_after"] < 0.2 < apart["collins-as-hopper"]["replaced_after"]
    assert "collins → hopper, hopper → collins" in page


def test_equal_data_make_an_equal_page(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    pages = [written(tmp_path) for _ in range(2) if report.run(params(), tmp_path)]
    assert pages[0] == pages[1]


def test_what_makes_the_report_not_stale_is_not_in_it(tmp_path: Path) -> None:
    """Else a second run has other bytes, and the first shows what is no longer so."""
    write_dataset(tmp_path)
    here = params()
    report.run(here, tmp_path)
    page, _ = written(tmp_path)
    elsewhere = {"cluster": {"kind": "address", "address": "tcp://10.0.0.1:8786"}, "freshness": {"max_age_h": 3}}
    report.run(parse_params(here.model_dump(mode="json") | elsewhere), tmp_path)
    assert written(tmp_path)[0] == page


def test_a_page_stays_within_its_budget() -> None:
    album = Album(budget_bytes=2000)
    uris = [album.add(np.full((80, 80, 3), value, np.uint8), 80) for value in range(0, 250, 10)]
    assert uris[0] is not None
    assert uris[-1] is None
    assert album.refused == uris.count(None)
    assert sum(len(uri) for uri in uris if uri) * 3 / 4 < 2200


def test_a_broken_picture_is_no_thumbnail() -> None:
    assert Album().add_encoded(b"\xff\xd8\xff torn", 80) is None
    assert Album().add_encoded(None, 80) is None


def test_only_wanted_pictures_are_read(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    found = pictures_of(tmp_path / "data" / "raw", schema.RAW, "sample_id", "image", {"b", "d", "nowhere"})
    assert found == {"b": picture(60)["bytes"]}


def test_a_history_is_named_by_its_path_and_survives_a_torn_line(tmp_path: Path) -> None:
    folder = tmp_path / "plots" / "metrics" / "train_loss"
    folder.mkdir(parents=True)
    (folder / "hopper.tsv").write_text("step\thopper\n0\t0.5\n10\t0.25\n20\tnan\n30\t")
    assert read_history(tmp_path) == [Series("train_loss/hopper", [0.0, 10.0], [0.5, 0.25])]


def test_training_shows_the_last_preview_large_and_earlier_ones_small(tmp_path: Path) -> None:
    previews = tmp_path / "data" / "train" / "previews"
    previews.mkdir(parents=True)
    for step in (9, 10, 100):
        (previews / f"step-{step}.jpg").write_bytes(picture(step)["bytes"])
    report.run(params(), tmp_path)
    page, _ = written(tmp_path)
    assert "Preview <small>step 100" in page
    assert re.findall(r"<figcaption>(step \d+)", page) == ["step 9", "step 10"]


def test_stages_tell_what_they_did_and_never_how_long_it_took(tmp_path: Path) -> None:
    metrics = {
        "in": 4,
        "ok": 3,
        "rejected": 1,
        "failed": 0,
        "reasons": {"blurred": 1},
        "val_ssim/hopper": 0.9,
        "frames_swapped": 7,
    }
    write_json(tmp_path / "data" / "metrics" / "curate.json", metrics)
    without_times = gather_stages(tmp_path)
    write_json(times_file(tmp_path, "curate"), {"seconds": 0.5, "worker_seconds": 2.0, "frames_per_second": 7.5})
    assert gather_stages(tmp_path) == without_times  # or the page would be another after each run
    lines = {line.name: line for line in gather_stages(tmp_path)}
    assert lines["curate"].reasons == [("blurred", "the face is not sharp enough", 1)]
    assert lines["curate"].shares == [("ok", 75.0), ("rejected", 25.0)]
    assert lines["curate"].counts == [("frames swapped", 7)]
    assert not lines["train"].ran


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 100, [0, 20, 40, 60, 80, 100]), (0.13, 0.52, [0.2, 0.3, 0.4, 0.5]), (3, 3, [3])]
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_ones_twos_and_fives() -> None:
    assert log_ticks(0.03, 0.6) == pytest.approx([0.05, 0.1, 0.2, 0.5])


def test_a_long_curve_is_thinned_to_means() -> None:
    long = Series("a", list(range(10_000)), [1.0, 3.0] * 5_000)
    short = thinned(long)
    assert len(short.y) == 240
    assert sum(short.y) / len(short.y) == pytest.approx(2.0, abs=0.05)


def test_charts_escape_names_and_take_any_data() -> None:
    assert EVIL not in line_chart([Series(EVIL, [0, 1], [0.0, -1.0])], label=EVIL)
    assert line_chart([Series("flat", [0.0], [0.5])], label="one point").startswith("<svg")
    assert line_chart([], label="none") == ""
    assert histogram({"a": [], "b": []}, label="none") == ""
    assert histogram({"a": [2.0, 2.0], "b": []}, label="all equal").count("<rect") == 1


def test_a_timeline_has_a_line_for_each_name_and_a_bar_for_each_span() -> None:
    drawn = timeline([("a<b>", 0, [(0.0, 2.0), (3.0, 3.0)]), ("others", 1, [(1.0, 4.0)])], length=4.0, label="who")
    bars = ElementTree.fromstring(str(drawn)).findall(".//{*}rect")
    places = [(bar.get("class"), float(bar.get("x") or 0), float(bar.get("width") or 0)) for bar in bars]
    whole = places[2][2] / 3  # a second
    assert [kind for kind, _, _ in places] == ["bar s0", "bar s0", "bar s1"]
    assert places[0][2] == pytest.approx(2 * whole, abs=0.2)
    assert places[1] == ("bar s0", pytest.approx(places[0][1] + 3 * whole, abs=0.2), 1.0)  # a moment is seen, too
    assert "a&lt;b&gt;" in drawn


def test_curves_of_a_family_share_a_chart(tmp_path: Path) -> None:
    for name in ("train_loss/hopper", "train_loss/collins", "val_loss/mae/hopper"):
        path = tmp_path / "data" / "train" / "curves" / "plots" / "metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"step\t{path.stem}\n1\t0.5\n2\t0.25\n")
    report.run(params(), tmp_path)
    page, metrics = written(tmp_path)
    assert page.count("<polyline") == 3
    assert [page.count(f"<h3>{heading} ") for heading in ("Training loss", "Validation loss")] == [1, 1]
    assert metrics["training"]["final"]["val_loss/mae/hopper"] == 0.25


def test_a_family_of_many_losses_has_a_chart_for_each(tmp_path: Path) -> None:
    for name in [f"{loss}/{who}" for loss in ("edge", "eyes", "mask") for who in ("anna", "bert", "cleo")] + ["decay"]:
        path = tmp_path / "data" / "train" / "curves" / "plots" / "metrics" / "train_loss" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"step\t{path.stem}\n1\t0.5\n2\t0.25\n")
    report.run(params(), tmp_path)
    page, _ = written(tmp_path)
    assert [page.count(f"<h3>Training loss{loss} ") for loss in (": edge", ": eyes", ": mask", "")] == [1, 1, 1, 1]
    assert page.count("<polyline") == 10
