"""Which changed pictures are known as copies: by the whole picture (`dedup`), by the aligned face (`curate`), by both.

    python benchmarks/copies.py FOLDER [--pictures 45] [--changed 12] [--imagededup]

FOLDER has a folder of pictures for each person, whose face is the one at the middle (LFW is made so). The first
pictures of each are changed and compared with all pictures of the folder. *recall*: of the changed pictures in which a
face is found, as in their originals, since others reach no dataset; *others*: pairs with another picture of the same
person (LFW holds some pictures twice). With --imagededup, which has to be installed beside facemill, its PHash at its
default limit of 10 bits judges the same pictures; it knows no people, so all its pairs count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facemill.align import transform
from facemill.dedup import Looks, judge
from facemill.face_looks import LOOK_BYTES, FaceLooks, copies
from facemill.picture_hash import PictureHash, hash_picture
from facemill.pictures import RGB, decode, encode_jpeg, sha256_hex
from tasks.extract import Tools, faces_of, find, load_tools
from tasks.params import ExtractParams


def _inset(share: float) -> Callable[[RGB], RGB]:
    def cropped(picture: RGB) -> RGB:
        height, width = picture.shape[:2]
        y, x = round(height * share), round(width * share)
        return np.ascontiguousarray(picture[y : height - y, x : width - x])

    return cropped


def _captioned(picture: RGB) -> RGB:
    height, found = len(picture), picture.copy()
    found[int(height * 0.88) :] = 0
    cv2.putText(found, "Some press agency 2004", (5, int(height * 0.96)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3)
    return found


CHANGES: dict[str, Callable[[RGB], Any]] = {
    "resized to 70 %": lambda picture: cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "enlarged to 150 %": lambda picture: cv2.resize(picture, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC),
    "JPEG quality 40": lambda picture: decode(encode_jpeg(picture, 40)),
    "cropped by 2.5 %": _inset(0.025),
    "cropped by 5 %": _inset(0.05),
    "cropped left by 10 %": lambda picture: np.ascontiguousarray(picture[:, round(picture.shape[1] * 0.1) :]),
    "brighter": lambda picture: np.clip(picture * 1.2 + 10, 0, 255).astype(np.uint8),
    "captioned": _captioned,
    "white border": lambda picture: cv2.copyMakeBorder(picture, 20, 20, 20, 20, cv2.BORDER_CONSTANT, value=(255,) * 3),
    "mirrored": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
}


@dataclass
class Picture:
    """What a picture is compared by; `face` is None where none is found in the middle."""

    person: str
    hash: PictureHash
    face: FaceLooks | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=45, help="of each person, the first by name")
    parser.add_argument("--changed", type=int, default=12, help="of these, the first by name")
    parser.add_argument("--imagededup", action="store_true")
    arguments = parser.parse_args()
    tools = load_tools(ExtractParams())
    theirs = their_hash() if arguments.imagededup else None
    known: list[int] = []
    originals: list[Picture] = []
    pixels: dict[int, RGB] = {}
    for person in sorted(path for path in arguments.folder.iterdir() if path.is_dir()):
        for number, path in enumerate(sorted(person.iterdir())[: arguments.pictures]):
            picture = decode(path.read_bytes())
            if number < arguments.changed:
                pixels[len(originals)] = picture
            originals.append(looked_at(person.name, picture, tools))
            if theirs:
                known.append(theirs(picture))
    print(f"{len(originals)} pictures, {len(pixels)} of them changed")
    print(f"{'change':<22}{'picture':>9}{'face':>7}{'both':>7}{'others':>8}" + ("  imagededup" if theirs else ""))
    for name, change in CHANGES.items():
        seen = by_picture = by_face = by_both = others = 0
        peer = peer_others = 0
        for at, picture in pixels.items():
            other = looked_at(originals[at].person, change(picture), tools)
            if theirs:
                near = np.bitwise_count(np.array(known, np.uint64) ^ np.uint64(theirs(change(picture)))) <= 10
                peer, peer_others = peer + near[at], peer_others + near.sum() - near[at]
            if other.face is None or originals[at].face is None:
                continue
            seen += 1
            same = [row for row, one in enumerate(originals) if one.person == other.person]
            pictures, faces = alike([originals[row] for row in same], other)
            found = {same[row] for row in pictures | faces}
            by_picture += at in {same[row] for row in pictures}
            by_face += at in {same[row] for row in faces}
            by_both, others = by_both + (at in found), others + len(found - {at})
        told = f"{name:<22}{by_picture / seen:>9.3f}{by_face / seen:>7.3f}{by_both / seen:>7.3f}{others:>8}"
        if theirs:
            told += f"  {peer / len(pixels):.3f}, {peer_others} others"
        print(told, flush=True)


def looked_at(person: str, picture: RGB, tools: Tools) -> Picture:
    """As `dedup` and `extract` do it."""
    hashed = hash_picture(encode_jpeg(picture, 90))
    [found] = find([picture], tools)
    if isinstance(found, Exception) or found.turns or not len(found.faces):
        return Picture(person, hashed, None)
    centre = np.array(picture.shape[1::-1]) / 2
    off = np.abs((found.faces.boxes_xyxy[:, :2] + found.faces.boxes_xyxy[:, 2:]) / 2 - centre).max(axis=1)
    if off.min() >= centre.min() / 4:
        return Picture(person, hashed, None)
    row = faces_of(picture, found, {"sample_id": "x" * 16, "identity": person}, tools)[int(off.argmin())]
    points = transform(np.array(row["landmarks"]).reshape(68, 2), np.array(row["affine"]).reshape(2, 3))
    looks = FaceLooks(
        look=np.frombuffer(row["look"], np.uint8).reshape(1, LOOK_BYTES),
        points=points[None].astype(np.float32),
        angles_deg=np.array([[row["yaw"], row["pitch"]]], np.float32),
        embedding=np.array([row["embedding"]], np.float32),
        video=np.array([-1]),
    )
    return Picture(person, hashed, looks)


def alike(own: list[Picture], other: Picture) -> tuple[set[int], set[int]]:
    """The pictures of which `other` is a copy, by the whole picture and by the face."""
    pictures, faces = set(), set()
    for row, one in enumerate(own):
        looks = Looks.from_columns(
            phash=[one.hash.phash, other.hash.phash],
            dhash=[one.hash.dhash, other.hash.dhash],
            flat=[one.hash.flat, other.hash.flat],
            owner=[0, 0],
            sample_id=[sha256_hex(b"one"), sha256_hex(b"other")],
            rank=[[0, 1]],
            tie=[0, 0],
        )
        if judge(looks)[0][1] == 0:
            pictures.add(row)
        if one.face is not None and other.face is not None:
            both = {
                name: np.concatenate([column, getattr(other.face, name)]) for name, column in vars(one.face).items()
            }
            if copies(FaceLooks(**both))[1] == 0:
                faces.add(row)
    return pictures, faces


def their_hash() -> Callable[[RGB], int]:
    """imagededup's perceptual hash of a picture."""
    from imagededup.methods import PHash  # type: ignore[import-not-found]  # a peer, no dependency

    method = PHash(verbose=False)
    return lambda picture: int(method.encode_image(image_array=picture), 16)


if __name__ == "__main__":
    main()
