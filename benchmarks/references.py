"""Whose face is it: precision and recall of references, and whether a wrong one among them is found.

    python benchmarks/references.py FOLDER [--cache FILE] [--draws 20] [--pictures N]

FOLDER has a folder of pictures for each person, whose face is the one at the middle of the picture (LFW is made so).
Faces are found and embedded as `extract` does it by default. For 1, 3, 10 and 30 references of each person, drawn by
chance, the faces at the middle of all other pictures are judged: those of the person should be taken, and no others.
Counted over all persons and draws; precision says less the fewer pictures of a person the references leave over.

Nobody has said who the bystanders are, and some are one of these people: they count neither way. Those that are taken
with each draw of 30 references are printed by their picture, to be looked at.

Then the check of references against one another: among right ones one wrong face is planted, of another person.
*found* is the share of wrong ones that are refused, *false* the share of right ones that are, with and without a wrong
one, and *asked* the share of draws in which the references do not settle it.

The default limit was chosen on these very people. So the people are also halved, ten times by chance: the limit with
the largest of the smaller of precision and recall, over all counts of references but 1, is chosen on one half and
measured on the other. *centre* is another distance, which facemill does not use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.embeddings import distance, identity_distance
from facemill.errors import InputError
from facemill.pictures import decode
from facemill.references import ReferenceFace, choose
from tasks.extract import faces_of, find, load_tools
from tasks.params import CurateParams, ExtractParams

COUNTS = (1, 3, 10, 30)
Rows = npt.NDArray[np.float64]
SPREAD = 0.09
"""Half the mean square of the distances between two faces of one person, over LFW's ten people (0.06 to 0.12)."""


def _to_centre(references: Rows, faces: Rows) -> Rows:
    """The distance to the references' mean, and what a single reference's would be more by a person's usual spread."""
    away = distance(faces, references.mean(axis=0))
    return np.asarray(np.sqrt(away**2 + SPREAD * (1 - 1 / len(references))))


