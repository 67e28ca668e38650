"""What lies in front of a face, planted with known masks: how much of it is found, and how much that is none.

    python benchmarks/occlusion.py MODEL CLIP hopper      # the folder of a model with exemplars, a clip of one person
    python benchmarks/occlusion.py MODEL CLIP hopper --method segments --option weights=xseg.onnx --sheet out.jpg
    python benchmarks/occlusion.py MODEL CLIP hopper --dim 0.5    # all of it in half the light

Frames of a clip get a bar, a disc, a patch of texture, a microphone, strands of hair or a hand in the person's own
tone, drawn with a random generator of a fixed seed. Landmarks are looked for again in each of these pictures, as they
would be found in a film, and faces are brought to light that the net knows, as in a conversion. A row is a kind:
`kept`, the share of its pixels inside the hull of the face that is found to lie in front; `beside`, the share of the
rest of the hull that is too, and that of the worst picture; `overlap`, intersection over union. Of pictures with
nothing in front, as they are and in other light, tone, noise and compression, `beside` is what is found all the same.
Last the time a face takes, open and covered.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from facemill.align import crop_affine, transform, warp
from facemill.files import write_bytes
from facemill.pictures import RGB, encode_jpeg
from facemill.sheets import contact_sheet
from facemill.swap.light import KnownLight, OneTone
from facemill.swap.mask import face_mask
from facemill.swap.occlusion.methods import METHODS, FaceView, OcclusionNeeds, occlusion_method
from facemill.swap.painter import MASK_PX
from facemill.swap.swapper import load_swapper
from facemill.track.models import FaceModels
from facemill.video import read_frames

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.float32]
Random = np.random.Generator
SUBPIXELS = 3  # masks are drawn so many times larger, then averaged
HEADER = f"{'picture':14}{'kept':>8}{'beside':>9}{'overlap':>9}{'worst':>9}"


def main() -> None:
    arguments = _arguments()
    options = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in arguments.option)}
    who = arguments.identity
    swapper = load_swapper(arguments.model, {who: who}, "cpu")
    needs = OcclusionNeeds((who,), swapper.coverage, swapper.exemplars, swapper.redraw)
    known = KnownLight(swapper.exemplars.get(who), swapper.input_px, swapper.coverage)
    method = occlusion_method(arguments.method, needs, options)
    found: dict[str, list[npt.NDArray[np.float64]]] = {}
    shown: dict[str, list[RGB]] = {}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for kind, picture, landmarks, truth in pictures(arguments.clip, arguments.frames, arguments.last, arguments.dim):
        affine = crop_affine(landmarks, MASK_PX, swapper.coverage)
        fine = warp(picture, affine, MASK_PX)
        small = crop_affine(landmarks, swapper.input_px, swapper.coverage)
        crop = warp(picture, small, swapper.input_px)
        if (light := known.light_of(crop)) is None:
            continue
        one_tone = OneTone.of(crop) is not None
        crop, fine = light.known(crop), light.known(fine)
        view = FaceView(who, crop, fine, transform(landmarks, small), one_tone, not light.is_unchanged)
        start = time.perf_counter()
        [in_front] = method.find([view])
        seconds[in_front is not None].append(time.perf_counter() - start)
        hull = face_mask(transform(landmarks, affine), MASK_PX, 0.0)
        true = cv2.warpAffine(truth, affine, (MASK_PX, MASK_PX)) * hull
        hidden = in_front.hidden * hull if in_front else np.zeros_like(hull)
        found.setdefault(kind, []).append(
            np.array([(hidden * true).sum(), true.sum(), (hidden * (1 - true)).sum(), (hull - true).sum()])
        )
        grey = np.repeat(np.asarray(255 * hidden, np.uint8)[..., None], 3, axis=2)
        shown.setdefault(kind, []).append(np.hstack([fine, grey]))
    print(HEADER)
    for kind, rows in found.items():
        kept, true, beside, rest = np.sum(rows, axis=0)
        worst = max(row[2] / row[3] for row in rows)
        front = f"{kept / true:8.2f}{beside / rest:9.4f}{kept / (true + beside):9.2f}" if true else ""
        print(f"{kind:14}{front or f'{beside / rest:17.4f}':26}{worst:9.4f}")
    open_ms, covered_ms = (1000 * float(np.median(seconds[one] or [np.nan])) for one in (False, True))
    print(f"{open_ms:.1f} ms an open face, {covered_ms:.1f} ms a covered one (medians)")
    if arguments.sheet:
        cells = [one for kind in shown for one in shown[kind][:3]]
        write_bytes(arguments.sheet, encode_jpeg(contact_sheet(cells, columns=3, cell_px=2 * MASK_PX), quality=90))


def pictures(clip: Path, count: int, last: float, dim: float = 1.0) -> Iterator[tuple[str, RGB, Points, Mask]]:
    """Kind, picture, landmarks (68, 2) and mask in 0…1 of what was planted, for so many frames of a clip. `dim`: how
    bright the pictures are in the end, over the clip."""
    tools, random = FaceModels("hog"), np.random.default_rng(0)
    frames = [frame.rgb for frame in read_frames(clip)]
    for number in np.linspace((1 - last) * len(frames), len(frames) - 1, count).astype(int):
        frame = frames[number]
        boxes = tools.search(frame, 100)
        if not len(boxes):
            continue
        box = boxes[np.argmax(boxes[:, 2] - boxes[:, 0])][None]
        landmarks = np.asarray(tools.landmarks(frame, box)[0], np.float64)
        yield "open", _dimmed(frame, dim), landmarks, np.zeros(frame.shape[:2], np.float32)
        for kind, draw in OCCLUDERS.items():
            alpha, colours = draw(frame, landmarks, random)
            mixed = frame + (cv2.GaussianBlur(np.clip(colours, 0, 255), (0, 0), 0.6) - frame) * alpha[..., None]
            planted = _dimmed(mixed, dim)
            yield kind, planted, np.asarray(tools.landmarks(planted, box)[0], np.float64), alpha
        for kind, change in CHANGES.items():
            changed = _dimmed(np.clip(np.floor(change(frame.astype(np.float32))), 0, 255), dim)
            moved = np.asarray(tools.landmarks(changed, box)[0], np.float64)
            yield kind, changed, moved, np.zeros(frame.shape[:2], np.float32)


def _dimmed(picture: npt.NDArray[Any], dim: float) -> RGB:
    return np.ascontiguousarray(np.rint(picture * dim), np.uint8)


def _drawn(shape: tuple[int, ...], draw: Callable[[npt.NDArray[np.uint8], Callable[[Any], Any]], object]) -> Mask:
    """A mask in 0…1 with soft edges. `draw` fills a larger one; its second argument takes points there, for shift=4."""
    large = np.zeros((shape[0] * SUBPIXELS, shape[1] * SUBPIXELS), np.uint8)
    draw(large, lambda points: np.rint(((np.asarray(points) + 0.5) * SUBPIXELS - 0.5) * 16).astype(np.int32))
    small = cv2.resize(large, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def _place(landmarks: Points, random: Random) -> tuple[Points, float]:
    """Somewhere in the face, and the face's height."""
    height = float(np.ptp(landmarks[:, 1]))
    return landmarks.mean(axis=0) + random.uniform(-0.25, 0.25, 2) * height, height


