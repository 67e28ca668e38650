"""Faces in memory, and an endless, resumable draw of batches from them.

At 96 px a face takes 46 kB, so that thousands fit anywhere; nothing is decoded twice and training never waits for a
file. Where a set fits on the device that trains, it lies there; a larger one stays on the host, and a few batches are
gathered ahead in threads, into pinned memory (what that takes, copying, lets other threads run).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from facemill.errors import FacemillError
from facemill.train.augment import Batch, Sources, augment, centre
from facemill.train.draws import Draws, draw_numbers
from facemill.train.settings import Augmentation

AHEAD = 3
"""Batches gathered ahead of a set that stays on the host."""
DEVICE_SHARE = 0.4
"""Of the device's free memory, how much a set may take to be kept there; the rest is for the net."""


@dataclass(frozen=True)
class FaceSet:
    """Faces of one identity in memory; the first axis is the same in all tensors."""

    identity: str
    face_ids: tuple[str, ...]
    faces: Tensor  # (N, 3, W, W) uint8 RGB
    weights: Tensor  # (N, 1, W, W) uint8, 255 on the face
    eyes: Tensor  # (N, 1, W, W) uint8, 255 on the eyes
    landmarks: Tensor  # (N, 68, 2) float32: x, y in pixels of the stored picture
    field: float  # side of the stored picture over the side of the net's view

    def __len__(self) -> int:
        return len(self.face_ids)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fields that are tensors, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}

    @property
    def bytes(self) -> int:
        """How many bytes of memory its tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @cached_property
    def colours(self) -> Tensor:
        """(N, 3, 2) mean and standard deviation of each channel, of 0…1."""
        found = []
        for piece in torch.split(self.faces, 256):
            std, mean = torch.std_mean(piece.float().div_(255), dim=(2, 3))
            found.append(torch.stack([mean, std], 2))
        return torch.cat(found)

    def to(self, device: torch.device) -> FaceSet:
        """The same faces with their tensors on that device."""
        return self._with({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.face_ids)

    def take(self, rows: Tensor) -> FaceSet:
        """The faces of these rows, (M,) int64 on the CPU; a row may come twice."""
        there = rows.to(self.faces.device, non_blocking=True)
        ids = tuple(self.face_ids[row] for row in rows.tolist())
        return self._with({name: tensor[there] for name, tensor in self.tensors.items()}, ids)

    def view(self, input_px: int) -> Tensor:
        """(N, 3, P, P) float in 0…1: what the net sees of each face when nothing is random."""
        return centre(self.faces, input_px, self.field)

    def _with(self, tensors: Mapping[str, Tensor], face_ids: tuple[str, ...]) -> FaceSet:
        return FaceSet(self.identity, face_ids, **tensors, field=self.field)


def place_sets(sets: Mapping[str, FaceSet], device: torch.device) -> dict[str, FaceSet]:
    """The sets on the device where all of them fit beside a net, else where they are."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if sum(faces.bytes for faces in sets.values()) > DEVICE_SHARE * free:
            return dict(sets)
    return {identity: faces.to(device) for identity, faces in sets.items()}


