"""Names and things that a folder may hold and nobody expects: what must stop nothing and hang nothing."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterable
from pathlib import Path

ALIKE = ("Talk", "talk", "caf\u00e9", "cafe\u0301")
"""Two that differ in case alone, two in the way that Unicode spells an accent."""
STEMS = (b"caf\xe9", b"x[/b]", b"two\nlines", b"-dash", b"50% {x} &", "\u202etxt.день".encode())
STEMS += tuple(stem.encode() for stem in ALIKE)


def odd_names(suffix: str) -> list[str]:
    """Names with a suffix: no UTF-8, markup, a line break, a dash in front, alike, and the longest of all."""
    ends = os.fsencode(suffix)
    room = 255 - len(ends)
    lengths = (room - 14, room - 4, room)  # 241, 251 and 255 bytes with a suffix of four
    long = [letter * length for letter, length in zip((b"l", b"m", b"n"), lengths, strict=True)]
    wide = ["ы".encode() * (room // 2), b"\xe9" * room]
    return [os.fsdecode(stem + ends) for stem in (*STEMS, *long, *wide)]


def make_odd_files(folder: Path, names: Iterable[str], content: bytes) -> None:
    """Puts files of these names into a folder, which it makes; one with markup has a folder in its name, too."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def make_no_files(folder: Path, suffix: str) -> list[str]:
    """Puts things with a file's name into a folder that are none, and gives their names: to open one may wait for ever.

    A folder named like a file is there too, which is a folder like any other.
    """
    os.mkfifo(folder / f"pipe{suffix}")
    os.mknod(folder / f"socket{suffix}", stat.S_IFSOCK | 0o600)
    (folder / f"to pipe{suffix}").symlink_to(f"pipe{suffix}")
    (folder / f"to device{suffix}").symlink_to("/dev/zero")
    (folder / f"folder{suffix}").mkdir()
    (folder / f"folder{suffix}" / "up").symlink_to("..")  # a loop of folders
    return [f"{name}{suffix}" for name in ("pipe", "socket", "to device", "to pipe")]


def make_broken_links(folder: Path, suffix: str) -> list[str]:
    """Puts links that lead to no file into a folder and gives their names: they are rows with a reason."""
    (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
    (folder / f"there{suffix}").symlink_to(f"and back{suffix}")
    (folder / f"and back{suffix}").symlink_to(f"there{suffix}")
    (folder / f"gone{suffix}").symlink_to("nowhere")
    return [f"{name}{suffix}" for name in ("and back", "gone", "loop", "there")]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a file with flipped bits, another header, a cut, zeros, doubled or moved parts, or wrong sizes."""
    made, size = bytearray(data), len(data)
    how = chance.choice(["bits", "bits", "header", "cut", "zeros", "doubled", "moved", "sizes"])
    first, last = sorted(chance.randrange(size) for _ in range(2))
    if how == "bits":
        for _ in range(chance.randint(1, 30)):
            made[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif how == "header":
        for _ in range(chance.randint(1, 12)):
            made[chance.randrange(min(size, 200))] = chance.randrange(256)
    elif how == "cut":
        del made[first:]
    elif how == "zeros":
        last = min(last, first + 400)
        made[first:last] = bytes(last - first)
    elif how == "doubled":
        made[first:first] = made[first : first + 800]
    elif how == "moved":
        made = made[:first] + made[last:] + made[first:last]
    else:
        at = chance.randrange(min(size, 64))
        made[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\0\1\0\0"])
    return bytes(made)
