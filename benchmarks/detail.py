"""Methods of detail on one clip: converted with each, measured and shown side by side.

    python benchmarks/detail.py MODEL CLIP hopper collins                 # the folder of a model with exemplars
    python benchmarks/detail.py MODEL CLIP hopper collins --sheet out.jpg --frames 24
    python benchmarks/detail.py MODEL CLIP hopper collins --sheet out.jpg --blind 7  # to be ranked by others

A row is a method; medians over frames (`facemill.measures`): frames whose face is nearer to the new person than to the
replaced one, the distance to the new person (one person: under 0.6), landmark error in % of the distance of the eyes,
how far mouth and eyes open with those of the original (slope; 1 is as far), flicker over the original's, sharpness
(variance of the Laplacian of the grey face) over that of the new person's own pictures at that size, the same at equal
light (over the square of the mean brightness: a face half as bright has a quarter of the variance and is as sharp), how
much of the old face's edges is left in the rim of the face (1: all), and seconds of the whole conversion. The sheet has
the original above, then a line for each method; a blind one has the lines in an order that the number decides, and the
table, which gives it away, has them in the same order.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import numpy.typing as npt

from facemill.boxes import LANDMARK_BOXES
from facemill.detect import build_detector
from facemill.files import write_bytes
from facemill.landmarks import LandmarkPredictor, build_predictor, landmark_box
from facemill.measures import edges_left, spread
from facemill.model_folder import EXEMPLARS_FILE, read_meta, references_of
from facemill.pictures import RGB, encode_jpeg
from facemill.sheets import contact_sheet
from facemill.swap.detail.exemplars import Exemplars, read_exemplars
from facemill.swap.detail.methods import METHODS
from facemill.swap.one_video import convert_video
from facemill.swap.settings import SwapSettings
from facemill.swap_meter import MeasuredFrame, SwapMeter, measure_video, summarize
from facemill.video import EncoderSettings

SHOWN_FRAMES, SHOWN_PX = 6, 240
HEADER = ("detail", "nearer", "to new", "landmarks", "mouth", "eyes", "flicker", "sharp", "lit alike", "old rim", "s")


def main() -> None:
    arguments = _arguments()
    replaced, new = arguments.replaced, arguments.new
    references = references_of(read_meta(arguments.model))
    exemplars = read_exemplars(arguments.model / EXEMPLARS_FILE, [new])[new]
    predictor = build_predictor("dlib")
    meter = SwapMeter(build_detector("hog", min_face_px=100), predictor, {replaced: new}, references, coverage=1.2)
    print("{:12}{:>14}{:>9}{:>11}{:>8}{:>8}{:>9}{:>11}{:>11}{:>9}{:>8}".format(*HEADER))
    methods = [*arguments.methods]
    if arguments.blind is not None:
        random.Random(arguments.blind).shuffle(methods)
    shown: list[RGB] = []
    for name in methods:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "out.mp4"
            start = time.perf_counter()
            settings = SwapSettings(detail=name, encoder=EncoderSettings(crf=14))
            convert_video(arguments.clip, output, arguments.model, {replaced: new}, settings)
            seconds = time.perf_counter() - start
            frames = [one for one in measure_video(meter, arguments.clip, output, arguments.frames) if one.measures]
        print(_row(name, frames, predictor, exemplars, seconds), flush=True)
        faces = spread(frames, SHOWN_FRAMES)
        shown += [one.face_in(one.before, 1.5) for one in faces] if not shown else []
        shown += [one.face_in(one.after, 1.5) for one in faces]
    if arguments.sheet:
        sheet = contact_sheet(shown, columns=SHOWN_FRAMES, cell_px=SHOWN_PX)
        write_bytes(arguments.sheet, encode_jpeg(sheet, quality=90))


def _row(
    name: str, frames: list[MeasuredFrame], predictor: LandmarkPredictor, exemplars: Exemplars, seconds: float
) -> str:
    summary = summarize(frames)
    by = summary.medians
    openings = np.array([[_openings(one, picture, predictor) for picture in (one.before, one.after)] for one in frames])
    mouth, eyes = (float(np.polyfit(openings[:, 0, at], openings[:, 1, at], 1)[0]) for at in (0, 1))
    found = np.array([_sharpness(one.after, one) for one in frames])
    sharp, lit_alike = np.median(found, axis=0) / _own_sharpness(exemplars, frames)
    rim = median(edges_left(one.before, one.after, _points(one, one.before, predictor)) for one in frames)
    return (
        f"{name:12}{summary.closer_to_new:8} of {summary.frames:2}{by['new_after']:9.3f}{by['landmark_error']:9.2f} %"
        f"{mouth:8.2f}{eyes:8.2f}{by['flicker']:9.2f}{sharp:11.2f}{lit_alike:11.2f}{rim:9.3f}{seconds:8.1f}"
    )


def _points(one: MeasuredFrame, picture: RGB, predictor: LandmarkPredictor) -> npt.NDArray[np.float64]:
    assert one.box_xyxy is not None
    box = np.array([one.box_xyxy], np.float32)
    return np.asarray(predictor.predict(picture, box, LANDMARK_BOXES)[0], np.float64)


def _openings(one: MeasuredFrame, picture: RGB, predictor: LandmarkPredictor) -> tuple[float, float]:
    """Of mouth and eyes, over the distance of the eyes' outer corners."""
    points = _points(one, picture, predictor)

    def gap(first: list[int], second: list[int]) -> float:
        return float(np.linalg.norm(points[first] - points[second], axis=1).mean())

    width = gap([36], [45])
    return gap([61, 62, 63], [67, 66, 65]) / width, gap([37, 38, 43, 44], [41, 40, 47, 46]) / width