WAYS: dict[str, Callable[[Rows, Rows], Rows]] = {
    "facemill": identity_distance,
    "centre": _to_centre,
    "nearest": lambda references, faces: np.array([distance(references, face).min() for face in faces]),
    "mean": lambda references, faces: np.array([distance(references, face).mean() for face in faces]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="where the embeddings are kept for the next run, as .npz")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--pictures", type=int, help="of each person, the first by name; all by default")
    arguments = parser.parse_args()
    if arguments.cache and arguments.cache.exists():
        faces = dict(np.load(arguments.cache))
    else:
        faces = extracted(arguments.folder, arguments.pictures)
        if arguments.cache:
            np.savez(arguments.cache, **faces)  # type: ignore[arg-type]  # columns, none of them called allow_pickle
    own = faces["middle"]
    names = sorted(set(faces["person"][own]))
    print(f"{own.sum()} faces of {len(names)} people, {len(own) - own.sum()} of bystanders")
    for name, pictures in taken_bystanders(faces, names, arguments.draws).items():
        print(f"bystanders taken for {name} each time: {', '.join(pictures)}")
    faces = {column: values[own] for column, values in faces.items()}
    print(f"{'references':>10}" + "".join(f"{f'{way}: precision':>22}{'recall':>8}" for way in WAYS))
    for count in COUNTS:
        found = [judged(faces, names, count, arguments.draws, way) for way in WAYS.values()]
        print(f"{count:>10}" + "".join(f"{precision:>22.4f}{recall:>8.4f}" for precision, recall in found))
    for way in ("facemill", "centre"):
        print(f"{way}: limit chosen on one half of the people, measured on the other")
        for count, precision, recall in halved(faces, names, max(1, arguments.draws // 4), WAYS[way]):
            print(f"{count:>10}{precision:>22.4f}{recall:>8.4f}")
    print(f"{'references':>10}{'found':>8}{'asked':>8}{'false':>8}{'false, none wrong':>20}")
    for count in (2, *COUNTS[1:]):
        print(
            f"{count:>10}" + "{:>8.3f}{:>8.3f}{:>8.4f}{:>20.4f}".format(*checked(faces, names, count, arguments.draws))
        )


def extracted(folder: Path, pictures: int | None) -> dict[str, npt.NDArray[Any]]:
    """Of every face whose folder its picture lies in, that picture, whether it is the one in the middle, and its
    embedding."""
    tools = load_tools(ExtractParams())
    found: dict[str, list[Any]] = {"person": [], "picture": [], "middle": [], "embedding": []}
    for path in [path for person in sorted(folder.iterdir()) for path in sorted(person.iterdir())[:pictures]]:
        try:
            picture = decode(path.read_bytes())
        except InputError:
            continue
        [found_here] = find([picture], tools)
        if isinstance(found_here, Exception) or found_here.turns or not len(found_here.faces):
            continue
        centre = np.array(picture.shape[1::-1]) / 2
        boxes = found_here.faces.boxes_xyxy
        off = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - centre).max(axis=1)
        for at, row in enumerate(faces_of(picture, found_here, {"sample_id": path.stem, "identity": "x"}, tools)):
            found["person"].append(path.parent.name)
            found["picture"].append(path.stem)
            found["middle"].append(bool(at == off.argmin() and off[at] < centre.min() / 4))
            found["embedding"].append(row["embedding"])
    return {name: np.array(values) for name, values in found.items()}


def taken_bystanders(faces: dict[str, npt.NDArray[Any]], names: list[str], draws: int) -> dict[str, list[str]]:
    """For each person the pictures with a bystander who is taken at the default limit, whatever the references."""
    chance, embeddings, found = np.random.default_rng(0), faces["embedding"].astype(np.float64), {}
    for name in names:
        own = np.flatnonzero(faces["middle"] & (faces["person"] == name))
        taken = ~faces["middle"]
        for _ in range(draws):
            references = embeddings[chance.choice(own, COUNTS[-1], replace=False)]
            taken &= identity_distance(references, embeddings) <= CurateParams().identity_distance
        if taken.any():
            found[name] = faces["picture"][taken].tolist()
    return found


def judged(
    faces: dict[str, npt.NDArray[Any]], names: list[str], count: int, draws: int, way: Callable[[Rows, Rows], Rows]
) -> tuple[float, float]:
    """Precision and recall at the default limit, over all people and draws."""
    chance, embeddings = np.random.default_rng(0), faces["embedding"].astype(np.float64)
    taken_own = taken = all_own = 0
    for name in names * draws:
        own = faces["person"] == name
        references = chance.choice(np.flatnonzero(own), count, replace=False)
        rest = np.setdiff1d(np.arange(len(own)), references)
        near = way(embeddings[references], embeddings[rest]) <= CurateParams().identity_distance
        taken, taken_own, all_own = taken + near.sum(), taken_own + own[rest][near].sum(), all_own + own[rest].sum()
    return taken_own / taken, taken_own / all_own


def halved(
    faces: dict[str, npt.NDArray[Any]], names: list[str], draws: int, way: Callable[[Rows, Rows], Rows]
) -> list[tuple[int, float, float]]:
    """Count of references, precision and recall; prints which limits were chosen."""
    chance, limits = np.random.default_rng(2), np.arange(0.40, 0.70, 0.01)
    chosen, found = [], np.zeros((len(COUNTS), 3))
    for _ in range(10):
        mixed = list(chance.permutation(names))
        for choosing, measuring in ((mixed[::2], mixed[1::2]), (mixed[1::2], mixed[::2])):
            known = np.sum([counted(faces, choosing, count, draws, limits, way) for count in COUNTS[1:]], axis=0)
            limit = limits[np.minimum(known[0] / known[1], known[0] / known[2]).argmax()]
            chosen.append(limit)
            for row, count in enumerate(COUNTS):
                found[row] += counted(faces, measuring, count, draws, np.array([limit]), way)[:, 0]
    print(f"limits from {min(chosen):.2f} to {max(chosen):.2f}, mean {np.mean(chosen):.3f}")
    return [(count, own / taken, own / there) for count, (own, taken, there) in zip(COUNTS, found, strict=True)]


def counted(
    faces: dict[str, npt.NDArray[Any]],
    names: list[str],
    count: int,
    draws: int,
    limits: Rows,
    way: Callable[[Rows, Rows], Rows],
) -> Rows:
    """(3, limits): right faces that are taken, all that are taken, and right ones that are there, of these people."""
    chance, found = np.random.default_rng(0), np.zeros((3, len(limits)))
    here = np.isin(faces["person"], names)
    person, embeddings = faces["person"][here], faces["embedding"][here].astype(np.float64)
    for name in names * draws:
        own = person == name
        references = chance.choice(np.flatnonzero(own), count, replace=False)
        rest = np.setdiff1d(np.arange(len(own)), references)
        near = way(embeddings[references], embeddings[rest])[:, None] <= limits
        found += [near[own[rest]].sum(axis=0), near.sum(axis=0), np.full(len(limits), own[rest].sum())]
    return found


def checked(faces: dict[str, npt.NDArray[Any]], names: list[str], count: int, draws: int) -> list[float]:
    """Shares: found and asked with a wrong reference, right ones refused with and without one."""
    chance, found = np.random.default_rng(1), np.zeros(4)
    for name in names * draws:
        own = faces["person"] == name
        right = chance.choice(np.flatnonzero(own), count, replace=False)
        wrong = chance.choice(np.flatnonzero(~own))
        clean, mixed = (
            choose([_reference(at, faces["embedding"][at]) for at in rows]) for rows in (right, [*right[:-1], wrong])
        )
        settled = not mixed.question
        refused = len(mixed.refused) - (str(wrong) in mixed.refused)
        found += [
            settled and str(wrong) in mixed.refused,
            not settled,
            settled * refused / (count - 1),
            len(clean.refused) / count,
        ]
    return list(found / (len(names) * draws))


def _reference(at: int, embedding: Rows) -> ReferenceFace:
    return ReferenceFace(str(at), str(at), str(at), np.array([0, 0, 100, 100]), 1.0, embedding)


if __name__ == "__main__":
    main()