def _plain(frame: RGB, random: Random) -> npt.NDArray[np.float32]:
    return np.full(frame.shape, random.integers(0, 256, 3), np.float32)


def _bar(frame: RGB, landmarks: Points, random: Random) -> tuple[Mask, npt.NDArray[np.float32]]:
    middle, height = _place(landmarks, random)
    angle, wide = random.uniform(0, np.pi), random.uniform(0.12, 0.25) * height
    along = np.array([np.cos(angle), np.sin(angle)]) * 1.5 * height
    across = np.array([-np.sin(angle), np.cos(angle)]) * wide / 2
    corners = np.array([middle + along + across, middle + along - across, middle - along - across])
    corners = np.vstack([corners, middle - along + across])
    return _drawn(frame.shape, lambda mask, at: cv2.fillConvexPoly(mask, at(corners), 255, shift=4)), _plain(
        frame, random
    )


def _disc(frame: RGB, landmarks: Points, random: Random) -> tuple[Mask, npt.NDArray[np.float32]]:
    middle, height = _place(landmarks, random)
    radius = random.uniform(0.12, 0.25) * height * SUBPIXELS * 16
    alpha = _drawn(frame.shape, lambda mask, at: cv2.circle(mask, at(middle).tolist(), int(radius), 255, -1, shift=4))
    return alpha, _plain(frame, random)


