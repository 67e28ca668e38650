"""Picture sets of a sample person, with flaws planted in known places.

The set is a function of person, number and seed; each picture is drawn on its own, so that any worker can draw any of
them and every run gives the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import cv2
import numpy as np

from facemill.pictures import RGB, decode, encode_jpeg, encode_png
from facemill.sources.sample.animate import render
from facemill.sources.sample.looks import backdrop
from facemill.sources.sample.portraits import VIEW_PX, package_file, people
from facemill.sources.sample.pose import Pose


class PlantedKind(StrEnum):
    GOOD = "good"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    STRANGER = "stranger"
    FACELESS = "faceless"
    BROKEN = "broken"


SHARES = {
    PlantedKind.EXACT_DUPLICATE: 0.04,
    PlantedKind.NEAR_DUPLICATE: 0.06,
    PlantedKind.STRANGER: 0.06,
    PlantedKind.FACELESS: 0.05,
    PlantedKind.BROKEN: 0.04,
}
"""Of a set of at least 20 pictures; the rest is good. Smaller sets have one of each kind as far as there is room."""

BROKEN_FORMS = ("truncated", "empty", "text", "huge", "noise")


@dataclass(frozen=True)
class Planted:
    """What one picture of a set is.

    Attributes:
        person: who is to be seen; for a faceless or broken file the person of the set.
        of: index of the picture that a duplicate repeats.
        form: for a broken file, one of BROKEN_FORMS.
    """

    index: int
    kind: PlantedKind
    person: str
    of: int | None = None
    form: str | None = None

    @property
    def name(self) -> str:
        return f"{self.index:04d}.jpg"


@lru_cache(maxsize=16)
def picture_set(person: str, pictures: int, seed: int) -> tuple[Planted, ...]:
    """What is planted where, in a set of so many pictures."""
    rng = np.random.default_rng([seed, people().index(person), pictures, 1])
    counts = {kind: _count(share, pictures) for kind, share in SHARES.items()}
    while sum(counts.values()) > pictures - 2:  # at least two good ones; the last kinds give way first
        counts[next(kind for kind in reversed(SHARES) if counts[kind])] -= 1
    places = iter(rng.permutation(pictures).tolist())
    planted = {next(places): kind for kind, count in counts.items() for _ in range(count)}
    good = [index for index in range(pictures) if index not in planted]
    stranger = next(other for other in people() if other != person)
    forms = iter(BROKEN_FORMS * pictures)
    found = []
    for index in range(pictures):
        kind = planted.get(index, PlantedKind.GOOD)
        duplicate = kind in (PlantedKind.EXACT_DUPLICATE, PlantedKind.NEAR_DUPLICATE)
        found.append(
            Planted(
                index=index,
                kind=kind,
                person=stranger if kind is PlantedKind.STRANGER else person,
                of=int(rng.choice(good)) if duplicate else None,
                form=next(forms) if kind is PlantedKind.BROKEN else None,
            )
        )
    return tuple(found)


def picture_bytes(planted: Planted, seed: int) -> bytes:
    """The file's bytes, mostly JPEG; the same on each run."""
    index = planted.index if planted.of is None else planted.of
    rng = np.random.default_rng([seed, people().index(planted.person), index, 2])
    if planted.kind is PlantedKind.FACELESS:
        return encode_jpeg(_faceless(rng), 90)
    if planted.kind is PlantedKind.BROKEN:
        return _broken(planted.form or "", encode_jpeg(_person(planted.person, rng)[0], 85))
    picture, quality = _person(planted.person, rng)
    data = encode_jpeg(picture, quality)
    return data if planted.kind is not PlantedKind.NEAR_DUPLICATE else _near_duplicate(decode(data), planted.index)


def reference_bytes(person: str) -> bytes:
    """A sample person's portrait as it is, as the bytes of a PNG."""
    return encode_png(render(person, Pose())[0])


def random_pose(rng: np.random.Generator) -> Pose:
    """A pose as pictures show people: mostly facing the camera, at times turned, talking, smiling, blinking."""
    other_background = rng.random() < 0.75
    return Pose(
        yaw_deg=float(np.clip(rng.normal(0, 9), -20, 20)),
        pitch_deg=float(np.clip(rng.normal(0, 5), -11, 11)),
        roll_deg=float(np.clip(rng.normal(0, 7), -18, 18)),
        scale=float(rng.uniform(0.82, 1.28)),
        shift=(float(rng.uniform(-0.09, 0.09)), float(rng.uniform(-0.06, 0.07))),
        mouth_open=float(np.clip(rng.normal(0.12, 0.25), -0.15, 0.75)),
        smile=float(np.clip(rng.normal(0, 0.5), -1, 1)),
        blink=float(rng.choice([0.0, rng.uniform(0, 0.4), 1.0], p=[0.6, 0.32, 0.08])),
        brows=float(np.clip(rng.normal(0, 0.5), -1, 1)),
        light=float(rng.uniform(0, 0.65)),
        light_from_deg=float(rng.uniform(0, 360)),
        gamma=float(np.exp(rng.normal(0, 0.16))),
        warmth=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        background=int(rng.integers(0, 2**31)) if other_background else None,
        background_blur_px=float(rng.choice([0.0, 3.0])),
        grain=float(rng.choice([0.0, rng.uniform(1, 7)])),
        noise_seed=int(rng.integers(0, 2**31)),
    )


def _count(share: float, pictures: int) -> int:
    return max(1, round(share * pictures))


def _person(person: str, rng: np.random.Generator) -> tuple[RGB, int]:
    """A picture and the JPEG quality to store it with."""
    size_wh = (int(rng.integers(384, VIEW_PX + 1)), int(rng.integers(384, VIEW_PX + 1)))
    picture, _ = render(person, random_pose(rng), size_wh)
    return picture, int(rng.integers(78, 97))


def _near_duplicate(picture: RGB, index: int) -> bytes:
    """The picture as it comes back from the web: a little smaller, brighter or darker, compressed again."""
    rng = np.random.default_rng([index, 3])
    scale = float(rng.uniform(0.9, 0.97))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    offset = float(rng.choice([-6, -4, 5, 8]))
    return encode_jpeg(
        np.asarray(cv2.convertScaleAbs(small, alpha=1.0, beta=offset), np.uint8), int(rng.integers(65, 85))
    )


_THINGS = ("coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg")
"""Pictures without people in scikit-image's wheel, released as CC0 or into the public domain."""


def _faceless(rng: np.random.Generator) -> RGB:
    """A crop of a thing, or an empty room."""
    choice = int(rng.integers(0, len(_THINGS) + 1))
    size_wh = (int(rng.integers(384, VIEW_PX + 1)), int(rng.integers(384, VIEW_PX + 1)))
    if choice == len(_THINGS):
        return backdrop(int(rng.integers(0, 2**31)), *size_wh).copy()
    picture = decode(package_file("skimage", "data", _THINGS[choice]).read_bytes())
    height, width = picture.shape[:2]
    side = int(min(height, width) * rng.uniform(0.6, 0.95))
    x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    crop = picture[y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.asarray(cv2.resize(np.ascontiguousarray(crop), size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _broken(form: str, jpeg: bytes) -> bytes:
    if form == "truncated":
        return jpeg[: len(jpeg) * 2 // 3]
    if form == "empty":
        return b""
    if form == "text":
        return b"this is not a picture, whatever its name says\n"
    if form == "huge":
        return huge_png(100_000, 100_000)
    return np.random.default_rng(len(jpeg)).integers(0, 256, 2000, dtype=np.uint8).tobytes()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header states any size: a decoder that believes it runs out of memory."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body
