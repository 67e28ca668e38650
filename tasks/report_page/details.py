"""The report's comparison of where fine detail may come from: one face of each pair, drawn in every way there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from facemill.boxes import cut_around
from facemill.errors import InputError
from facemill.media import still_kind
from facemill.model_folder import read_meta, references_of
from facemill.schema import ConversionRow
from facemill.swap.detail.methods import METHODS
from facemill.swap.known import wanted_of
from facemill.swap.painter import FacePainter
from facemill.swap.preview import BestView, ShownFace, best_views, show_faces
from facemill.swap.swapper import load_swapper
from facemill.track.naming import name_tracks
from facemill.track.table import read_looks
from tasks.catalogue import Data
from tasks.converting.corrections import read_corrections
from tasks.params import Params
from tasks.paths import archive_folder
from tasks.report_page.thumbnails import Album
from tasks.track import tracked_files
from tasks.work.plugin_files import placed_occlusion

SIDE_PX = 300
"""Longer side of a picture at most; nothing is enlarged, so that what looks soft is soft."""
_MARGIN = 1.6


@dataclass(frozen=True)
class Way:
    """A face as one method of detail draws it, as data URI; `used`: whether the videos were converted with it."""

    method: str
    picture: str
    used: bool


@dataclass(frozen=True)
class Comparison:
    """One face of a converted video, as data URI, and in all ways in which it may be drawn."""

    name: str
    video: str
    before: str
    ways: list[Way]


def compare_details(root: Path, params: Params, converted: Sequence[ConversionRow], album: Album) -> list[Comparison]:
    """For each pair of `convert.becomes` a face from the first of these videos in which it is seen.

    Videos whose original or tracks are gone and still pictures are passed over, and without a model nothing is
    compared: what is missing is said elsewhere on the page.

    Args:
        converted: rows of videos in which somebody was replaced.
    """
    archive = archive_folder(params, root)
    tracked = [
        (row["video"], archive / row["video"], tracked_files(root, row["input_sha256"] or "")) for row in converted
    ]
    there = [one for one in tracked if all(Path(path).is_file() for path in (one[1], *vars(one[2]).values()))]
    if not there or not (root / Data.MODEL_META).is_file():
        return []
    references = references_of(read_meta(root / Data.MODEL))
    corrections = read_corrections(root, params.identities)
    painters: list[FacePainter] = []
    left, found = dict(params.convert.becomes), list[Comparison]()
    for name, video, files in there:
        who = name_tracks(read_looks(files), references, params.convert.identity_distance)
        wanted = wanted_of({**who, **corrections.get(name, {})}, left)
        if not wanted or still_kind(video) is not None:
            continue
        painters = painters or _painters(root, params)
        views = {wanted[view.track]: view for view in sorted(best_views(files), key=_side) if view.track in wanted}
        try:
            shown = list(show_faces(video, files, list(views.values()), wanted, painters))
        except InputError:
            continue  # it is measured as well, which says why it cannot be read
        for face in shown:
            replaced = wanted[face.view.track]
            comparison = _comparison(face, f"{replaced} → {left.pop(replaced)}", name, params, album)
            found += [comparison] if comparison else []
    return found


def _painters(root: Path, params: Params) -> list[FacePainter]:
    """One for each method of detail, which draw with one model."""
    swapper = load_swapper(root / Data.MODEL, params.convert.becomes, params.convert.device)
    placed = replace(params.convert, occlusion_options=placed_occlusion(params.convert, root))
    return [FacePainter(swapper, replace(placed, detail=method)) for method in METHODS.names()]


def _comparison(face: ShownFace, name: str, video: str, params: Params, album: Album) -> Comparison | None:
    """None where the page is full."""
    box = face.view.box.tolist()
    before, *after = (album.add(cut_around(one, box, _MARGIN), SIDE_PX) for one in (face.before, *face.after))
    ways = [
        Way(method, picture, used=method == params.convert.detail)
        for method, picture in zip(METHODS.names(), after, strict=True)
        if picture is not None
    ]
    return Comparison(name, video, before, ways) if before is not None and ways else None


def _side(view: BestView) -> float:
    return float(view.box[3] - view.box[1])
