"""What a person sees before days of work: each face once, before and after, and a short clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from clips import make_clip, times
from known_nets import model_folder

from facemill.errors import FacemillError
from facemill.track.models import FaceModels
from facemill.video import probe
from tasks.commands.preview import write_preview

PERSON = {
    "rights": {"basis": "own", "evidence": "a test's own"},
    "references": ["sample:hopper"],
    "sources": [{"kind": "sample", "person": "hopper"}],
}
PARAMS = {
    "identities": {"hopper": PERSON, "collins": PERSON},
    "archive": {"kind": "sample"},
    "convert": {"becomes": {"hopper": "collins"}},
    "cluster": {"kind": "inline"},
}


@pytest.fixture
def root(tmp_path: Path, hopper: np.ndarray, collins: np.ndarray) -> Path:
    """A project with a model that was never trained, and footage: both people side by side, a picture without faces."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    models = FaceModels("hog")
    known = models.embed(hopper, models.landmarks(hopper, models.search(hopper, 80)[:1]))
    model_folder(tmp_path / "data" / "model", {"hopper": known})
    frame = np.full((280, 560, 3), 90, np.uint8)
    frame[20:260, 20:260] = cv2.resize(hopper[20:420, 60:460], (240, 240), interpolation=cv2.INTER_AREA)
    frame[20:260, 300:540] = cv2.resize(collins[0:300, 80:380], (240, 240), interpolation=cv2.INTER_AREA)
    footage = tmp_path / "footage"
    footage.mkdir()
    make_clip(footage / "talk <1>.mp4", frames=[frame] * 5)
    make_clip(footage / "nobody.mp4", frames=4)
    (footage / "letter.mp4").write_text("Dear Sir or Madam,\n" * 50)
    return tmp_path


def test_each_face_is_shown_once_with_every_setting_and_a_clip(root: Path) -> None:
    shown = write_preview(root, root / "footage", root / "look", model=root / "data" / "model", tries=["colour=none"])
    by_name = {video.video: video for video in shown}
    wanted, other = by_name["talk <1>.mp4"].faces
    assert (wanted.who, wanted.becomes, len(wanted.pictures)) == ("hopper", "collins", 3)
    assert (other.becomes, len(other.pictures)) == (None, 1)
    assert by_name["nobody.mp4"].faces == []
    assert by_name["letter.mp4"].problem
    page = (root / "look" / "preview.html").read_text()
    assert "talk &lt;1&gt;.mp4" in page
    assert page.count("data:image/jpeg") == 4
    clip = root / "look" / (by_name["talk <1>.mp4"].clip or "")
    assert probe(clip).width == 3 * 560
    assert len(times(clip)) == 5
    before, drawn, plain = (picture for picture in wanted.pictures)
    assert len({before, drawn, plain}) == 3


def test_a_correction_is_seen_and_nothing_is_tracked_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, model = root / "footage" / "talk <1>.mp4", root / "data" / "model"
    first = write_preview(root, video, root / "look", model=model, clips=False)
    [track] = [face.track for face in first[0].faces if face.becomes]
    (root / "tracks.yaml").write_text(f"talk <1>.mp4:\n  - {{track: {track}, is: nobody}}\n")
    monkeypatch.setattr("tasks.track.track_segment", None)  # whoever calls it fails
    [again] = write_preview(root, video, root / "look", model=model, clips=False)
    assert (again.clip, [face.becomes for face in again.faces]) == (None, [None, None])


def test_wrong_settings_and_empty_folders_are_said(root: Path) -> None:
    model = root / "data" / "model"
    with pytest.raises(FacemillError, match=r"--try colour: write NAME=VALUE"):
        write_preview(root, root / "footage", root / "look", model=model, tries=["colour"])
    with pytest.raises(FacemillError, match=r"convert\.sharpen"):
        write_preview(root, root / "footage", root / "look", model=model, tries=["sharpen=very"])
    shutil.rmtree(root / "footage")
    (root / "footage").mkdir()
    with pytest.raises(FacemillError, match="no video in"):
        write_preview(root, root / "footage", root / "look", model=model)
