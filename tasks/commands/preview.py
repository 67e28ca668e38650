"""`facemill preview`: how the faces of some videos will look, on a page and in short clips, before days of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
from ruamel.yaml import YAML

from facemill.boxes import cut_around
from facemill.errors import FacemillError, InputError
from facemill.files import write_bytes
from facemill.media import still_kind
from facemill.model_folder import read_meta, references_of
from facemill.reasons import Reason
from facemill.swap.job import ConversionJob, TrackedInput, who_is_who
from facemill.swap.known import wanted_of
from facemill.swap.painter import FacePainter
from facemill.swap.preview import BestView, best_views, show_faces, write_clip
from facemill.swap.swapper import load_swapper
from facemill.track.naming import distances
from facemill.track.table import read_looks
from tasks.converting.plan import preview_jobs
from tasks.params import parse_params
from tasks.params_file import read_params_file
from tasks.report_page.thumbnails import Album
from tasks.training.early import save_early_model
from tasks.work.cluster import InlinePool, one_thread
from tasks.work.plugin_files import placed_occlusion
from tasks.work.progress import track as show_progress
from tasks.work.scratch import WORK_FOLDER
from tasks.work.terminal import say

PAGE = "preview.html"
FACES_PER_VIDEO = 12
"""So many are shown of a video, those who are replaced first; the page says how many there are."""
SIDE_PX = 320
_MARGIN = 2.2


@dataclass(frozen=True)
class Shown:
    """A face of the page: pictures as data URIs (None once the page is full), and the words below them."""

    track: int
    time_s: float
    who: str
    becomes: str | None
    distance: str
    pictures: list[str | None]


@dataclass(frozen=True)
class ShownVideo:
    """A video of the page: its faces, how many it has, its clip beside the page, or why there is nothing to show."""

    video: str
    faces: list[Shown]
    count: int
    clip: str | None = None
    problem: str | None = None


def write_preview(
    root: Path, videos: Path, output: Path, *, model: Path, tries: Sequence[str] = (), clips: bool = True
) -> list[ShownVideo]:
    """Writes `preview.html` and a clip of each video in which somebody is replaced; of pictures there are no clips.

    Args:
        root: the project's folder.
        videos: a video or a picture, or a folder of them.
        output: the folder for page and clips.
        model: the folder of the model that draws the faces.
        tries: settings of `convert` to compare with those of params.yaml, as `colour=none`.

    Raises:
        FacemillError: no model, neither video nor picture, wrong settings, a full disk.
    """
    params = [parse_params(values) for values in _variants(root, tries)]
    plain = params[0]
    output.mkdir(parents=True, exist_ok=True)
    one_thread()
    jobs, tracking = preview_jobs(plain, videos, model, root)
    swapper = load_swapper(model, plain.convert.becomes, plain.convert.device)
    painters = [
        FacePainter(swapper, replace(each.convert, occlusion_options=placed_occlusion(each.convert, root)))
        for each in params
    ]
    references = references_of(read_meta(model))
    album, shown, pool = Album(), list[ShownVideo](), InlinePool()
    with show_progress("preview", len(jobs), "videos") as progress:
        for number, job in enumerate(jobs):
            try:
                tracked = tracking(pool, job)
                clip = output / f"preview-{number + 1:03d}.mp4" if clips else None
                shown.append(_shown(job, tracked, painters, references, album, clip))
            except InputError as error:
                shown.append(ShownVideo(job.video, [], 0, problem=error.detail or Reason(error.reason).sentence))
            progress.advance(note=job.video)
    names = ["before", "params.yaml" if tries else "after", *tries]
    page = _template().render(videos=shown, names=names, becomes=plain.convert.becomes, refused=album.refused)
    write_bytes(output / PAGE, page.encode())
    return shown


def early_model(root: Path) -> Path:
    """The folder of the model whose training is going on, made of its newest checkpoint.

    Raises:
        FacemillError: no training with these parameters has written a checkpoint yet.
    """
    params, folder = parse_params(read_params_file(root)), root / WORK_FOLDER / "preview" / "model"
    one_thread()
    step = save_early_model(params, root, folder)
    say(f"The training is at step {step} of {params.train.steps}, or somewhat beyond.")
    return folder


def _shown(
    job: ConversionJob,
    tracked: TrackedInput,
    painters: Sequence[FacePainter],
    references: dict[str, Any],
    album: Album,
    clip: Path | None,
) -> ShownVideo:
    who = who_is_who(job, tracked)
    becomes = job.origin.becomes
    wanted = wanted_of(who, becomes)
    views = sorted(best_views(tracked.files), key=lambda view: (view.track not in wanted, -_side(view)))
    looks = read_looks(tracked.files)
    faces = [
        Shown(
            track=face.view.track,
            time_s=face.time_s,
            who=who.get(face.view.track) or "nobody who is known",
            becomes=becomes.get(who.get(face.view.track) or ""),
            distance=", ".join(
                f"{distance:.2f} to {name}" for name, distance in distances(looks[face.view.track], references).items()
            ),
            pictures=[
                album.add(cut_around(picture, face.view.box.tolist(), _MARGIN), SIDE_PX)
                for picture in (face.before, *face.after)
            ],
        )
        for face in show_faces(Path(job.input), tracked.files, views[:FACES_PER_VIDEO], wanted, painters)
    ]
    moves = still_kind(job.input) is None
    if clip is not None and wanted and moves:
        write_clip(Path(job.input), clip, tracked.files, views[0].pts, wanted, painters)
    return ShownVideo(job.video, faces, len(views), clip.name if clip is not None and wanted and moves else None)


def _variants(root: Path, tries: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The parameters, and those with each of the settings that are tried."""
    yield read_params_file(root)
    for text in tries:
        name, equals, value = text.partition("=")
        if not equals:
            raise FacemillError(f"--try {text}: write NAME=VALUE, such as colour=none")
        values = read_params_file(root)
        group = values.setdefault("convert", {})
        *outer, last = name.split(".")
        for key in outer:
            group = group.setdefault(key, {})
        group[last] = YAML(typ="safe").load(value)
        yield values


def _side(view: BestView) -> float:
    return float(view.box[3] - view.box[1])


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "preview.html.j2"
    )
