"""The stage `dedup` on small tables made from the portraits."""

import cv2
import numpy as np
import pytest

from facemill import tables
from facemill.errors import FacemillError
from facemill.picture_hash import detail
from facemill.pictures import encode_jpeg, encode_png, sha256_hex
from facemill.schema import RAW, UNIQUE
from tasks import dedup
from tasks.params import DedupParams, parse_params

SOURCE = {"kind": "folder", "path": "photos"}
IDENTITY = {"rights": {"basis": "own", "evidence": "a test's own"}, "references": ["r"], "sources": [SOURCE]}


@pytest.fixture
def params():
    """Two identities, work done in this process."""
    return parse_params(
        {
            "identities": {"anna": IDENTITY, "bert": IDENTITY},
            "archive": {"kind": "sample"},
            "convert": {"becomes": {"anna": "bert"}},
            "cluster": {"kind": "inline"},
        }
    )


def raw_row(url, data, *, identity="anna", role="sample", licence="", **more):
    height, width = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    row = {"sample_id": sha256_hex(data), "identity": identity, "role": role, "source": "folder", "url": url}
    picture = {"image": {"bytes": data, "path": None}, "width": width, "height": height}
    return row | picture | {"licence": licence, "status": "ok"} | more


def judged(root, params, rows, parts=1):
    """Runs the stage on these rows and gives the result by url."""
    for part in range(parts):
        table = tables.from_rows(rows[part::parts], RAW)
        tables.write_part(root / "data" / "raw" / f"{part:05d}.parquet", table)
    totals = dedup.run(params, root)
    assert totals.rows_in == totals.rows_out == len(rows)
    return {row["url"]: row for row in tables.iterate_rows(root / "data" / "unique", UNIQUE)}


