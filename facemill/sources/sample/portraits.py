"""The two sample portraits: where the wheels keep them, their landmarks, outlines and how they are laid out.

Both portraits are in the public domain as works of the United States government:

- Grace Hopper, US Navy; in matplotlib's wheel (`sample_data/grace_hopper.jpg`), its comment names its page.
- Eileen Collins, NASA Great Images; in scikit-image's wheel (`data/astronaut.png`), docs name its page.

The 68 landmarks were found once with dlib's predictor, averaged over nine boxes around the detection, corrected by eye
(jaw beside the ears, corners of the mouth) and are constants here: they are the truth that `animate.render` carries
through its warps. The outlines separate person and background (GrabCut, then cleaned by hand).

Every portrait is laid out on one *stage*, STAGE_PX square, with the face of the same height at the same place, so that
one pose means the same for both people.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from facemill.errors import FacemillError
from facemill.pictures import RGB

Points = npt.NDArray[np.float64]

STAGE_PX = 704
"""Side of the stage: the visible VIEW_PX square in its middle and a margin for turning and shifting."""
VIEW_PX = 512
LICENCE = "public domain (US government work)"
"""Terms of both portraits, as their publishers state them."""
FACE_PX = 200
"""Height of the landmarks' box on the stage."""
FACE_CENTRE = (352.0, 358.0)
"""Centre of the landmarks' box on the stage."""


@dataclass(frozen=True)
class Portrait:
    """One person, laid out on the stage.

    Attributes:
        rgba: uint8 STAGE_PX×STAGE_PX×4; alpha is 255 on the person.
        landmarks: (68, 2) x, y on the stage.
        head: (n, 2) points around hair or hat, which turn with the head.
        still: (m, 2) points of neck, shoulders and border, which do not.
        face_half_px: half the width of the face.
        lid_room_px: height of the skin above the eyes that stretches when they close.
        teeth: whether the portrait shows teeth, so that an opening mouth need not invent them.
    """

    name: str
    licence: str
    author: str
    page: str
    rgba: npt.NDArray[np.uint8]
    landmarks: Points
    head: Points
    still: Points
    face_half_px: float
    lid_room_px: float
    teeth: bool

    @property
    def rgb(self) -> RGB:
        """The portrait without alpha, STAGE_PX×STAGE_PX×3."""
        return np.ascontiguousarray(self.rgba[:, :, :3])


@lru_cache(maxsize=4)
def load_portrait(person: str) -> Portrait:
    """Reads a portrait from its wheel and lays it out; cached, do not write into the arrays.

    Raises:
        FacemillError: an unknown person, or the wheel that brings the portrait is not installed.
    """
    if person not in _RECORDS:
        raise FacemillError(f"no sample person {person!r}; there are {', '.join(sorted(_RECORDS))}")
    record = _RECORDS[person]
    picture = _read(record)
    landmarks = _points(record.landmarks)
    scale, shift = _layout(landmarks)
    outline = _points(record.outline)
    rgba = _stage(picture, outline, scale, shift)
    rgba.setflags(write=False)
    on_stage = landmarks * scale + shift
    return Portrait(
        name=record.name,
        licence=LICENCE,
        author=record.author,
        page=record.page,
        rgba=rgba,
        landmarks=on_stage,
        head=_points(record.head) * scale + shift,
        still=np.vstack([_points(record.still) * scale + shift, _border()]),
        face_half_px=float(np.ptp(on_stage[:17, 0]) / 2),
        lid_room_px=record.lid_room * scale,
        teeth=record.teeth,
    )


def people() -> Sequence[str]:
    """Names of the sample people, as `sample:NAME` and `person` take them."""
    return sorted(_RECORDS)


def portrait_file(person: str) -> Path:
    """The file that a person's portrait is read from. Raises as `package_file`."""
    record = _RECORDS[person]
    return package_file(record.package, *record.parts)


