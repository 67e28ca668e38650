"""One video from end to end: decode, find, align, swap, colour, blend, encode; streamed, in bounded memory.

        thread 1          thread 2            this thread                                   thread 3
    file ──► frames ──► sightings ──► batches ──► crops ──► net ──► colour ──► blend ──► encoder ──► file

Several people can be replaced at once; a frame counts as swapped if any of their faces was. A frame without any of them
goes through untouched. A face that fails is left as it is, and its frame is counted with the reason; a video with too
many such frames fails. The output appears whole and verified or not at all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import Affine, compose, crop_affine, invert, transform, warp
from facemill.errors import InputError
from facemill.files import file_sha256
from facemill.reasons import Reason
from facemill.swap.blend import blend_method
from facemill.swap.colour import colour_method
from facemill.swap.detail import match_detail
from facemill.swap.finder import Face, FaceTools
from facemill.swap.mask import face_mask
from facemill.swap.people import PeopleFinder, Sightings
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper, load_swapper
from facemill.swap.threads import ahead, behind
from facemill.video import Frame, VideoReader, VideoWriter

MASK_PX = 160  # side of the mask over the crop: fine enough for a face of 1,000 px once it is softened
MIN_WEIGHT = 1 / 255
QUEUED_BYTES = 96 * 2**20  # of pictures waiting between two threads


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What happened to one video. `frames_in = frames_swapped + frames_passed + frames_failed = frames_out`.

    Attributes:
        becomes: the identity that was to be replaced → the identity whose face was put there.
        swapped: the identity that was to be replaced → frames in which its face was.
        frames_swapped: frames in which the face of at least one of them was replaced.
        frames_passed: frames without any of them, untouched.
        frames_failed: frames in which none was replaced, because of an error.
        failures: reason → frames in which a face was left as it is for it; another face in them may be replaced.
    """

    input_sha256: str
    output_sha256: str
    model_sha256: str
    dataset: str
    becomes: dict[str, str]
    swapped: dict[str, int]
    frames_in: int
    frames_out: int
    frames_swapped: int
    frames_passed: int
    frames_failed: int
    failures: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float
    fps: float

    def as_dict(self) -> dict[str, Any]:
        """The receipt as plain values for JSON."""
        return asdict(self) | {"warnings": list(self.warnings)}


def convert_video(
    video: Path | str,
    output: Path | str,
    model_dir: Path | str,
    becomes: Mapping[str, str],
    settings: SwapSettings | None = None,
) -> Receipt:
    """Converts one video with the model of a folder.

    Args:
        video: what is converted.
        output: where it goes, `.mp4`, `.mov`, `.m4v` or `.mkv`. Both paths may hold any characters.
        model_dir: as `facemill.model_folder.save_model` wrote it.
        becomes: whose face is replaced → whose face is put there: `{"bert": "anna"}` makes Anna of Bert.

    Raises:
        InputError: this video cannot be converted (its reason says why); nothing was written.
        FacemillError: nothing can be converted: no model, no such method, a full disk.
    """
    from facemill.track.models import FaceModels

    settings = settings or SwapSettings()
    swapper = load_swapper(Path(model_dir), becomes, settings.device)
    tools = FaceModels(
        settings.detector,
        swapper.device,
        settings.detector_options,
        landmarks=settings.landmarks,
        landmark_options=settings.landmark_options,
    )
    return convert(Path(video), Path(output), swapper, tools, settings)


