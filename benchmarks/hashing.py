"""How fast pictures are hashed for `dedup`, beside imagededup's PHash on the same files, in turns, on one core each.

    python benchmarks/hashing.py FOLDER... [--peer PYTHON] [--rounds 3]

The JPEG files below the folders of 1.5 million pixels or more are hashed as they are, and as thumbnails with a longer
side of 160 px. Both sides read each file, decode and hash it, ten times. PYTHON is an interpreter of an environment
that has imagededup, which wants a torch of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
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
from facemill.picture_hash import hash_picture
cv2.setNumThreads(1)
files = 10 * sorted(Path(sys.argv[1]).iterdir())
hash_picture(files[0].read_bytes())
start = time.process_time()
for file in files:
    hash_picture(file.read_bytes())
print(time.process_time() - start)
"""
_THEIRS = """
import sys, time
from pathlib import Path
from imagededup.methods import PHash
files, method = 10 * sorted(Path(sys.argv[1]).iterdir()), PHash(verbose=False)
method.encode_image(image_file=files[0])
start = time.process_time()
for file in files:
    method.encode_image(image_file=file)
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
            seconds: dict[str, list[float]] = {}
            for _ in range(arguments.rounds):
                for side, python, code in sides:
                    seconds.setdefault(side, []).append(timed(python, code, name))
        middle = {side: statistics.median(values) / len(pictures) / 10 for side, values in seconds.items()}
        told = ", ".join(f"{side} {1000 * each:.2f} ms" for side, each in middle.items())
        ratio = f"; {middle['imagededup'] / middle['facemill']:.1f} × as fast" if arguments.peer else ""
        weight = sum(map(len, pictures)) // len(pictures) // 1000
        print(f"{len(pictures)} {what} of {weight} KB: {told}{ratio}", flush=True)


def thumbnail(data: bytes) -> bytes:
    picture = decode(data)
    zoom = 160 / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    return encode_jpeg(small.astype(np.uint8), 90)


def timed(python: str, code: str, folder: str) -> float:
    """Processor seconds of one side, its start left out."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [python, "-c", code, folder], env=os.environ | one, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