def package_file(package: str, *parts: str) -> Path:
    """A data file inside an installed package, found without importing it.

    Raises:
        FacemillError: the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FacemillError(f"the sample people need the package {package}: pip install {package}")
    path = Path(spec.origin).parent.joinpath(*parts)
    if not path.is_file():
        raise FacemillError(f"{path.name} is not in the installed {package}: pip install --force-reinstall {package}")
    return path


@dataclass(frozen=True)
class _Record:
    """A portrait as stored; coordinates in pixels of the original file, as `x,y` pairs."""

    name: str
    package: str
    parts: tuple[str, ...]
    size: tuple[int, int]  # width, height
    author: str
    page: str
    landmarks: str
    outline: str
    head: str
    still: str
    lid_room: float
    teeth: bool


def _read(record: _Record) -> RGB:
    path = portrait_file(record.name)
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None or bgr.shape[1::-1] != record.size:
        raise FacemillError(f"{path} is not the portrait that facemill knows; its landmarks would be wrong")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def _points(text: str) -> Points:
    return np.array([[float(value) for value in pair.split(",")] for pair in text.split()], np.float64)


def _layout(landmarks: Points) -> tuple[float, Points]:
    """Scale and shift that bring the landmarks' box to FACE_PX and FACE_CENTRE."""
    low, high = landmarks.min(0), landmarks.max(0)
    scale = FACE_PX / float(high[1] - low[1])
    return scale, np.array(FACE_CENTRE) - (low + high) / 2 * scale