def test_the_best_copy_stays_and_the_others_say_of_what_they_are_copies(tmp_path, params, hopper):
    small = cv2.resize(hopper, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    best = encode_png(hopper)
    rows = [raw_row("small", encode_jpeg(small)), raw_row("best", best), raw_row("again", best)]
    found = judged(tmp_path, params, rows)
    assert {url: (row["status"], row["error"], row["keep"]) for url, row in found.items()} == {
        "small": ("rejected", "near_duplicate", False),
        "best": ("rejected", "exact_duplicate", False),
        "again": ("ok", None, True),
    }
    assert found["small"]["duplicate_of"] == found["again"]["sample_id"]
    assert found["small"]["distance"] <= 4
    assert found["small"]["detail"] == "of again"
    assert found["again"]["image"]["bytes"] == best
    assert found["small"]["image"] is None


def test_a_small_reference_stays_before_a_large_sample(tmp_path, params, hopper):
    small = cv2.resize(hopper, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    rows = [raw_row("large", encode_png(hopper)), raw_row("reference", encode_png(small), role="reference")]
    found = judged(tmp_path, params, rows)
    assert [found[url]["keep"] for url in ("large", "reference")] == [False, True]


def test_an_enlarged_thumbnail_falls_to_the_sharp_original(tmp_path, params, hopper):
    small = cv2.resize(hopper, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    rows = [raw_row("enlarged", encode_png(enlarged)), raw_row("original", encode_jpeg(hopper, 80))]
    found = judged(tmp_path, params, rows)
    assert [found[url]["keep"] for url in ("enlarged", "original")] == [False, True]


def test_of_equal_detail_the_larger_copy_stays(tmp_path, params, hopper):
    soft = cv2.GaussianBlur(hopper, (0, 0), 6)
    smaller = cv2.resize(soft, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    rows = [raw_row("smaller", encode_png(smaller)), raw_row("larger", encode_png(soft))]
    assert judged(tmp_path, params, rows)["larger"]["keep"]


def test_of_equal_detail_and_size_the_sharper_copy_stays(tmp_path, params, hopper):
    blurs = [cv2.GaussianBlur(hopper, (0, 0), deviation_px) for deviation_px in (2, 2.02, 2.04)]
    rows = [raw_row(str(at), encode_png(picture)) for at, picture in enumerate(blurs)]
    shares = [detail(row["image"]["bytes"]).share for row in rows]
    assert shares == pytest.approx(shares[:1] * 3, rel=0.02)
    assert judged(tmp_path, params, rows)["0"]["keep"]


def test_frames_of_videos_fall_for_equal_bytes_alone(tmp_path, params, hopper):
    frames = [raw_row(f"talk.mp4#pts={n}@1/1", encode_jpeg(hopper, 90 - n), pts=n, shot=0) for n in range(3)]
    again = frames[0] | {"url": "talk.mp4#pts=9@1/1", "pts": 9}
    found = judged(tmp_path, params, [*frames, again])
    assert [found[row["url"]]["error"] for row in (*frames, again)] == [None, None, None, "exact_duplicate"]


def test_only_wanted_licences_are_taken_and_stand_before_freer_ones(tmp_path, params, hopper, collins):
    some = params.model_copy(update={"dedup": DedupParams(licences=["CC-BY-4.0"])})
    rows = [
        raw_row("free", encode_png(hopper), licence="CC0"),
        raw_row("wanted", encode_jpeg(hopper, 60), licence="https://creativecommons.org/licenses/by/4.0/deed.de"),
        raw_row("none", encode_png(collins), role="reference"),
    ]
    found = judged(tmp_path, some, rows)
    assert {url: row["error"] for url, row in found.items()} == {
        "free": "unwanted_licence",
        "wanted": None,
        "none": "unwanted_licence",
    }
    assert found["free"]["image"] is None


def test_a_free_copy_stays_before_an_unknown_one(tmp_path, params, hopper):
    rows = [raw_row("unknown", encode_jpeg(hopper)), raw_row("free", encode_jpeg(hopper, 50), licence="CC0")]
    assert judged(tmp_path, params, rows)["free"]["keep"]


def test_a_picture_collected_for_two_people_stays_with_both_in_one_cluster(tmp_path, params, hopper, collins):
    data = encode_png(hopper)
    rows = [raw_row("a", data), raw_row("b", data, identity="bert"), raw_row("c", encode_png(collins), identity="bert")]
    found = judged(tmp_path, params, rows)
    assert all(row["keep"] for row in found.values())
    assert found["a"]["cluster"] == found["b"]["cluster"] == found["a"]["sample_id"] != found["c"]["cluster"]


def test_rows_that_had_failed_pass_through_and_broken_bytes_fail_here(tmp_path, params, collins):
    missing = {"sample_id": "0" * 64, "identity": "anna", "url": "gone", "status": "failed", "error": "empty_file"}
    broken = raw_row("broken", encode_png(collins)) | {"image": {"bytes": b"no picture", "path": None}}
    found = judged(tmp_path, params, [missing, broken, raw_row("good", encode_png(collins))])
    assert {url: (row["status"], row["error"]) for url, row in found.items()} == {
        "gone": ("failed", "empty_file"),
        "broken": ("failed", "not_a_picture"),
        "good": ("ok", None),
    }


def test_the_verdict_does_not_depend_on_the_order_or_the_parts(tmp_path, params, hopper, collins):
    pictures = {"h": hopper, "h2": cv2.resize(hopper, (300, 350)), "c": collins, "c2": collins[2:, 2:].copy()}
    rows = [raw_row(url, encode_jpeg(picture)) for url, picture in pictures.items()]
    first = judged(tmp_path / "a", params, rows)
    second = judged(tmp_path / "b", params, rows[::-1], parts=3)
    assert first == second
    assert [url for url, row in first.items() if row["keep"]] == ["h", "c"]


def test_run_again_gives_the_same_bytes_and_hashes_nothing(tmp_path, params, hopper, capsys):
    judged(tmp_path, params, [raw_row("h", encode_png(hopper))])
    before = (tmp_path / "data/unique/00000.parquet").read_bytes()
    capsys.readouterr()
    dedup.run(params, tmp_path)
    assert (tmp_path / "data/unique/00000.parquet").read_bytes() == before
    assert "Stage dedup has nothing to do: 1 of 1 parts" in capsys.readouterr().out


def test_without_raw_the_error_says_what_to_run_first(tmp_path, params):
    with pytest.raises(FacemillError, match=r"raw is missing.*run its stage first"):
        dedup.run(params, tmp_path)
