"""The feed: the same pictures however many workers, from any place on, with unreadable ones replaced and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from facemill.detector_training.annotations import AnnotatedPicture
from facemill.detector_training.augment import Sampling
from facemill.detector_training.data import DetectionBatch, DetectionFeed
from facemill.errors import FacemillError
from facemill.pictures import encode_png


def pictures(folder: Path, count: int = 5, broken: tuple[int, ...] = ()) -> list[AnnotatedPicture]:
    rng = np.random.default_rng(0)
    made = []
    for at in range(count):
        path = folder / f"{at}.png"
        path.write_bytes(b"rubbish" if at in broken else encode_png(rng.integers(0, 255, (60, 80, 3), np.uint8)))
        made.append(AnnotatedPicture(path, np.array([[10, 10, 40, 45]], np.float32), np.zeros(1, bool)))
    return made


def feed(entries: list[AnnotatedPicture], workers: int = 0, seed: int = 0) -> DetectionFeed:
    return DetectionFeed(entries, 64, 3, Sampling(), seed=seed, workers=workers)


def same(first: DetectionBatch, second: DetectionBatch) -> bool:
    boxes = all(torch.equal(a, b) for a, b in zip(first.targets, second.targets, strict=True))
    return first.names == second.names and torch.equal(first.pictures, second.pictures) and boxes


def test_batches_have_the_stated_shapes(tmp_path: Path) -> None:
    batch = feed(pictures(tmp_path)).draw()
    assert (tuple(batch.pictures.shape), batch.pictures.dtype) == ((3, 3, 64, 64), torch.uint8)
    assert [tuple(target.shape[1:]) for target in batch.targets] == [(4,)] * 3


def test_every_picture_comes_once_an_epoch_and_differs_from_epoch_to_epoch(tmp_path: Path) -> None:
    drawing = feed(pictures(tmp_path, count=3))
    first, second = drawing.draw(), drawing.draw()
    assert sorted(first.names) == sorted(second.names) == ["0.png", "1.png", "2.png"]
    order = [second.names.index(name) for name in first.names]
    assert not torch.equal(first.pictures, second.pictures[order])


def test_a_feed_goes_on_from_any_place_with_the_same_batches(tmp_path: Path) -> None:
    entries = pictures(tmp_path)
    whole = feed(entries)
    batches = [whole.draw() for _ in range(5)]
    resumed = feed(entries)
    resumed.draw()
    resumed.place = 9
    assert all(same(resumed.draw(), batches[at]) for at in (3, 4))
    assert resumed.place == whole.place == 15


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    entries = pictures(tmp_path)
    here, elsewhere = feed(entries), feed(entries, workers=1)
    try:
        assert all(same(here.draw(), elsewhere.draw()) for _ in range(4))
    finally:
        elsewhere.close()


def test_drawing_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    feed(pictures(tmp_path)).draw()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unreadable_picture_is_replaced_and_told(tmp_path: Path) -> None:
    drawing = feed(pictures(tmp_path, broken=(2,)))
    names = [name for _ in range(4) for name in drawing.draw().names]
    assert "2.png" not in names
    assert list(drawing.unreadable) == ["2.png"]


def test_nothing_readable_is_an_error_that_names_a_file(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"in a row are unreadable, first \d\.png"):
        feed(pictures(tmp_path, broken=(0, 1, 2, 3, 4))).draw()
    with pytest.raises(FacemillError, match="no pictures to train on"):
        feed([])