class Feed:
    """Draws batches without end: every face once in an epoch, or in its turns, in a new order each time.

    `place` is all that resuming needs; two feeds with equal seeds give equal batches, wherever their faces lie. One of
    several processes is given its share of each batch, which is what those rows would be in the whole.
    """

    def __init__(
        self,
        sets: Mapping[str, FaceSet],
        input_px: int,
        batch: int,
        augmentation: Augmentation,
        seed: int,
        *,
        device: torch.device | None = None,
        share: tuple[int, int] = (0, 1),
        turns: Mapping[str, Tensor] | None = None,
    ) -> None:
        """
        Args:
            sets: by identity, all on one device, all with the same field.
            input_px: side of the net's input.
            batch: faces of each identity in a draw, over all processes.
            augmentation: strengths.
            seed: of the order and of the augmentation.
            device: where batches are wanted; where the faces are, unless it is said.
            share: (which, of how many) processes.
            turns: how often each face of an identity comes in an epoch, (N,) int64; once, unless it is said.

        Raises:
            FacemillError: the batch cannot be shared out evenly.
        """
        which, processes = share
        if batch % processes:
            raise FacemillError(f"train.batch {batch} cannot be shared by {processes} processes: make it a multiple")
        self._sets, self._input_px, self._augmentation, self._seed = sets, input_px, augmentation, seed
        self._batch, self._share = batch, slice(which * batch // processes, (which + 1) * batch // processes)
        self._orders = {
            identity: Order(len(faces), seed + 7919 * at, (turns or {}).get(identity))
            for at, (identity, faces) in enumerate(sets.items())
        }
        first = next(iter(sets.values()))
        self._field, self._host = first.field, first.faces.device
        self._device = torch.empty(0, device=device or self._host).device  # `cuda` and `cuda:0` are one
        self._drawn = 0
        self._pool = None if self._host == self._device else ThreadPoolExecutor(2, "gather")
        self._gathered: deque[Future[tuple[Sources, Draws]]] = deque()
        self.waited_s = 0.0
        """Seconds spent in gathering faces, or in waiting for those that threads gather, so far."""

    def draw(self) -> dict[str, Batch]:
        """The next batch of every identity; colours are matched across identities (S18)."""
        sources, draws = self._next()
        self._drawn += 1
        whole = augment(
            sources.to(self._device), draws.to(self._device), self._input_px, self._field, self._augmentation
        )
        each = self._share.stop - self._share.start
        return {identity: whole.rows(slice(at * each, (at + 1) * each)) for at, identity in enumerate(self._sets)}

    def describe(self, place: int) -> str:
        """The face ids of the batch after which `place` was that, for the message of a failed step."""
        named = {who: self._sets[who].face_ids for who in self._sets}
        rows = self._rows(place - 1)
        return "; ".join(f"{who}: {', '.join(named[who][at] for at in rows[who].tolist())}" for who in self._sets)

    @property
    def place(self) -> int:
        """How many batches were drawn so far: all that another feed needs to go on from here."""
        return self._drawn

    @place.setter
    def place(self, place: int) -> None:
        self._drawn = place
        self._gathered.clear()

    def close(self) -> None:
        """Ends the threads that gather faces; no batch can be drawn afterwards."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _next(self) -> tuple[Sources, Draws]:
        start = time.perf_counter()
        if self._pool is None:
            gathered = self._gather(self._drawn)
        else:
            while len(self._gathered) < AHEAD:
                self._gathered.append(self._pool.submit(self._gather, self._drawn + len(self._gathered)))
            gathered = self._gathered.popleft().result()
        self.waited_s += time.perf_counter() - start
        return gathered

    def _gather(self, draw: int) -> tuple[Sources, Draws]:
        """The stored faces of this process's share of a draw, and their draws. A pure function of the draw."""
        rows = self._rows(draw)
        draws = draw_numbers(self._batch * len(self._sets), self._seed, draw)
        mine = torch.cat([torch.arange(self._batch)[self._share] + at * self._batch for at in range(len(self._sets))])
        pieces = [self._sets[who].take(rows[who][self._share]) for who in self._sets]
        colours = torch.cat([self._sets[who].colours[self._there(rows[who])] for who in self._sets])
        part = draws.take(mine)
        joined = {name: torch.cat([piece.tensors[name] for piece in pieces]) for name in pieces[0].tensors}
        own, lent = colours[self._there(mine)], colours[self._there(part.partner)]
        gathered = Sources(**joined, colours=own, partners=lent)
        return (gathered if self._pool is None else _pinned(gathered)), part

    def _there(self, rows: Tensor) -> Tensor:
        """Beside the faces, without waiting for what a GPU has still to do."""
        return rows.to(self._host, non_blocking=True)

    def _rows(self, draw: int) -> dict[str, Tensor]:
        return {who: order.take(draw * self._batch, self._batch) for who, order in self._orders.items()}


class Order:
    """Rows 0…count-1 in a new random order each epoch, as a pure function of (seed, place).

    `turns` says how often each comes in an epoch, (count,) int64; once, unless it is given.
    """

    def __init__(self, count: int, seed: int, turns: Tensor | None = None) -> None:
        self._rows = None if turns is None else torch.arange(count).repeat_interleave(turns)
        self._count, self._seed = count if self._rows is None else len(self._rows), seed
        self._latest = (-1, torch.empty(0, dtype=torch.int64))

    def take(self, first: int, count: int) -> Tensor:
        """Rows number `first` … `first + count - 1` of the endless sequence, (count,) int64 on the CPU."""
        return torch.cat(list(self._pieces(first, first + count)))

    def _pieces(self, first: int, end: int) -> Iterator[Tensor]:
        while first < end:
            epoch, place = divmod(first, self._count)
            piece = self._permutation(epoch)[place : place + end - first]
            yield piece
            first += len(piece)

    def _permutation(self, epoch: int) -> Tensor:
        known, permutation = self._latest
        if known != epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            permutation = torch.randperm(self._count, generator=generator)
            if self._rows is not None:
                permutation = self._rows[permutation]
            self._latest = (epoch, permutation)  # one assignment: two threads may ask
        return permutation


def _pinned(sources: Sources) -> Sources:
    """In page-locked memory, from which copies to a GPU run beside its work."""
    if not torch.cuda.is_available():
        return sources
    return Sources(*(part.pin_memory() for part in vars(sources).values()))
