"""The stage `extract` on a table with the portraits, a faceless picture and a broken one."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from facemill import tables
from facemill.align import crop_affine, transform
from facemill.detect._mtcnn_weights import wheel_folder
from facemill.embeddings import SAME_PERSON, distance
from facemill.errors import FacemillError, InputError
from facemill.landmarks import signature
from facemill.pictures import decode, encode_jpeg, encode_png, sha256_hex
from facemill.quality import LEAST_PRESENCE
from facemill.schema import FACES, UNIQUE
from tasks import extract
from tasks.params import parse_params
from tasks.work.results import Shard

IDENTITY = {
    "rights": {"basis": "own", "evidence": "a test's own"},
    "references": ["r"],
    "sources": [{"kind": "folder", "path": "p"}],
}


def params_with(cluster="inline", **more):
    return parse_params(
        {
            "identities": {"anna": IDENTITY, "bert": IDENTITY},
            "archive": {"kind": "sample"},
            "convert": {"becomes": {"anna": "bert"}},
            "cluster": {"kind": cluster, "workers": 2},
            "extract": {"rows_per_shard": 2, "failure_limit": 0.5, **more},
        }
    )


def unique_row(url, data, *, keep=True):
    image = {"bytes": data, "path": None} if keep else None
    sample = sha256_hex(url.encode())
    row = {"sample_id": sample, "identity": "anna", "role": "sample", "source": "folder", "url": url, "cluster": sample}
    return row | {"image": image, "keep": keep, "status": "ok" if keep else "rejected"}


@pytest.fixture
def project(tmp_path, hopper, collins):
    """`unique` with both portraits, one picture of both, one without a face, one broken, one that is not kept."""
    both = np.concatenate([hopper[70:370], collins[:300]], axis=1)
    faceless = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    rows = [
        unique_row("hopper", encode_jpeg(hopper)),
        unique_row("faceless", encode_png(faceless)),
        unique_row("dropped", b"", keep=False),
        unique_row("both", encode_jpeg(both)),
        unique_row("broken", encode_jpeg(collins)[:4000]),
    ]
    tables.write_part(tmp_path / "data/unique/00000.parquet", tables.from_rows(rows, UNIQUE))
    return tmp_path


def faces_in(root):
    return list(tables.iterate_rows(root / "data" / "faces", FACES))


def test_every_kept_picture_ends_in_one_state_and_every_face_in_one_row(project):
    totals = extract.run(params_with(), project)
    assert totals.counts == {"ok": {"": 2}, "rejected": {"no_face": 1}, "failed": {"truncated": 1}}
    assert totals.rows_in == 4
    assert totals.extra == {"faces": 3}
    found = [(row["url"], row["face_index"], row["status"], row["error"]) for row in faces_in(project)]
    assert found == [
        ("hopper", 0, "ok", None),
        ("faceless", None, "rejected", "no_face"),
        ("both", 0, "ok", None),
        ("both", 1, "ok", None),
        ("broken", None, "failed", "truncated"),
    ]


def test_a_face_row_holds_what_belongs_together(project, hopper):
    extract.run(params_with(), project)
    row = faces_in(project)[0]
    points, affine = np.reshape(row["landmarks"], (68, 2)), np.reshape(row["affine"], (2, 3))
    np.testing.assert_allclose(affine, crop_affine(points, 256, 1.6))
    crop = decode(row["crop"]["bytes"])
    assert crop.shape == (256, 256, 3)
    x, y = np.rint(points[30]).astype(int)
    at_x, at_y = np.rint(transform(points[30], affine)).astype(int)
    assert np.abs(crop[at_y, at_x].astype(int) - hopper[y, x]).max() < 40
    assert row["face_px"] == pytest.approx(min(row["box"][2] - row["box"][0], row["box"][3] - row["box"][1]))
    assert max(abs(row["yaw"]), abs(row["pitch"]), abs(row["roll"])) < 12
    assert row["visibility"] == 1
    assert 0 <= row["doubt"] < 0.1
    assert row["presence"] is None  # dlib does not tell
    assert row["sharpness"] > 100
    assert len({row["face_id"] for row in faces_in(project)}) == 5


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_that_lies_on_its_side_or_head_is_found(hopper, turns):
    """As if the picture had been upright: the same crop, from the pixels of the picture as it is."""
    tools = extract.load_tools(params_with(max_side_px=400, min_face_px=40).extract)
    upright, origin = hopper[:, :-40], {"sample_id": "0" * 64, "identity": "anna"}
    rows = []
    for picture in (upright, np.ascontiguousarray(np.rot90(upright, -turns))):
        [found] = extract.find([picture], tools)
        rows.append(extract.faces_of(picture, found, origin, tools)[0])
    straight, lying = rows
    assert found.turns == turns
    assert np.abs(decode(lying["crop"]["bytes"]).astype(int) - decode(straight["crop"]["bytes"])).mean() < 2
    assert distance(np.array(straight["embedding"]), np.array(lying["embedding"])) < 0.05
    points, (x1, y1, x2, y2) = np.reshape(lying["landmarks"], (68, 2)), lying["box"]
    assert x1 < points[:, 0].mean() < x2
    assert y1 < points[:, 1].mean() < y2
    assert x2 - x1 == pytest.approx(y2 - y1, rel=0.5)
    poses = [[row[name] for name in ("yaw", "pitch", "roll")] for row in rows]
    assert poses[1] == pytest.approx(poses[0], abs=1)


@pytest.mark.parametrize("turns", [1, 3])
def test_mtcnn_finds_it_in_the_picture_as_it_is_or_turned(hopper, turns):
    """Not always upside down: there it takes some faces for upright ones, and puts the mouth where the eyes are."""
    tools = extract.load_tools(params_with(detector="mtcnn", min_face_px=40).extract)
    rows = []
    for picture in (hopper, np.ascontiguousarray(np.rot90(hopper, -turns))):
        [found] = extract.find([picture], tools)
        rows.append(extract.faces_of(picture, found, {"sample_id": "0" * 64, "identity": "anna"}, tools)[0])
    assert distance(*(np.array(row["embedding"]) for row in rows)) < SAME_PERSON / 2


def test_another_licence_or_author_is_no_reason_to_look_again(project):
    part = project / "data/unique/00000.parquet"
    extract.run(params_with(), project)
    before = [path.read_bytes() for path in tables.parts(project / "data/faces")]
    rows = [
        row | {"licence": "CC0", "author": "Bo", "page": "https://a.example/"} for row in tables.part_rows(part, UNIQUE)
    ]
    tables.write_part(part, tables.from_rows(rows, UNIQUE))
    assert extract.run(params_with(), project).worked == 0
    assert [path.read_bytes() for path in tables.parts(project / "data/faces")] == before


def test_what_was_not_looked_for_is_told_from_no_face(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    rows = [unique_row("small", encode_png(noise[:60])), unique_row("large", encode_png(noise))]
    tables.write_part(tmp_path / "data/unique/00000.parquet", tables.from_rows(rows, UNIQUE))
    extract.run(params_with(max_side_px=200, min_face_px=50, failure_limit=1.0), tmp_path)
    assert [(row["error"], row["detail"]) for row in faces_in(tmp_path)] == [
        ("face_too_small", "not looked for: the picture has 400×60 px, and faces smaller than 100 px are not"),
        ("no_face", "by hog, from 100 px on, turned as well"),
    ]


def test_the_embedding_knows_the_same_face_in_another_picture(project):
    extract.run(params_with(), project)
    faces = [np.array(row["embedding"]) for row in faces_in(project) if row["status"] == "ok"]
    near = sorted(float(distance(faces[0], other)) for other in faces[1:])
    assert near[0] < SAME_PERSON / 2 < SAME_PERSON < near[1]


def test_a_large_picture_is_searched_small_and_cut_from_the_original(project):
    extract.run(params_with(max_side_px=300, min_face_px=60), project)
    small = faces_in(project)[0]
    extract.run(params_with(min_face_px=60), project)
    full = faces_in(project)[0]
    np.testing.assert_allclose(small["box"], full["box"], atol=30)
    assert small["sharpness"] == pytest.approx(full["sharpness"], rel=0.3)


def test_mtcnn_fills_the_same_columns(project):
    totals = extract.run(params_with(detector="mtcnn", min_face_px=60), project)
    assert totals.extra == {"faces": 3}
    assert {row["detector"] for row in faces_in(project) if row["status"] == "ok"} == {"mtcnn"}


def test_two_dask_workers_give_the_bytes_of_a_bare_loop(project):
    extract.run(params_with(), project)
    alone = [path.read_bytes() for path in tables.parts(project / "data/faces")]
    shutil.rmtree(project / ".work")
    extract.run(params_with("local"), project)
    assert [path.read_bytes() for path in tables.parts(project / "data/faces")] == alone


def test_killed_after_its_first_shard_it_ends_with_the_same_bytes(project, monkeypatch):
    extract.run(params_with(), project)
    whole = [path.read_bytes() for path in tables.parts(project / "data/faces")]
    worked, real = [], extract.extract_shard

    def killed(shard):
        if worked:
            raise KeyboardInterrupt
        return work(shard)

    def work(shard):
        worked.append([row["url"] for row, _ in shard.items])
        return real(shard)

    shutil.rmtree(project / ".work")
    monkeypatch.setattr(extract, "extract_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        extract.run(params_with(), project)
    monkeypatch.setattr(extract, "extract_shard", work)
    extract.run(params_with(), project)
    assert worked == [["hopper", "faceless"], ["both", "broken"]]
    assert [path.read_bytes() for path in tables.parts(project / "data/faces")] == whole


def test_a_defect_on_one_picture_costs_that_row_and_no_neighbour(project, monkeypatch):
    def broken(picture, found, origin, tools):
        if origin["url"] == "faceless":
            raise ZeroDivisionError("a defect")
        return real(picture, found, origin, tools)

    real = extract.faces_of
    monkeypatch.setattr(extract, "faces_of", broken)
    totals = extract.run(params_with(), project)
    assert totals.counts["failed"] == {"processing_error": 1, "truncated": 1}
    assert totals.counts["ok"] == {"": 2}
    assert faces_in(project)[1]["detail"] == "ZeroDivisionError: a defect"


class Poisoned:
    """A real detector that breaks down on one picture, in whatever company."""

    def __init__(self, detector, poison_hw):
        self.detector, self.poison_hw, self.asked = detector, poison_hw, []
        self.name, self.box_convention = detector.name, detector.box_convention

    def detect(self, pictures):
        self.asked.append(len(pictures))
        if any(picture.shape[:2] == self.poison_hw for picture in pictures):
            raise MemoryError("poison")
        return self.detector.detect(pictures)


def test_a_picture_that_makes_the_search_fail_is_found_and_its_neighbours_are_kept(project, monkeypatch):
    params = params_with(detector="mtcnn", min_face_px=60, rows_per_shard=4)
    extract.run(params, project)
    healthy = faces_in(project)
    tools = extract.load_tools(params.extract)
    poisoned = Poisoned(tools.detector, (90, 120))
    monkeypatch.setattr(extract, "load_tools", lambda *_: replace(tools, detector=poisoned))
    shutil.rmtree(project / ".work")
    totals = extract.run(params, project)
    assert totals.counts == {"ok": {"": 2}, "failed": {"processing_error": 1, "truncated": 1}}
    assert poisoned.asked == [3, 1, 1, 1]
    rows = faces_in(project)
    assert rows[1]["detail"] == "MemoryError: poison"
    for row, before in zip([rows[0], *rows[2:]], [healthy[0], *healthy[2:]], strict=True):
        assert row == before


def test_a_picture_has_the_same_rows_to_the_bit_whatever_it_is_searched_with(project, monkeypatch):
    params = params_with(detector="mtcnn", min_face_px=60, rows_per_shard=4)
    extract.run(params, project)
    together = faces_in(project)
    monkeypatch.setattr(extract, "BATCH_PX", 1)
    extract.run(params_with(detector="mtcnn", min_face_px=60, rows_per_shard=1), project)
    assert faces_in(project) == together


def test_batches_are_bounded_by_pixels_and_keep_the_order(hopper, monkeypatch):
    monkeypatch.setattr(extract, "BATCH_PX", 3 * 90 * 100)
    data = [encode_png(hopper[:90, :100]), b"not a picture", *[encode_png(hopper[:90, :100])] * 3]
    data += [encode_png(hopper[:400, :400]), encode_png(hopper[:1, :1])]
    rows = [dict.fromkeys(extract._CARRIED, at) | {"image": {"bytes": data[at]}} for at in range(7)]
    batches = list(extract._batches(rows))
    assert [[origin["url"] for origin, _ in batch] for batch in batches] == [[0, 1, 2, 3], [4], [5], [6]]
    assert isinstance(batches[0][1][1], InputError)


def test_a_detector_takes_its_options_and_its_weights_count_by_content(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(wheel_folder(), tmp_path / "nets", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    params = params_with(detector="mtcnn", min_face_px=60, detector_options={"weights": "~/nets", "pools": "onnx"})
    extract.run(params, project)
    assert {row["detector"] for row in faces_in(project) if row["status"] == "ok"} == {"mtcnn"}
    extract.run(params, project)
    assert "nothing to do" in capsys.readouterr().out
    (tmp_path / "nets" / "note").write_text("another content of the folder")
    extract.run(params, project)
    assert "nothing to do" not in capsys.readouterr().out


def test_hog_finds_smaller_faces_in_an_enlarged_picture(project):
    few, more = (
        extract.run(params_with(min_face_px=40, max_side_px=200, detector_options=options), project).extra["faces"]
        for options in ({}, {"upsample": 1})
    )
    assert more > few


def test_more_failures_than_the_limit_end_the_stage_with_the_remedy(project):
    with pytest.raises(FacemillError, match=r"1 of 4 rows failed \(1 truncated\), limit 10%.*--retry"):
        extract.run(params_with(failure_limit=0.1), project)


def test_models_are_loaded_once_for_the_same_parameters(project):
    [part] = tables.parts(project / "data/unique")
    item = list(extract.pictures_of(part))[1]
    extract.load_tools.cache_clear()
    for _ in range(2):
        extract.extract_shard(Shard((item.value,), params_with().extract))
    assert extract.load_tools.cache_info().misses == 1


def test_models_are_loaded_again_when_another_file_lies_under_the_same_name(project, mesh_weights, tmp_path):
    [part] = tables.parts(project / "data/unique")
    item = list(extract.pictures_of(part))[1]
    weights = tmp_path / "weights"
    params = params_with(landmarks="mesh", landmark_options={"weights": str(weights)}).extract
    extract.load_tools.cache_clear()
    for _ in range(2):
        weights.unlink(missing_ok=True)
        shutil.copy(mesh_weights, weights)
        extract.extract_shard(Shard((item.value,), params))
        extract.extract_shard(Shard((item.value,), params))
    assert extract.load_tools.cache_info().misses == 2


def test_each_face_says_whose_landmarks_it_has(project, mesh_weights):
    extract.run(params_with(), project)
    by_dlib = {row["face_id"]: row for row in faces_in(project) if row["status"] == "ok"}
    assert {row["predictor"] for row in by_dlib.values()} == {signature("dlib")}
    weights = project / "mesh.tflite"
    shutil.copy(mesh_weights, weights)
    totals = extract.run(params_with(landmarks="mesh", landmark_options={"weights": "mesh.tflite"}), project)
    assert totals.worked == 4  # what dlib has found counts for nothing
    by_mesh = {row["face_id"]: row for row in faces_in(project) if row["status"] == "ok"}
    assert {row["predictor"] for row in by_mesh.values()} == {signature("mesh")}
    assert all(row["presence"] > LEAST_PRESENCE for row in by_mesh.values())
    for face_id, row in by_mesh.items():
        points, others = (np.reshape(each[face_id]["landmarks"], (68, 2)) for each in (by_mesh, by_dlib))
        apart = np.linalg.norm(points[36] - points[45])
        assert 0.005 < np.linalg.norm(points - others, axis=1).mean() / apart < 0.1, row["url"]


def test_landmark_options_that_cannot_be_used_are_said_before_any_face_is_looked_for(project):
    with pytest.raises(FacemillError, match=r"there is no file or folder .*gone.tflite"):
        extract.run(params_with(landmarks="mesh", landmark_options={"weights": "gone.tflite"}), project)
    with pytest.raises(FacemillError, match="no landmark predictor 'mash'; there are dlib, mesh"):
        extract.run(params_with(landmarks="mash"), project)