def _stage(picture: RGB, outline: Points, scale: float, shift: Points) -> npt.NDArray[np.uint8]:
    """The portrait on the stage; rows run on beyond its top and bottom, its sides are mirrored."""
    height, width = picture.shape[:2]
    alpha = np.zeros((height, width), np.uint8)
    cv2.fillPoly(alpha, [outline.astype(np.int32)], 255)
    alpha = np.asarray(cv2.erode(alpha, np.ones((3, 3), np.uint8)), np.uint8)  # the outermost pixel is half background
    rgba = np.dstack([picture, np.asarray(cv2.GaussianBlur(alpha, (0, 0), 0.9), np.uint8)])
    pad = 120
    padded = cv2.copyMakeBorder(rgba, pad, pad, 0, 0, cv2.BORDER_REPLICATE)
    padded = cv2.copyMakeBorder(padded, 0, 0, pad, pad, cv2.BORDER_REFLECT_101)
    affine = np.array([[scale, 0, shift[0] - pad * scale], [0, scale, shift[1] - pad * scale]])
    size = (STAGE_PX, STAGE_PX)
    staged = cv2.warpAffine(padded, affine, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    blurred = cv2.GaussianBlur(staged[:, :, :3], (0, 0), 1.5)
    if scale > 1.5:  # an enlarged portrait looks soft beside the other one
        staged[:, :, :3] = cv2.addWeighted(np.ascontiguousarray(staged[:, :, :3]), 1.5, blurred, -0.5, 0)
    return np.ascontiguousarray(staged, np.uint8)


def _border() -> Points:
    steps = np.linspace(0, STAGE_PX - 1, 6)
    edge = [(x, y) for x in steps for y in (0, STAGE_PX - 1)] + [(x, y) for y in steps[1:-1] for x in (0, STAGE_PX - 1)]
    return np.array(edge, np.float64)


_HOPPER = _Record(
    name="hopper",
    package="matplotlib",
    parts=("mpl-data", "sample_data", "grace_hopper.jpg"),
    size=(512, 600),
    author="US Navy",
    page="https://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg",
    landmarks="""
    179.2,204.8 182,227.8 186.3,249.2 193.8,270.4 201.1,291.3 210.1,309 226.3,321.7 246,329.4 269.4,330.9
    292.4,327.7 311.4,317.8 327.8,304 335,285.2 341.7,264.4 345.2,242.3 349.3,219.1 354.1,195.9 190.3,185.4
    197.2,171 211.7,163.6 228.2,163.8 243,169.4 283.3,166.2 297.3,158.8 313.8,157.1 329.3,163 338.4,176.2
    265,188.1 265.8,204.6 266.6,220.8 267.2,237.7 246.6,246.1 256.9,249 267.8,252.4 278.3,248.8 288.1,245.2
    210.2,195 218.2,187.9 228.1,187.1 238.7,194.1 228.9,195.6 219,196.8 290.9,191.6 300.1,183.6 310.6,183.3
    319,189.3 310.9,191.9 300.9,192.3 234.1,279.6 244.3,273.8 257.2,271.1 267,273.2 276.8,270.9 288.7,272.4
    300.9,276.2 289.4,283.9 277.8,288.2 267.8,289.7 257.6,288.7 244.8,285.6 238.1,278.9 257.2,278 267.3,279
    277.1,277.4 296.1,276.6 277,278.1 267.2,279.6 257.4,278.6
    """,
    outline="""
    202,46 190,56 178,62 176,81 168,87 149,108 149,152 158,169 158,174 152,188 154,219 163,232 170,259 170,269
    168,271 169,281 179,291 183,298 192,296 199,302 202,310 200,320 196,325 181,335 159,346 151,347 142,352
    129,355 121,360 101,362 66,375 56,382 47,398 39,405 38,410 31,416 27,433 27,467 25,483 17,522 15,574 11,599
    511,599 511,436 508,435 505,431 494,396 489,390 478,386 467,378 451,372 420,366 383,347 369,344 355,336
    342,323 339,317 333,317 330,314 331,306 337,302 346,299 349,294 350,279 365,249 367,240 367,227 370,223
    370,207 374,200 374,189 368,180 370,172 371,134 369,131 369,98 365,89 353,85 351,77 346,67 330,52 313,44
    302,42 295,34 280,26 270,24 246,25 237,28 227,34 219,43 212,42
    """,
    head="""
    149,108 150,150 154,215 170,272 176,64 205,42 261,25 318,42 350,80 371,95 371,150 375,205 350,290 192,300
    """,
    still="""
    60,392 150,356 205,365 262,395 325,365 380,350 480,395 262,460 150,450 380,450 95,90 95,200 105,300 425,90
    430,200 425,300
    """,
    lid_room=7.0,
    teeth=False,
)

_COLLINS = _Record(
    name="collins",
    package="skimage",
    parts=("data", "astronaut.png"),
    size=(512, 512),
    author="NASA",
    page="https://flic.kr/p/r9qvLn",
    landmarks="""
    179.1,104.4 179.7,116.1 180.7,127.4 182,139.1 185,150.4 191.1,160.3 199.9,168.6 209.3,175.8 220.4,178
    232.3,176.9 243,171 253,163.2 260.2,153.8 265,142.9 267.8,131.4 270,120 271.7,108.3 186.2,93.8 192.1,88
    200.3,87 208.7,88.9 216,92.3 236.1,93.6 244.1,91 252.1,90.8 259.9,92.2 265,98.2 225.9,102.1 225.3,110.9
    225,118.9 225,127 214,131 219,132.7 224,134 229.2,133 234,132 195,101 200.2,98 207,98.3 212.1,104 206,104
    199.6,104 237.6,105.2 243.6,100.1 250,100.4 255.1,104.1 250,106.3 244,106.1 203.1,140.1 209,139 218,139
    223.7,141 229.7,140 237.7,140 244.8,141 237.4,151 229,155 222.1,156 216,155 207.6,150 204.1,140.6 217.7,143
    223,144 229.2,143.3 243,142 229,150 223,150.2 217,149.7
    """,
    outline="""
    203,22 194,28 188,36 175,40 169,48 164,50 156,58 153,67 154,94 156,102 170,117 172,123 179,123 182,125
    184,130 186,149 183,152 177,151 174,148 160,149 141,157 130,168 121,183 120,192 122,195 122,199 119,202
    113,203 103,215 101,215 89,228 77,234 64,247 57,258 53,269 47,276 41,290 39,306 34,315 30,333 26,341 25,374
    19,389 19,412 24,430 24,473 28,491 36,501 39,507 39,511 496,511 495,505 491,502 489,498 490,473 488,471
    490,457 495,452 494,425 490,409 478,384 454,360 426,347 417,344 389,344 373,346 367,343 365,340 365,333
    357,323 357,309 352,299 343,287 341,281 336,276 330,262 319,244 303,232 300,221 293,208 272,184 258,173
    258,168 264,153 266,139 269,136 275,134 291,116 296,107 296,102 300,93 299,72 296,67 296,58 289,44 276,31
    249,18 226,16 214,21
    """,
    head="""
    155,88 154,66 170,42 192,26 226,17 262,24 288,46 300,78 292,108 276,124 163,112 175,126
    """,
    still="""
    116,200 140,165 182,196 222,206 262,192 290,200 130,250 222,246 300,250 112,50 115,130 345,50
    342,130
    """,
    lid_room=5.0,
    teeth=True,
)

_RECORDS = {record.name: record for record in (_HOPPER, _COLLINS)}
