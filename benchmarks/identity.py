"""What an embedding costs: dlib's wheel against the same network in torch, beside the floor of its FLOPs.

    python benchmarks/identity.py FOLDER [--threads 1] [--batches 1 8 32]

FOLDER holds pictures with a face each; the first 64 faces that HOG finds are embedded. dlib has a thread of its own
only; its wheel is built without BLAS, a build from source with one would be faster. *floor* is the time of the
multiplications alone at the rate of a large matrix product. Rounds alternate; medians of milliseconds for one face.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import dlib
import machine
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from facemill.detect import build_detector
from facemill.dlib_models import dlib_model_path
from facemill.errors import InputError
from facemill.identity import Embedder, face_chips
from facemill.landmarks.dlib import DlibPredictor
from facemill.media_files import PICTURE_SUFFIXES
from facemill.nets.dlib_resnet import CHIP_PX, FILE, load_dlib_resnet
from facemill.pictures import RGB, decode

FACES, ROUNDS = 64, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    device = torch.device("cpu")
    chips = chips_below(arguments.folder)
    theirs, ours = dlib.face_recognition_model_v1(str(dlib_model_path(FILE))), Embedder()
    apart = np.abs(np.array(theirs.compute_face_descriptor(chips)) - ours.embed_chips(chips)).max()
    flops = flops_of_a_face()
    floor_ms = flops / machine.matrix_product_rate(device, torch.float32) * 1e3
    print(machine.describe(device))
    print(
        f"{len(chips)} faces, largest difference {apart:.1e}; {flops / 1e9:.2f} GFLOP a face, floor {floor_ms:.1f} ms"
    )
    for batch in arguments.batches:
        some = (chips * (1 + batch // len(chips)))[:batch]
        ways: dict[str, Callable[[], object]] = {
            "dlib": partial(theirs.compute_face_descriptor, some),
            "torch": partial(ours.embed_chips, some),
        }
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, work in ways.items():
                spent[name] += machine.seconds_of(work, device, 2)
        each = {name: statistics.median(seconds) / batch * 1e3 for name, seconds in spent.items()}
        print(f"batch {batch:3d}" + "".join(f"  {name} {ms:6.1f} ms" for name, ms in each.items()), end="")
        print(f"  dlib : torch {each['dlib'] / each['torch']:.1f}")


def chips_below(folder: Path) -> list[RGB]:
    """Aligned crops of the first faces below a folder."""
    detector, predictor, chips = build_detector("hog", min_face_px=60), DlibPredictor(), list[RGB]()
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES):
        try:
            picture = decode(path.read_bytes())
        except InputError:
            continue
        boxes = detector.detect([picture])[0].boxes_xyxy[:1]
        chips += face_chips(picture, predictor.predict(picture, boxes))
        if len(chips) == FACES:
            break
    if not chips:
        raise SystemExit(f"HOG found no face below {folder}")
    return chips


def flops_of_a_face() -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        load_dlib_resnet()(torch.zeros(1, 3, CHIP_PX, CHIP_PX))
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