def convert(
    video: Path,
    output: Path,
    swapper: Swapper,
    tools: FaceTools,
    settings: SwapSettings,
    *,
    input_sha256: str | None = None,
) -> Receipt:
    """`convert_video` with what it needs already loaded, for many videos in one process."""
    start = time.monotonic()
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    painter = FacePainter(swapper, settings)
    finder = PeopleFinder(tools, swapper.becomes, swapper.references, settings)
    swapped = dict.fromkeys(swapper.becomes, 0)
    passed = _Passed()
    with VideoReader(video, threads=settings.decoder_threads) as reader:
        info = reader.info
        queued = max(2, min(2 * settings.batch, QUEUED_BYTES // (info.width * info.height * 2)))
        with VideoWriter(output, info, settings.encoder, sound_from=video, clock=reader.clock) as writer:
            reader.pix_fmt = writer.pix_fmt
            reader.deinterlace = info.interlaced and not writer.keeps_fields
            with (
                ahead(reader, queued) as frames,
                ahead(finder.follow(frames), queued) as sightings,
                behind(writer.write, queued) as write,
            ):
                for batch in _batches(sightings, min(settings.batch, queued)):
                    for sighting, painted in zip(batch, painter.paint(batch), strict=True):
                        counts[painted.state] += 1
                        passed.see(painted.state, sighting.frame.time_s)
                        for identity in painted.swapped:
                            swapped[identity] += 1
                        if painted.failure:
                            failures[painted.failure] += 1
                        write(sighting.frame)
            _check(reader, failures, settings)
            writer.commit()
            warnings = (*reader.warnings(), *writer.warnings, *passed.notes())
            written = writer.frames_written
    seconds = time.monotonic() - start
    return Receipt(
        input_sha256=input_sha256 or file_sha256(video),
        output_sha256=file_sha256(output),
        model_sha256=swapper.model_sha256,
        dataset=swapper.dataset,
        becomes=dict(swapper.becomes),
        swapped=swapped,
        frames_in=reader.frames_read,
        frames_out=written,
        frames_swapped=counts["swapped"],
        frames_passed=counts["passed"],
        frames_failed=counts["failed"],
        failures=dict(sorted(failures.items())),
        warnings=warnings,
        seconds=round(seconds, 3),
        fps=round(written / seconds, 2),
    )


@dataclass(frozen=True)
class Painted:
    """What was done to one frame: whose faces were replaced, and the first reason why one was left as it is."""

    swapped: tuple[str, ...]
    failure: str | None = None

    @property
    def state(self) -> str:
        """`swapped` if any face was, else `failed` if one should have been, else `passed`."""
        if self.swapped:
            return "swapped"
        return "failed" if self.failure else "passed"


class _Passed:
    """Counts frames without anybody to replace that lie between frames with somebody: in those a face may have been
    missed, and the video shows two people in turn."""

    def __init__(self) -> None:
        self._frames = self._runs = 0
        self._longest = (0, 0.0)  # frames, and when they begin
        self._open: tuple[int, float] | None = None

    def see(self, state: str, time_s: float) -> None:
        if state == "swapped":
            if self._open is not None and self._open[0]:
                self._frames += self._open[0]
                self._runs += 1
                self._longest = max(self._longest, self._open, key=lambda run: run[0])
            self._open = (0, time_s)
        elif self._open is not None:
            frames, since = self._open
            self._open = (frames + 1, since if frames else time_s)

    def notes(self) -> list[str]:
        """What a person should know, after the last frame."""
        notes = []
        if self._frames:
            frames, since = self._longest
            notes.append(
                f"{self._frames} frames between swapped ones are as they were, in {self._runs} places; the longest has "
                f"{frames} frames from {since:.2f} s"
            )
        if self._open is not None and self._open[0]:
            notes.append(f"the last {self._open[0]} frames are as they were, from {self._open[1]:.2f} s")
        return notes


class FacePainter:
    """Puts new faces into frames, a batch at a time."""

    def __init__(self, swapper: Swapper, settings: SwapSettings) -> None:
        self._swapper = swapper
        self._feather = settings.feather
        self._sharpen = settings.sharpen
        self._colour = colour_method(settings.colour)
        self._blend = blend_method(settings.blend)

    def paint(self, batch: Sequence[Sightings]) -> list[Painted]:
        """Changes the frames in place. In one frame small faces come first: the nearer to the camera, the later."""
        failures = [[sighting.error] if sighting.error else [] for sighting in batch]
        swapped: list[list[str]] = [[] for _ in batch]
        places: list[_Place] = []
        for index, sighting in enumerate(batch):
            for identity, face in sorted(sighting.faces.items(), key=lambda item: _height(item[1])):
                try:
                    places.append(_Place.of(index, sighting.frame, identity, face, self._swapper))
                except (ValueError, cv2.error) as error:
                    failures[index].append(type(error).__name__)
        for place, drawn in zip(places, self._faces(places), strict=True):
            frame = batch[place.index].frame
            try:
                self._set_in(place, frame, drawn, painted_before=bool(swapped[place.index]))
                swapped[place.index].append(place.identity)
            except _FaceError as error:
                failures[place.index].append(str(error))
        return [
            Painted(tuple(names), reasons[0] if reasons else None)
            for names, reasons in zip(swapped, failures, strict=True)
        ]

    def _faces(self, places: list[_Place]) -> list[npt.NDArray[np.float32] | str | None]:
        """The net's answers; where the batch fails, each face alone, so that one does not cost its neighbours."""
        try:
            return list(self._swapper.swap([place.crop for place in places], [place.identity for place in places]))
        except RuntimeError as error:
            if len(places) <= 1:
                return [type(error).__name__] * len(places)
            return [self._faces([place])[0] for place in places]

    def _set_in(
        self, place: _Place, frame: Frame, face: npt.NDArray[np.float32] | str | None, *, painted_before: bool
    ) -> None:
        """Blends a face into its frame. Raises _FaceError where that cannot be done; the frame is then as it was."""
        if not isinstance(face, np.ndarray):
            raise _FaceError(face or "not_finite")
        try:
            mask = face_mask(place.landmarks_in(MASK_PX), MASK_PX, self._feather)
            small = np.asarray(cv2.resize(mask, place.crop.shape[1::-1], interpolation=cv2.INTER_AREA), np.float32)
            old = place.crop.astype(np.float32) / 255.0
            face = match_detail(self._colour(face, old, small), old, small, self._sharpen)
            size = (place.region.shape[1], place.region.shape[0])
            weight = _warped_back(mask, place.affine_to(MASK_PX), size, cv2.INTER_LINEAR)
            weight = np.where(weight < MIN_WEIGHT, np.float32(0), weight)
            # cubic: the crop is usually coarser than the frame, and linear would show its grid
            new = np.clip(_warped_back(face, place.affine, size, cv2.INTER_CUBIC), 0.0, 1.0)
            x, y = place.origin
            # what another face was painted over is no longer as the crop saw it
            ground = frame.region((x, y, x + size[0], y + size[1]))[0] if painted_before else place.region
            frame.paste(self._blend(ground, new, weight), place.origin, weight > 0)
        except (ValueError, cv2.error) as error:
            raise _FaceError(type(error).__name__) from error


class _FaceError(Exception):
    """Why a face was left as it is, in a word."""


@dataclass(frozen=True)
class _Place:
    """Where a face is: its rectangle in the frame, its crop, and the affine from the rectangle to the crop."""

    index: int  # of its frame in the batch
    identity: str  # whose it is
    region: npt.NDArray[np.uint8]
    origin: tuple[int, int]
    affine: Affine
    crop: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[Any]  # in the rectangle

    @classmethod
    def of(cls, index: int, frame: Frame, identity: str, face: Face, swapper: Swapper) -> _Place:
        side = swapper.input_px
        # faces are upright in square pixels, whatever the frame's are
        square = np.array([[frame.pixel_ratio, 0.0, 0.0], [0.0, 1.0, 0.0]])
        affine = compose(crop_affine(transform(face.landmarks, square), side, swapper.coverage), square)
        corners = transform(np.array([[0, 0], [side, 0], [0, side], [side, side]]) - 0.5, invert(affine))
        low, high = corners.min(axis=0), corners.max(axis=0)
        region, (*origin, _, _) = frame.region((low[0], low[1], high[0] + 1, high[1] + 1))
        if region.size == 0:
            raise ValueError("the face lies outside the picture")
        shifted = compose(affine, np.array([[1.0, 0.0, origin[0]], [0.0, 1.0, origin[1]]]))
        crop = warp(region, shifted, side)
        landmarks = face.landmarks - np.asarray(origin)
        return cls(index, identity, region, (origin[0], origin[1]), shifted, crop, landmarks)

    def affine_to(self, side_px: int) -> Affine:
        """From the rectangle to the same crop with another side (pixel centres at integers)."""
        zoom = side_px / self.crop.shape[0]
        shift = (zoom - 1) / 2
        return compose(np.array([[zoom, 0.0, shift], [0.0, zoom, shift]]), self.affine)

    def landmarks_in(self, side_px: int) -> npt.NDArray[Any]:
        return transform(self.landmarks, self.affine_to(side_px))


def _height(face: Face) -> float:
    return float(np.ptp(face.landmarks[:, 1]))


def _warped_back(
    picture: npt.NDArray[Any], affine: Affine, size_wh: tuple[int, int], how: int
) -> npt.NDArray[np.float32]:
    warped = cv2.warpAffine(picture, affine, size_wh, flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(warped, np.float32)


def _batches(sightings: Iterable[Sightings], size: int) -> Iterator[list[Sightings]]:
    batch: list[Sightings] = []
    for sighting in sightings:
        batch.append(sighting)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _check(reader: VideoReader, failures: Counter[str], settings: SwapSettings) -> None:
    """Whether the whole may be published."""
    if reader.frames_read == 0:
        raise InputError(Reason.NOT_A_VIDEO, "no frames")
    if reader.cut and not settings.accept_cut:
        raise InputError(Reason.VIDEO_TRUNCATED, reader.warnings()[0])
    failed = failures.total()  # a frame has one reason
    if failed > settings.frame_failure_limit * reader.frames_read:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(failures.items()))
        raise InputError(Reason.CONVERSION_FAILED, f"{failed} of {reader.frames_read} frames failed ({reasons})")
