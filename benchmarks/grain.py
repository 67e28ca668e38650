"""Grain and blur of a film on the new face: planted into a clip, converted, and compared with what is around the face.

    python benchmarks/grain.py MODEL CLIP hopper collins      # the folder of a model, a clip of one person

A row is what was done to the clip: nothing, grain of a standard deviation of 4 or 8 (white, or as coarse as a blur of a
pixel leaves it), and out of focus (a blur of four pixels). Noise is the deviation of brightness from its blur of 1.5
pixels, root mean square of 9 × 9 pixels, medians over the pixels and then over frames: of the original inside the face,
of the conversion inside it, at its soft edge and around it; then the last but two over around. Flicker is that of
`facemill.measures`, over the original's. Everything goes through the encoder (x264, crf 10).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from facemill.detect import build_detector
from facemill.landmarks import build_predictor
from facemill.measures import spread
from facemill.model_folder import read_meta, references_of
from facemill.pictures import RGB
from facemill.swap.mask import face_mask
from facemill.swap.one_video import convert_video
from facemill.swap.settings import SwapSettings
from facemill.swap_meter import SwapMeter, measure_video, summarize
from facemill.track.models import FaceModels
from facemill.video import EncoderSettings, VideoReader

Random = np.random.Generator
CRF = 10
HEADER = f"{'film':16}{'original':>10}{'face':>8}{'edge':>8}{'around':>8}{'ratio':>8}{'flicker':>9}"


def _white(random: Random, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return random.normal(0, 1, shape)


def _coarse(random: Random, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    grain = cv2.GaussianBlur(random.normal(0, 1, shape), (0, 0), 1.0)
    return np.asarray(grain / grain.std(), np.float64)


FILMS: dict[str, Callable[[RGB, Random], npt.NDArray[Any]]] = {
    "as it is": lambda frame, random: frame.astype(np.float64),
    "grain 4": lambda frame, random: frame + 4 * _white(random, frame.shape[:2])[..., None],
    "grain 8": lambda frame, random: frame + 8 * _white(random, frame.shape[:2])[..., None],
    "coarse grain 8": lambda frame, random: frame + 8 * _coarse(random, frame.shape[:2])[..., None],
    "out of focus": lambda frame, random: cv2.GaussianBlur(frame.astype(np.float64), (0, 0), 4),
}


def main() -> None:
    arguments = _arguments()
    becomes = {arguments.replaced: arguments.new}
    references = references_of(read_meta(arguments.model))
    meter = SwapMeter(build_detector("hog", min_face_px=80), build_predictor("dlib"), becomes, references, coverage=1.2)
    tools = FaceModels("hog")
    with VideoReader(arguments.clip) as reader:
        frames = [frame.rgb for frame in reader][-arguments.frames :]
        rate = reader.info.fps or Fraction(25)
    print(HEADER)
    for name, change in FILMS.items():
        random = np.random.default_rng(0)
        changed = [np.asarray(np.clip(np.rint(change(frame, random)), 0, 255), np.uint8) for frame in frames]
        with tempfile.TemporaryDirectory() as folder:
            film, output = Path(folder) / "film.mp4", Path(folder) / "out.mp4"
            _encode(film, changed, rate)
            settings = SwapSettings(encoder=EncoderSettings(crf=CRF), detail=arguments.detail)
            convert_video(film, output, arguments.model, becomes, settings)
            measured = [one for one in measure_video(meter, film, output, len(frames) // 3) if one.measures]
        noise = []
        for one in spread(measured, 8):
            clean = frames[one.index]
            landmarks = np.asarray(tools.landmarks(clean, tools.search(clean, 80)[:1])[0], np.float64)
            noise.append(_noise(one.before, one.after, landmarks))
        original, face, edge, around = (median(column) for column in zip(*noise, strict=True))
        flicker = summarize(measured).medians["flicker"]
        print(
            f"{name:16}{original:10.2f}{face:8.2f}{edge:8.2f}{around:8.2f}{face / around:8.2f}{flicker:9.2f}",
            flush=True,
        )


def _noise(before: RGB, after: RGB, landmarks: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Of the original inside the face; of the conversion inside, at the edge, and around."""
    height, width = before.shape[:2]
    face = face_mask(landmarks, max(height, width), 0.0)[:height, :width] > 0.5
    step = round(0.06 * float(np.ptp(landmarks[:, 1])))

    def grown(by: int) -> npt.NDArray[np.bool_]:
        kernel = np.ones((2 * abs(by) + 1,) * 2)
        return np.asarray((cv2.dilate if by > 0 else cv2.erode)(face.astype(np.uint8), kernel) > 0)

    def of(picture: RGB, where: npt.NDArray[np.bool_]) -> float:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        fast = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)
        return float(np.median(np.sqrt(cv2.blur(fast * fast, (9, 9)))[where]))

    inside, edge, around = grown(-step), face & ~grown(-step), grown(3 * step) & ~grown(1)
    return of(before, inside), of(after, inside), of(after, edge), of(after, around)


def _encode(path: Path, frames: list[RGB], rate: Fraction) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(CRF)})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("clip", type=Path, help="a video of the person who is replaced, without grain")
    parser.add_argument("replaced", help="identity whose face is replaced")
    parser.add_argument("new", help="identity whose face is put there")
    parser.add_argument("--detail", default="exemplars", help="convert.detail")
    parser.add_argument("--frames", type=int, default=36, help="frames that are converted, from the clip's end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
