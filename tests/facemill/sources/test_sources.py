"""What every source promises by being registered: its kind, its parameters, its references."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from pathlib import Path

import pytest
from pydantic import ConfigDict, ValidationError, create_model

from facemill.errors import FacemillError
from facemill.sources import SOURCES, Source, network_kinds, reference_source
from facemill.sources.folder import FolderSource
from facemill.sources.sample import SampleSource
from facemill.sources.video import VideoSource

KINDS = SOURCES.names()


def read(kind: str, /, **fields: object) -> Source:
    """A source as params.yaml gives it; what it cannot be without is text."""
    holder = create_model("Holder", source=(SOURCES[kind], ...), __config__=ConfigDict(extra="forbid"))
    needed = [
        field
        for field in dataclasses.fields(SOURCES[kind])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return holder(source={"kind": kind} | {field.name: "x" for field in needed} | fields).source


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_one_module_that_is_named_after_its_kind(kind: str) -> None:
    class_ = SOURCES[kind]
    assert class_.__module__ == f"facemill.sources.{kind}"
    assert class_.kind == kind
    assert dataclasses.is_dataclass(class_)
    assert class_.__dataclass_params__.frozen


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_reads_its_parameters_and_refuses_others(kind: str) -> None:
    source = read(kind)
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(ValidationError, match="keyword argument"):
        read(kind, colour="red")
    with pytest.raises(ValidationError, match="kind"):
        read(kind, kind="another")


def test_the_search_asks_the_network_and_files_are_here() -> None:
    assert network_kinds() & {"folder", "google", "sample", "video"} == {"google"}


@pytest.mark.parametrize(
    ("reference", "source"),
    [
        ("anna.jpg", FolderSource(path="anna.jpg")),
        ("~/footage/anna", FolderSource(path="~/footage/anna")),
        ("./sample:anna", FolderSource(path="./sample:anna")),
        ("talks/a talk.MP4", VideoSource(path="talks/a talk.MP4", every_s=2.0, max_frames=5, min_face_px=20)),
        ("sample:hopper", SampleSource(person="hopper")),
        ("sample:hopper.mp4", SampleSource(person="hopper.mp4")),
    ],
)
def test_a_reference_means_one_source(reference: str, source: Source) -> None:
    assert reference_source(reference) == source


def test_a_reference_that_nobody_answers_for_is_one_clear_error() -> None:
    with pytest.raises(FacemillError, match=r"'tape:anna' is neither a path nor .*folder, .*sample"):
        reference_source("tape:anna")


NEW_KIND = """
from dataclasses import dataclass
from typing import ClassVar, Literal
from facemill.sources import References, Source, register

@register
@dataclass(frozen=True, kw_only=True)
class New(Source):
    references: ClassVar[References] = References(prefix="{kind}:", suffixes=[".zip"])
    kind: Literal["{kind}"] = "{kind}"
    path: str

    def plan(self, identity, role, around):
        return []

    @staticmethod
    def fetch(unit):
        return iter(())

    @classmethod
    def from_reference(cls, text):
        return cls(path=text)
"""


def test_a_new_kind_claims_its_references_in_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that end in .zip were the folder's before; two kinds that claim one suffix are an error that names both."""
    import facemill.sources

    assert reference_source("x.zip").kind == "folder"
    monkeypatch.setattr(facemill.sources, "__path__", [*facemill.sources.__path__, str(tmp_path)])
    monkeypatch.setattr(SOURCES, "_known", SOURCES._known.copy())
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "archived.py").write_text(NEW_KIND.format(kind="archived"))
    for reference in ("x.zip", "~/pictures/X.ZIP", "./archived:x.zip", "archived:x"):
        source = reference_source(reference)
        assert (source.kind, getattr(source, "path", None)) == ("archived", reference)
    for reference, kind in (
        ("x.jpg", "folder"),
        ("x.zip/in", "folder"),
        ("x.mp4", "video"),
        ("sample:x.zip", "sample"),
    ):
        assert reference_source(reference).kind == kind
    (tmp_path / "packed.py").write_text(NEW_KIND.format(kind="packed"))
    with pytest.raises(FacemillError, match=r"'x\.zip' can mean several kinds of source \(archived, packed\)"):
        reference_source("x.zip")


def test_a_misspelt_import_of_our_own_is_no_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose package is not installed is left out; one that imports what we do not have is a defect."""
    import facemill.sources

    (tmp_path / "tape.py").write_text("import no_such_package\n")
    monkeypatch.setattr(facemill.sources, "__path__", [*facemill.sources.__path__, str(tmp_path)])
    assert SOURCES.names() == KINDS
    (tmp_path / "tape.py").write_text("import facemill.no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        SOURCES.names()