def _texture(frame: RGB, landmarks: Points, random: Random) -> tuple[Mask, npt.NDArray[np.float32]]:
    middle, height = _place(landmarks, random)
    axes = (random.uniform(0.15, 0.28, 2) * height * SUBPIXELS * 16).astype(int).tolist()
    turn = float(random.uniform(0, 180))
    alpha = _drawn(
        frame.shape, lambda mask, at: cv2.ellipse(mask, at(middle).tolist(), axes, turn, 0, 360, 255, -1, shift=4)
    )
    coarse = random.integers(0, 256, (frame.shape[0] // 8, frame.shape[1] // 8, 3)).astype(np.float32)
    return alpha, np.asarray(cv2.resize(coarse, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _microphone(frame: RGB, landmarks: Points, random: Random) -> tuple[Mask, npt.NDArray[np.float32]]:
    """A dark ball of wire at the mouth, lit from above, on a handle."""
    _, height = _place(landmarks, random)
    middle = landmarks[57] + np.array([random.uniform(-0.12, 0.12), random.uniform(-0.02, 0.12)]) * height
    radius, tilt = random.uniform(0.13, 0.18) * height, random.uniform(-0.5, 0.5)
    end = middle + np.array([np.sin(tilt), np.cos(tilt)]) * 1.5 * height

    def draw(mask: npt.NDArray[np.uint8], at: Callable[[Any], Any]) -> None:
        cv2.circle(mask, at(middle).tolist(), int(radius * SUBPIXELS * 16), 255, -1, shift=4)
        cv2.line(mask, at(middle).tolist(), at(end).tolist(), 255, max(1, round(0.9 * radius * SUBPIXELS)), shift=4)

    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    wire = 30 * np.sin(x * 2 * np.pi / (0.025 * height)) * np.sin(y * 2 * np.pi / (0.025 * height))
    light = 40 * np.clip(1 - np.hypot(x - middle[0] + 0.4 * radius, y - middle[1] + 0.4 * radius) / radius, 0, 1)
    return _drawn(frame.shape, draw), np.repeat((35 + wire + light)[..., None], 3, axis=2).astype(np.float32)


def _strands(frame: RGB, landmarks: Points, random: Random) -> tuple[Mask, npt.NDArray[np.float32]]:
    """Five dark strands of hair that hang from above the brows."""
    _, height = _place(landmarks, random)
    t = np.linspace(0, 1, 30)[:, None]
    paths = []
    for _ in range(5):
        first = landmarks[27] + np.array([random.uniform(-0.4, 0.4), -0.45]) * height
        last = first + np.array([random.uniform(-0.2, 0.2), random.uniform(0.5, 0.8)]) * height
        bend = (first + last) / 2 + random.uniform(-0.15, 0.15, 2) * height
        paths.append(((1 - t) ** 2 * first + 2 * t * (1 - t) * bend + t * t * last, random.uniform(0.015, 0.035)))

    def draw(mask: npt.NDArray[np.uint8], at: Callable[[Any], Any]) -> None:
        for path, wide in paths:
            cv2.polylines(mask, [at(path)], False, 255, max(1, round(wide * height * SUBPIXELS)), shift=4)

    colours = random.uniform(15, 70) * np.array([1, 0.8, 0.6]) + random.normal(0, 6, frame.shape)
    return _drawn(frame.shape, draw), np.asarray(colours, np.float32)


def _hand(frame: RGB, landmarks: Points, random: Random) -> tuple[Mask, npt.NDArray[np.float32]]:
    """A palm beside the face and four fingers over it, in the tone of the cheek, rounded by shade."""
    middle, height = landmarks.mean(axis=0), float(np.ptp(landmarks[:, 1]))
    side = random.choice([-1, 1])
    cheek = np.sort(landmarks[[2, 31], 0]).astype(int)
    skin = np.median(frame[int(landmarks[29, 1]) : int(landmarks[33, 1]), cheek[0] : cheek[1]].reshape(-1, 3), axis=0)
    skin = skin * random.uniform(0.75, 1.1) + random.uniform(-8, 8, 3)
    palm = middle + np.array([side * random.uniform(0.45, 0.6), random.uniform(0.1, 0.45)]) * height
    to = middle + random.uniform(-0.1, 0.1, 2) * height - palm
    to /= np.linalg.norm(to)
    across, wide = np.array([-to[1], to[0]]), 0.085 * height
    fingers = [
        (palm + across * (k - 1.5) * 2.2 * wide, palm + across * (k - 1.5) * 2.5 * wide + to * length * height)
        for k, length in enumerate(random.uniform(0.42, 0.6, 4))
    ]

    def draw(mask: npt.NDArray[np.uint8], at: Callable[[Any], Any]) -> None:
        cv2.circle(mask, at(palm).tolist(), int(0.26 * height * SUBPIXELS * 16), 255, -1, shift=4)
        for first, last in fingers:
            cv2.line(mask, at(first).tolist(), at(last).tolist(), 255, round(2 * wide * SUBPIXELS), shift=4)

    alpha = _drawn(frame.shape, draw)
    shade = 0.62 + 0.38 * np.clip(cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / wide, 0, 1)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    for first, last in fingers:
        way = last - first
        part = np.clip(((x - first[0]) * way[0] + (y - first[1]) * way[1]) / (way @ way), 0, 1)
        round_ = 1 - (np.hypot(x - first[0] - part * way[0], y - first[1] - part * way[1]) / wide) ** 2
        shade = np.where(round_ > 0, np.minimum(shade, 0.65 + 0.35 * np.sqrt(np.maximum(round_, 0))), shade)
    grain = cv2.GaussianBlur(random.normal(0, 12, frame.shape), (0, 0), 1.2)
    return alpha, np.asarray(skin * shade[..., None] + grain, np.float32)


OCCLUDERS: dict[str, Callable[[RGB, Points, Random], tuple[Mask, npt.NDArray[np.float32]]]] = {
    "bar": _bar,
    "disc": _disc,
    "texture": _texture,
    "microphone": _microphone,
    "strands": _strands,
    "hand": _hand,
}


def _compressed(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    coded = cv2.imencode(".jpg", np.asarray(picture, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 15])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.float32)


CHANGES: dict[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]] = {
    "brighter": lambda picture: 255 * (picture / 255) ** 0.6,
    "darker": lambda picture: 255 * (picture / 255) ** 1.7,
    "a third": lambda picture: 0.35 * picture,
    "warm": lambda picture: picture * [1.15, 1.0, 0.8],
    "cold": lambda picture: picture * [0.85, 1.0, 1.2],
    "lit from right": lambda picture: picture * np.linspace(0.45, 1.25, picture.shape[1])[None, :, None],
    "noise": lambda picture: picture + np.random.default_rng(0).normal(0, 12, picture.shape),
    "out of focus": lambda picture: cv2.GaussianBlur(picture, (0, 0), 4),
    "grey": lambda picture: np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
    "compressed": _compressed,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="folder of a model with exemplars")
    parser.add_argument("clip", type=Path, help="a video of a person whom it knows, with nothing in front of the face")
    parser.add_argument("identity", help="who that is")
    parser.add_argument("--method", choices=METHODS.names(), default="residual")
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE of the method; may be given again")
    parser.add_argument("--frames", type=int, default=12, help="frames that are taken")
    parser.add_argument("--last", type=float, default=1.0, help="share of the clip that they come from, from its end")
    parser.add_argument("--dim", type=float, default=1.0, help="how bright the pictures are, over the clip")
    parser.add_argument("--sheet", type=Path, help="JPEG of pictures and what was found in front of them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
