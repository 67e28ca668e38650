"""How fast pictures are hashed for `dedup`, beside imagededup's PHash on the same files, in turns, on one core each.

    python benchmarks/hashing.py FOLDER... [--peer PYTHON] [--rounds 3]

The JPEG files below the folders of 1.5 million pixels or more are hashed as they are, and as thumbnails with a longer
side of 160 px. Both sides read each file, decode and hash it, ten times; facemill hashes 64 at a time, as `dedup` does.
*decoding* is what reading and decoding take of it, each as that side does it. PYTHON is an interpreter of an
environment that has imagededup, which wants a torch of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from facemill.pictures import decode, encode_jpeg, picture_size

_OURS = """
import sys, time
from pathlib import Path
import cv2
import numpy as np
import simplejpeg
from facemill.picture_hash import DECODED_SIDE_PX, hash_small, shrink
cv2.setNumThreads(1)
sizes = dict(min_height=DECODED_SIDE_PX, min_width=DECODED_SIDE_PX, min_factor=2)
def decode(files):
    for file in files:
        simplejpeg.decode_jpeg(file.read_bytes(), colorspace="GRAY", strict=False, **sizes)
def hash(files):
    for at in range(0, len(files), 64):
        hash_small(np.stack([shrink(file.read_bytes()) for file in files[at : at + 64]]))
"""
_THEIRS = """
import sys, time
from pathlib import Path
from PIL import Image
from imagededup.methods import PHash
method = PHash(verbose=False)
def decode(files):
    for file in files:
        Image.open(file).load()
def hash(files):
    for file in files:
        method.encode_image(image_file=file)
"""
_TIMED = """
files = 10 * sorted(Path(sys.argv[1]).iterdir())
for work in (hash, decode):
    work(files[:1])
    start = time.process_time()
    work(files)
    print(time.process_time() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--peer", help="python of an environment with imagededup")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    photos = [
        data
        for folder in arguments.folders
        for path in sorted(folder.rglob("*.jp*g"))
        if (size := picture_size(data := path.read_bytes())) and size[0] * size[1] >= 1_500_000
    ]
    for what, pictures in (("photos", photos), ("thumbnails", [thumbnail(data) for data in photos])):
        with tempfile.TemporaryDirectory() as name:
            for number, data in enumerate(pictures):
                (Path(name) / f"{number:04}.jpg").write_bytes(data)
            sides = [("facemill", sys.executable, _OURS)]
            sides += [("imagededup", arguments.peer, _THEIRS)] if arguments.peer else []
            seconds: dict[str, list[tuple[float, float]]] = {}
            for _ in range(arguments.rounds):
                for side, python, code in sides:
                    seconds.setdefault(side, []).append(timed(python, code, name))
        middle = {side: np.median(values, axis=0) / len(pictures) / 10 for side, values in seconds.items()}
        told = ", ".join(
            f"{side} {1000 * whole:.2f} ms (decoding {1000 * decoding:.2f})"
            for side, (whole, decoding) in middle.items()
        )
        ratio = f"; {middle['imagededup'][0] / middle['facemill'][0]:.1f} × as fast" if arguments.peer else ""
        weight = sum(map(len, pictures)) // len(pictures) // 1000
        print(f"{len(pictures)} {what} of {weight} KB: {told}{ratio}", flush=True)


def thumbnail(data: bytes) -> bytes:
    picture = decode(data)
    zoom = 160 / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    return encode_jpeg(small.astype(np.uint8), 90)


def timed(python: str, code: str, folder: str) -> tuple[float, float]:
    """Processor seconds of one side, its start left out: for all of it, and for reading and decoding alone."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [python, "-c", code + _TIMED, folder], env=os.environ | one, capture_output=True, text=True, check=True
    )
    whole, decoding = map(float, done.stdout.split())
    return whole, decoding


if __name__ == "__main__":
    main()
