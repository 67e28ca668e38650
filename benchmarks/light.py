"""Faces in light that the net never saw: how far what it draws is off, brought to light that it knows and as they are.

    python benchmarks/light.py MODEL CLIP hopper collins    # the folder of a model with exemplars, a clip of one person
    python benchmarks/light.py MODEL CLIP hopper collins --sheet out.jpg

The faces of some frames of a clip are given other light: darker, coloured, paler, black and white. The net draws each
as it is, and brought to light that the model's pictures show (`facemill.swap.light`). A row is a light; `as it is` and
`known` are how far the drawing lies from that of the unchanged face in the same light, in levels of 255 on the scale of
the unchanged face, means over all pixels of the face and medians over frames. `changed` is the share of the faces that
were brought to other light. Last the time that telling light takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import crop_affine, crop_points, warp
from facemill.files import write_bytes
from facemill.pictures import RGB, encode_jpeg
from facemill.sheets import contact_sheet
from facemill.swap.light import KnownLight
from facemill.swap.mask import face_mask
from facemill.swap.swapper import Swapper, load_swapper
from facemill.track.models import FaceModels
from facemill.video import read_frames

Floats = npt.NDArray[np.float64]
GREY = np.array([0.299, 0.587, 0.114])
LIGHTS: dict[str, Callable[[Floats], Floats]] = {
    "as it is": lambda face: face,
    "nine tenths": lambda face: face * 0.9,
    "three quarters": lambda face: face * 0.75,
    "half": lambda face: face * 0.5,
    "a quarter": lambda face: face * 0.25,
    "an eighth": lambda face: face * 0.125,
    "a sixteenth": lambda face: face * 0.0625,
    "brighter": lambda face: face * 1.3,
    "warm": lambda face: face * [1.1, 0.9, 0.6],
    "cold": lambda face: face * [0.8, 0.95, 1.25],
    "red": lambda face: face * [1.0, 0.35, 0.3],
    "green": lambda face: face * [0.4, 1.0, 0.45],
    "blue": lambda face: face * [0.35, 0.45, 1.1],
    "black and white": lambda face: np.repeat((face @ GREY)[..., None], 3, axis=2),
    "sepia": lambda face: (face @ GREY)[..., None] * [1.07, 0.9, 0.65],
    "fading to white": lambda face: 255 - (255 - face) * 0.4,
    "haze": lambda face: face * 0.4 + 90,
}
LEAST_SCALE = 0.05  # of a light's differences over those of the unchanged face, when they are compared


def main() -> None:
    arguments = _arguments()
    swapper = load_swapper(arguments.model, {arguments.replaced: arguments.new}, "cpu")
    side, who = swapper.input_px, [arguments.replaced]
    known = KnownLight(swapper.exemplars.get(arguments.replaced), side, swapper.coverage)
    inside = face_mask(crop_points(side, swapper.coverage), side, 0.02) > 0.5
    faces = _faces(arguments.clip, arguments.frames, swapper)
    drawn = [_drawn(swapper, face, who) for face in faces]
    print(f"{len(faces)} faces\n{'light':18}{'as it is':>10}{'known':>8}{'changed':>9}")
    shown, took = [], []
    for name, change in LIGHTS.items():
        off, changed = [], 0
        for face, right in zip(faces, drawn, strict=True):
            lit = np.asarray(np.clip(np.rint(change(face.astype(np.float64))), 0, 255), np.uint8)
            start = time.thread_time()
            light = known.light_of(lit)
            took.append(time.thread_time() - start)
            if light is None:
                continue
            brought = light.known(lit)
            changed += not np.array_equal(brought, lit)
            plain = _drawn(swapper, lit, who)
            back = np.asarray(255 * light.back(np.asarray(_drawn(swapper, brought, who) / 255, np.float32)), np.float64)
            wanted, scale = np.clip(change(right), 0, 255), _scale(change)
            off.append([(np.abs(one - wanted) / scale)[inside].mean() for one in (plain, back)])
            if face is faces[0]:
                shown += [lit, *(np.asarray(np.clip(one, 0, 255), np.uint8) for one in (plain, back, wanted))]
        as_it_is, with_light = np.median(off, axis=0) if off else (np.nan, np.nan)
        print(f"{name:18}{as_it_is:10.1f}{with_light:8.1f}{changed:6} of {len(faces)}", flush=True)
    print(f"telling light: {1000 * float(np.median(took)):.2f} ms a face (median, thread time)")
    if arguments.sheet:
        write_bytes(arguments.sheet, encode_jpeg(contact_sheet(shown, columns=4, cell_px=120), quality=90))


def _faces(clip: Path, count: int, swapper: Swapper) -> list[RGB]:
    """(P, P, 3) RGB uint8: the largest face of so many frames, spread over the clip, aligned as the net sees it."""
    tools = FaceModels("hog")
    frames = [frame.rgb for frame in read_frames(clip)]
    found = []
    for number in np.linspace(0, len(frames) - 1, count).astype(int):
        boxes = tools.search(frames[number], 100)
        if len(boxes):
            box = boxes[np.argmax(boxes[:, 2] - boxes[:, 0])][None]
            landmarks = np.asarray(tools.landmarks(frames[number], box)[0], np.float64)
            affine = crop_affine(landmarks, swapper.input_px, swapper.coverage)
            found.append(warp(frames[number], affine, swapper.input_px))
    return found


def _drawn(swapper: Swapper, face: RGB, who: list[str]) -> Floats:
    """(P, P, 3) in 0…255: what the net makes of a face of `who`."""
    [drawn] = swapper.swap([face], who)
    assert drawn is not None
    return np.asarray(drawn, np.float64) * 255


def _scale(change: Callable[[Floats], Floats]) -> Any:
    """(1, 1, 3): how large a difference of skin's colours is in a light, over what it was."""
    light, dark = (np.clip(change(np.full((1, 1, 3), level)), 0, 255) for level in (160.0, 100.0))
    return np.maximum(np.abs(light - dark) / 60, LEAST_SCALE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="folder of a model with exemplars")
    parser.add_argument("clip", type=Path, help="a video of the person who is replaced")
    parser.add_argument("replaced", help="identity whose face is replaced")
    parser.add_argument("new", help="identity whose face is put there")
    parser.add_argument("--frames", type=int, default=12, help="frames that are taken")
    parser.add_argument("--sheet", type=Path, help="JPEG of a face in each light, drawn as it is, brought, and wanted")
    return parser.parse_args()


if __name__ == "__main__":
    main()
