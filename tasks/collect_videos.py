"""The archive's videos as rows of `videos`: what stage `collect` does beside the pictures.

The sample archive is written first, each video by a worker; after that it is a folder of files like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facemill import tables
from facemill.errors import FacemillError, InputError
from facemill.files import publish_folder
from facemill.foreign_files import valid_name
from facemill.media_files import Tell, tell_nobody
from facemill.reasons import Reason, State
from facemill.schema import VIDEOS, VideoRow
from tasks.catalogue import Data
from tasks.params import Params, SampleArchive
from tasks.paths import archive_folder
from tasks.work.cluster import Pool, run_all
from tasks.work.failures import Lost
from tasks.work.file_hashes import hash_files
from tasks.work.results import Made, Part, Shard, WorkItem, content_key, drop_unreached, make_parts, open_store
from tasks.work.scratch import drop_other_folders, keyed_folder
from tasks.work.spread import spread
from tasks.work.totals import publish_parts

VIDEOS_TOGETHER = 16  # probing takes some 20 ms a video


def archive_videos(params: Params, root: Path, tell: Tell = tell_nobody) -> list[Path]:
    """The files of an archive that is a folder of one's own, in their order, pictures among them; none of the sample
    people's archive.
    `tell` gets what was skipped.

    Raises:
        FacemillError: the folder is missing or holds neither videos nor pictures.
    """
    if isinstance(params.archive, SampleArchive):
        return []
    from facemill.media import list_media

    folder = archive_folder(params, root)
    files = list_media(folder, tell)
    if not files or folder.is_file():
        raise FacemillError(f"{folder} is not a folder with videos or pictures: put some there, or correct the path")
    return files


def collect_videos(
    params: Params, root: Path, inventory: Mapping[str, Any], code: str, pool: Pool, *, retry: bool
) -> tuple[Made, int]:
    """Writes the sample archive, probes every video, publishes `data/videos` and `data/archive`.

    Args:
        inventory: the content of data/inventory.json.
        code: key of the code and the packages that decide.

    Returns:
        What was made, and the bytes of results that are kept.
    """
    output = root / Data.VIDEOS
    samples: dict[str, Path] = {}
    if isinstance(params.archive, SampleArchive):
        key = content_key(code, params.seed, params.archive.model_dump(), inventory["portraits"])
        folder = keyed_folder(root, "collect-archive", key)
        samples = _written_samples(folder, params.archive.seconds, params.seed, pool)
        hashes = hash_files(root, "archive", samples.values(), ours=True)
        listed = [(name, hashes[path]) for name, path in samples.items()]
        drop_other_folders(folder)
    else:
        folder = archive_folder(params, root)
        listed = [(entry["name"], entry["sha256"]) for entry in inventory["archive"]]
    items = {content_key(name, sha256): (name, sha256) for name, sha256 in listed}
    store = open_store(root, "collect-videos", VIDEOS, code=code)
    planned = spread(list(items), _present(output, items), params.collect.rows_per_shard)
    plan = [Part(part.name, tuple(WorkItem(key, items[key]) for key in part.units)) for part in planned]
    made = make_parts(
        store, plan, video_shard, _lost_row, pool,
        settings=folder, rows_per_shard=VIDEOS_TOGETHER, retry=retry, unit="shards of videos",
    )  # fmt: skip
    publish_folder(root / Data.ARCHIVE, samples)  # none where the archive lies elsewhere
    publish_parts(made.paths, output)
    return made, drop_unreached(store)


def video_shard(shard: Shard) -> list[list[VideoRow]]:
    """Probes videos of the folder that the shard's settings name: rows of `videos`."""
    return [[_row(shard.settings, name, sha256)] for name, sha256 in shard.items]


def _written_samples(folder: Path, seconds: float, seed: int, pool: Pool) -> dict[str, Path]:
    """The videos of the sample archive by name; those that are not there yet are written, each by a worker."""
    from facemill.sources.sample.videos import sample_archive

    scenes = sample_archive()
    paths = {name: folder / name for name in scenes}
    # what shows the most people takes longest, and begins first, so that no worker waits for it at the end
    longest_first = sorted(scenes, key=lambda name: (scenes[name].cut, -len(scenes[name].people)))
    jobs = [(folder, name, seconds, seed) for name in longest_first if not paths[name].exists()]
    for index, result in run_all(pool, _write_sample, jobs):
        if isinstance(result, Lost):
            raise FacemillError(f"the sample video {jobs[index][1]} could not be written: {result.detail}")
    return paths


def _write_sample(job: tuple[Path, str, float, int]) -> None:
    from facemill.sources.sample.videos import write_archive_video

    write_archive_video(*job)


def _present(output: Path, items: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """The videos in each part of the table as it is, by the keys that they have now; others are left out."""
    if not output.is_dir():
        return {}
    keys = {valid_name(name): key for key, (name, _) in items.items()}
    columns = {path.stem: tables.read_part(path, VIDEOS, ["video"]) for path in tables.checked_parts(output, VIDEOS)}
    return {part: _known(table["video"].to_pylist(), keys) for part, table in columns.items()}


def _known(videos: Sequence[str], keys: Mapping[str, str]) -> list[str]:
    return [keys[video] for video in videos if video in keys]


def _row(folder: Path, name: str, sha256: str) -> VideoRow:
    from facemill.media import media_facts

    row: VideoRow = {"video": valid_name(name), "sha256": sha256}
    path = folder / name
    try:
        row |= {"size_bytes": path.stat().st_size}
        facts = media_facts(path)
    except OSError as error:
        return row | _problem(Reason.UNREADABLE, error.strerror or type(error).__name__)
    except InputError as problem:
        return row | _problem(problem.reason, problem.detail)
    return row | {
        "codec": facts.codec,
        "width": facts.width,
        "height": facts.height,
        "frames": facts.frames,
        "duration_s": facts.duration_s,
        "audio": facts.audio,
        "status": State.OK,
    }


def _lost_row(item: tuple[str, str], reason: Reason, detail: str) -> VideoRow:
    row: VideoRow = {"video": valid_name(item[0]), "sha256": item[1]}
    return row | _problem(reason, detail)


def _problem(reason: Reason, detail: str) -> VideoRow:
    return {"status": reason.state, "error": reason, "detail": detail}
