"""params.yaml: what is shipped is right, what is wrong is named with its path."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from facemill import device_choice, rights
from facemill.errors import FacemillError
from facemill.sources import SOURCES
from facemill.swap import settings as swap_settings
from facemill.track import settings as track_settings
from facemill.train import settings as train_settings
from facemill.video import encoder
from tasks import params
from tasks.params import check_groups, load_params, parse_params
from tasks.stages import PARAM_GROUPS

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = sorted([PROJECT / "params.yaml", *PROJECT.glob("docs/examples/*/params.yaml")])


def values() -> dict[str, Any]:
    return yaml.safe_load((PROJECT / "params.yaml").read_text())


def keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from keys(value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_parameters_are_valid(path: Path) -> None:
    load_params(path.parent)


SETTINGS = [params, rights, device_choice, train_settings, track_settings, swap_settings, encoder]
SETTINGS += [inspect.getmodule(source) for source in SOURCES.values()]


@pytest.mark.parametrize("module", SETTINGS, ids=lambda module: module.__name__)
def test_every_key_is_explained_where_it_is_declared(module: ModuleType) -> None:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
            for field, below in pairwise([*node.body, None]):
                match field:
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=kind) if not is_plain(kind):
                        assert isinstance(below, ast.Expr), f"{node.name}.{name}"


def is_plain(annotation: ast.expr) -> bool:
    """Whether what is declared is no key with a meaning of its own: the word for a class, a group, or a constant."""
    written = ast.unparse(annotation)
    words = written.count("'") == 2 and written.startswith("Literal[")
    return words or written.startswith("ClassVar[") or (written.endswith("Params") and "[" not in written)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_no_key_that_dvc_run_cache_ignores(path: Path) -> None:
    assert not {"size", "nfiles"} & set(keys(yaml.safe_load(path.read_text())))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("train", "learning_rat"), 1, "train.learning_rat: unknown key; did you mean 'learning_rate'?"),
        (("train", "steps"), 0, "train.steps: Input should be greater than or equal to 1 (got 0)"),
        (
            ("convert", "becomes"),
            {"hopper": "nobody"},
            "convert.becomes: no identity 'nobody'; known are collins, hopper",
        ),
        (("convert", "becomes"), {"hopper": "hopper"}, "convert.becomes: hopper becomes hopper"),
        (("convert", "becomes"), {}, "convert.becomes: Dictionary should have at least 1 item"),
        (("convert", "becomes"), None, "convert.becomes: "),
        (
            ("convert", "source"),
            "hopper",
            "convert.source: unknown key; write `convert: {becomes: {bert: anna}}`: Bert becomes Anna",
        ),
        (
            ("convert", "target"),
            "hopper",
            "convert.target: unknown key; write `convert: {becomes: {bert: anna}}`: Bert becomes Anna",
        ),
        (("archive", "kind"), "tape", "archive.kind: there is no 'tape'; there are 'sample', 'folder'"),
        (("archive",), {"seconds": 1}, "archive.kind: missing"),
        (
            ("archive",),
            {"kind": "folder", "path": ""},
            "archive.path: String should have at least 1 character",
        ),
        (
            ("identities", "hopper", "sources", 0, "kind"),
            "tape",
            "hopper.sources.0.kind: there is no 'tape'",
        ),
        (("identities", "hopper", "sources", 0), {"kind": "folder"}, "identities.hopper.sources.0.path: missing"),
        (
            ("identities", "hopper", "sources", 0, "pictures"),
            True,
            "0.pictures: Input should be a valid integer",
        ),
        (("identities", "hopper", "sources", 0, "person"), 3, "valid string (got 3); put it in quotes"),
        (("identities", "hopper", "references", 0), "", "identities.hopper.references.0: String should have"),
        (("train", "steps"), True, "train.steps: Input should be a valid integer (got true)"),
        (("train", "steps"), "2000", "train.steps: Input should be a valid integer (got '2000')"),
        (("train", "steps"), 1e3, "train.steps: Input should be a valid integer (got 1000.0)"),
        (("train", "learning_rate"), "fast", "train.learning_rate: Input should be a valid number"),
        (("train", "model"), 3, "train.model: Input should be a valid string (got 3); put it in quotes"),
        (("train", "deterministic"), 1, "train.deterministic: Input should be a valid boolean (got 1)"),
        (("train", "preview_every"), 9, "train.preview_every: unknown key; write `train: {evaluate_every: …}`"),
        (("train", "log_every"), 0, "train.log_every: Input should be greater than or equal to 1 (got 0)"),
        (("train", "processes"), 0, "train.processes: Input should be greater than or equal to 1 (got 0); or Input"),
        (("train",), None, "train: Input should be an object (got null)"),
        (("report", "title"), "x" * 99 + "\ud800", "report.title: a character that no text can hold"),
        (("train", "deadline_s"), float("nan"), "train.deadline_s: no number"),
        (("train", "save_every"), 10**40, "train.save_every: a number beyond"),
        (("train", "options"), {"size": 1}, "train.options: a key must not be called 'size'"),
        (("train", "coverage"), 3.0, "train.coverage is larger than extract.coverage"),
        (("convert", "crf"), 18, "convert.crf: unknown key; write `convert: {encoder: {crf: …}}`"),
        (("convert", "encoder"), {"crff": 18}, "convert.encoder.crff: unknown key; did you mean 'crf'?"),
        (("train", "augment"), {"rotation": 9}, "train.augment.rotation: unknown key; did you mean 'rotation_deg'?"),
        (("train", "augment"), {"flip": 2}, "train.augment.flip: Input should be less than or equal to 1 (got 2)"),
        (("convert", "encoder"), {"crf": 52}, "convert.encoder.crf: Input should be less than or equal to 51 (got 52)"),
        (("convert", "encoder"), "libx265", "convert.encoder: write `convert: {encoder: {name: libx265}}`"),
        (
            ("convert", "encoder_preset"),
            "fast",
            "convert.encoder_preset: unknown key; write `convert: {encoder: {preset",
        ),
        (("archive", "secconds"), 1, "archive.secconds: unknown key; did you mean 'seconds'?"),
        (("identities", "hopper", "sources", 0, "persn"), 1, "identities.hopper.sources.0.persn: unknown key"),
        (("identities", "hopper", "rights", "evidence"), " " * 9, "identities.hopper.rights.evidence"),
        (("identities", "hopper", "references"), [], "identities.hopper.references"),
    ],
)
def test_wrong_value_is_named_with_its_path(path: tuple[str | int, ...], value: Any, message: str) -> None:
    changed = values()
    node: Any = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(FacemillError) as error:
        parse_params(changed)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_all_wrong_values_are_named_at_once() -> None:
    changed = values()
    changed["train"]["steps"] = "many"
    changed["extract"]["crop_px"] = 1
    with pytest.raises(FacemillError, match=r"(?s)2 wrong value.*crop_px.*steps"):
        parse_params(changed)


def test_an_identity_without_rights_is_refused() -> None:
    changed = values()
    del changed["identities"]["hopper"]["rights"]
    with pytest.raises(FacemillError, match=r"identities\.hopper\.rights: missing \(state on what ground"):
        parse_params(changed)


def test_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="run this in the project's folder"):
        load_params(tmp_path)


def test_broken_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(FacemillError, match="is not YAML"):
        load_params(tmp_path)


def test_a_group_that_dvc_wants_is_asked_for_even_where_all_of_it_has_defaults(tmp_path: Path) -> None:
    changed = values()
    del changed["dedup"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(FacemillError, match=r"lacks dedup: DVC wants each of them; write `dedup: \{\}`"):
        check_groups(tmp_path, PARAM_GROUPS)


def test_cross_checks_are_named_together() -> None:
    changed = values()
    changed["convert"]["becomes"] = {"ann": "bert", "hopper": "hopper"}
    with pytest.raises(FacemillError, match=r"(?s)no identity 'ann'.*no identity 'bert'.*hopper becomes hopper"):
        parse_params(changed)