def _sharpness(picture: RGB, one: MeasuredFrame) -> tuple[float, float]:
    """Of the inner face, away from the mask's edge."""
    assert one.box_xyxy is not None
    x0, y0, x1, y1 = one.box_xyxy
    inset_x, inset_y = 0.2 * (x1 - x0), 0.15 * (y1 - y0)
    return _laplacian(picture, (x0 + inset_x, y0 + inset_y, x1 - inset_x, y1 - inset_y))


def _own_sharpness(exemplars: Exemplars, frames: list[MeasuredFrame]) -> npt.NDArray[np.float64]:
    """Of the new person's own pictures, brought to the height of the frames' faces."""
    heights = [one.box_xyxy[3] - one.box_xyxy[1] for one in frames if one.box_xyxy]
    found = []
    for number in spread(range(len(exemplars)), 24):
        crop, points = exemplars.crop(number), exemplars.landmarks[number]
        zoom = median(heights) / float(np.ptp(points[:, 1]))
        how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=how), np.uint8)
        x0, y0, x1, y1 = (float(edge) * zoom for edge in landmark_box(points[None].astype(np.float32))[0])
        inset_x, inset_y = 0.2 * (x1 - x0), 0.15 * (y1 - y0)
        found.append(_laplacian(picture, (x0 + inset_x, y0 + inset_y, x1 - inset_x, y1 - inset_y)))
    return np.asarray(np.median(found, axis=0))


def _laplacian(picture: RGB, box: tuple[float, float, float, float]) -> tuple[float, float]:
    """Its variance in a part of a picture, and the same over the square of the brightness there."""
    x0, y0, x1, y1 = (max(0, round(edge)) for edge in box)
    grey = cv2.cvtColor(picture[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY)
    variance = float(cv2.Laplacian(grey, cv2.CV_64F).var())
    return variance, variance / max(float(grey.mean()) ** 2, 1.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="folder of a model with exemplars")
    parser.add_argument("clip", type=Path, help="a video of the person who is replaced")
    parser.add_argument("replaced", help="identity whose face is replaced")
    parser.add_argument("new", help="identity whose face is put there")
    parser.add_argument("--methods", nargs="+", default=METHODS.names())
    parser.add_argument("--frames", type=int, default=24, help="frames that are measured")
    parser.add_argument("--sheet", type=Path, help="JPEG of the faces side by side")
    parser.add_argument("--blind", type=int, help="seed of the order of the methods")
    return parser.parse_args()


if __name__ == "__main__":
    main()
