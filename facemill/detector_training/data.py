"""Annotated pictures as an endless, resumable draw of training batches, made by worker processes.

Which picture comes when, and how it is changed, is a pure function of (seed, epoch, picture): the number of workers
changes nothing, and a training that was killed goes on with the very pictures that it would have seen. Workers are fed
a bounded number of batches ahead and hand back plain arrays, which need no shared memory.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facemill.detector_training.annotations import AnnotatedPicture
from facemill.detector_training.augment import Sample, sample
from facemill.detector_training.settings import Sampling
from facemill.errors import FacemillError, InputError
from facemill.pictures import decode
from facemill.train.data import Order

Key = tuple[int, int]
"""Epoch and number of the picture."""
AHEAD = 2
"""Batches that each worker may be ahead."""
_SILENCE_S = 300.0
"""Longest wait for a batch of the workers."""
_OTHERS = 8
"""Pictures that are tried in place of an unreadable one."""
_REMEMBERED = 4
"""Batches whose names are kept: on a GPU a step is judged one later."""


@dataclass(frozen=True)
class DetectionBatch:
    """Pictures of one size with the boxes of their faces; the first axis is that of the pictures."""

    pictures: Tensor  # (N, 3, P, P) uint8 RGB
    targets: tuple[Tensor, ...]  # of each picture (G, 4) float32 xyxy in pixels
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, rows: slice) -> DetectionBatch:
        """The part of the batch that holds these pictures, such as a micro-batch."""
        return DetectionBatch(self.pictures[rows], self.targets[rows], self.names[rows])


class DetectionFeed:
    """Draws batches without end: every picture once in an epoch, in a new order each time.

    `place` is all that resuming needs; two feeds with equal pictures and seeds give equal batches.
    """

    def __init__(
        self,
        pictures: Sequence[AnnotatedPicture],
        input_px: int,
        batch: int,
        sampling: Sampling,
        *,
        seed: int = 0,
        workers: int = 0,
        device: torch.device | None = None,
    ) -> None:
        """
        Args:
            pictures: for training; those that cannot be decoded are replaced and noted in `unreadable`.
            input_px: side of the net's input.
            batch: pictures in a draw.
            sampling: how they are changed.
            seed: of order and changes.
            workers: processes that make them; 0 makes them here.
            device: where batches go; the CPU when None.

        Raises:
            FacemillError: no pictures.
        """
        if not pictures:
            raise FacemillError("no pictures to train on: all are held out, or the folder is empty")
        self._dataset = _Samples(list(pictures), input_px, sampling, seed)
        self._batch, self._workers, self._seed = batch, workers, seed
        self._device = device or torch.device("cpu")
        self._drawn = 0  # pictures
        self._batches: Iterator[list[_Made]] | None = None
        self._recent: dict[int, tuple[str, ...]] = {}
        self.waited_s = 0.0
        """Seconds spent in making pictures, or in waiting for the workers that make them, so far."""
        self.unreadable: dict[str, str] = {}

    def draw(self) -> DetectionBatch:
        """The next batch, on the feed's device.

        Raises:
            FacemillError: too many pictures in a row are unreadable, or the workers are silent or gone.
        """
        start = time.perf_counter()
        if self._batches is None:
            self._batches = iter(self._loader())
        try:
            made = next(self._batches)
        except RuntimeError as error:  # DataLoader's word for workers that died or are silent
            raise FacemillError(
                f"the processes that make training pictures failed ({error}); run again with fewer workers, or with 0 "
                "to see why"
            ) from error
        self.waited_s += time.perf_counter() - start
        self._drawn += self._batch
        names = tuple(each.name for each in made)
        self._recent = dict([*self._recent.items(), (self._drawn, names)][-_REMEMBERED:])
        for each in made:
            self.unreadable |= each.unreadable
        stacked = torch.from_numpy(np.stack([each.sample.picture for each in made])).permute(0, 3, 1, 2)
        targets = tuple(torch.from_numpy(each.sample.boxes_xyxy).to(self._device) for each in made)
        return DetectionBatch(stacked.to(self._device), targets, names)

    def describe(self, place: int) -> str:
        """The files of the batch after which `place` was that, for the message of a failed step."""
        return ", ".join(self._recent.get(place, ()))

    def close(self) -> None:
        """Ends the worker processes; no batch can be drawn afterwards."""
        self._batches = None

    @property
    def place(self) -> int:
        """How many pictures were drawn so far: all that another feed needs to go on from here."""
        return self._drawn

    @place.setter
    def place(self, drawn: int) -> None:
        self._drawn, self._batches = drawn, None

    def _loader(self) -> DataLoader[Any]:
        return DataLoader(
            self._dataset,
            batch_sampler=_Keys(len(self._dataset), self._batch, self._seed, self._drawn),
            num_workers=self._workers,
            prefetch_factor=AHEAD if self._workers else None,
            multiprocessing_context="spawn" if self._workers else None,  # a fork would inherit torch's threads
            worker_init_fn=_start_worker,
            collate_fn=_as_it_is,
            timeout=_SILENCE_S if self._workers else 0,
            generator=torch.Generator(),  # so that the loader leaves the global random state alone
        )


def default_workers(device: torch.device) -> int:
    """Processes beside a training: half the cores for a GPU, one for a CPU that is busy itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(12, max(1, cores - 2)) if device.type == "cuda" else min(1, cores - 1)


@dataclass(frozen=True)
class _Made:
    """What a worker hands back."""

    sample: Sample
    name: str
    unreadable: dict[str, str]


class _Samples(Dataset[_Made]):
    """One training picture for each key."""

    def __init__(self, pictures: list[AnnotatedPicture], input_px: int, sampling: Sampling, seed: int) -> None:
        self._pictures, self._input_px, self._sampling, self._seed = pictures, input_px, sampling, seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, key: Any) -> _Made:
        epoch, number = key
        rng = np.random.default_rng((self._seed, epoch, number))
        unreadable: dict[str, str] = {}
        for at in range(number, number + _OTHERS):
            entry = self._pictures[at % len(self._pictures)]
            try:
                picture = decode(entry.path.read_bytes())
            except (InputError, OSError) as error:
                unreadable[entry.path.name] = str(error)
                continue
            boxes, ignore = _inside(entry, picture)
            made = sample(picture, boxes, ignore, self._input_px, self._sampling, rng)
            return _Made(made, entry.path.name, unreadable)
        first, why = next(iter(unreadable.items()))
        raise FacemillError(f"{len(unreadable)} training pictures in a row are unreadable, first {first}: {why}")


class _Keys:
    """Batches of keys from a place on, without end."""

    def __init__(self, pictures: int, batch: int, seed: int, drawn: int) -> None:
        self._pictures, self._batch, self._seed, self._drawn = pictures, batch, seed, drawn

    def __iter__(self) -> Iterator[list[Key]]:
        order = Order(self._pictures, self._seed)
        for first in count(self._drawn, self._batch):
            epochs = [at // self._pictures for at in range(first, first + self._batch)]
            yield list(zip(epochs, order.take(first, self._batch).tolist(), strict=True))


def _inside(
    entry: AnnotatedPicture, picture: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Boxes within the decoded picture, whose sides EXIF may have exchanged."""
    height, width = picture.shape[:2]
    boxes = entry.boxes_xyxy.clip(0, np.array([width, height, width, height], np.float32))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[kept], entry.ignore[kept]


def _start_worker(number: int) -> None:
    """One thread for each worker; the training, not the worker, decides what Ctrl-C means."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(made: list[_Made]) -> list[_Made]:
    return made
