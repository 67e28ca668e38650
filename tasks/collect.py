"""Stage `collect`: pictures from every source become rows of `raw`; the archive's videos become rows of `videos`.

In: the sources and references of params.yaml, and `data/inventory.json`, which says what lies in them.
Out: `data/raw`, `data/videos`, `data/archive` (the sample videos; empty when the archive is a folder of one's own).

Every picture is decoded once: a row is `ok` with its size, or `failed` with the reason, or `rejected` where its host
has opted out. What the network gave to earlier runs is carried over, so that a refresh only adds; each run asks again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from facemill import tables
from facemill.batches import batched
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, publish_folder, read_object
from facemill.media_files import VIDEO_SUFFIXES, list_files
from facemill.pictures import decode, sha256_hex, sniff
from facemill.reasons import Reason, State
from facemill.schema import RAW, VIDEOS, EncodedPicture, RawRow, StateColumns, VideoRow
from facemill.sources import Item, Surroundings, Unit, fetch, network_kinds, reference_source
from tasks.catalogue import Data
from tasks.params import Params, SampleArchive, WrongValues
from tasks.paths import archive_folder, place
from tasks.work.cluster import Pool, open_pool
from tasks.work.shards import (
    Shard,
    Totals,
    Work,
    count_rows,
    finish,
    open_work,
    plan_shards,
    publish,
    run_shards,
    write_shard,
)


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Collects everything. Raises FacemillError as the sources, `run_shards` and `finish` do."""
    start = time.monotonic()
    inventory = read_object(root / Data.INVENTORY, "sources", "portraits", "archive")

    raw, videos = root / Data.RAW, root / Data.VIDEOS
    with open_pool(params.cluster) as pool:
        rows_in, seconds = _collect_pictures(params, root, raw, inventory, pool, retry=retry)
        seconds += _collect_videos(params, root, videos, inventory, pool, retry=retry)
    counts, video_counts = count_rows(raw, RAW), count_rows(videos, VIDEOS)
    totals = Totals(
        stage="collect",
        rows_in=rows_in,
        counts=counts,
        seconds=time.monotonic() - start,
        worker_seconds=seconds,
        extra={"videos": {state: sum(reasons.values()) for state, reasons in sorted(video_counts.items())}},
    )
    return finish(root, totals, params.collect.failure_limit)


def plan_units(params: Params, root: Path, collected: Mapping[str, Sequence[str]] | None = None) -> list[Unit]:
    """Everything that all sources and references will give, in the order of params.yaml.

    Args:
        collected: for each identity, addresses that need not be asked again.

    Raises:
        FacemillError: a folder that is missing or empty, and whatever else a source finds wrong beforehand; a line for
            each wrong source, with its key.
    """
    units: list[Unit] = []
    wrong = WrongValues()
    for identity, person in params.identities.items():
        around = Surroundings(
            place=partial(place, root=root),
            seed=params.seed,
            max_file_bytes=params.collect.max_file_bytes,
            collected=tuple((collected or {}).get(identity, ())),
        )
        for n, reference in enumerate(person.references):
            with wrong.under(f"identities.{identity}.references.{n}"):
                units += reference_source(reference).plan(identity, "reference", around)
        for n, source in enumerate(person.sources):
            with wrong.under(f"identities.{identity}.sources.{n}"):
                units += source.plan(identity, "sample", around)
    wrong.complain()
    return units


def archive_videos(params: Params, root: Path) -> list[Path]:
    """The files of an archive that is a folder of one's own, in their order; none of the sample people's archive.

    Raises:
        FacemillError: the folder is missing or holds no video.
    """
    if isinstance(params.archive, SampleArchive):
        return []
    folder = archive_folder(params, root)
    files = list_files(folder, VIDEO_SUFFIXES)
    if not files or folder.is_file():
        raise FacemillError(f"{folder} is not a folder with videos: put some there, or correct the path")
    return files


@dataclass(frozen=True)
class PictureSettings:
    """What every shard of pictures needs to know."""

    max_pixels: int
    rights: Mapping[str, str]


def collect_shard(shard: Shard) -> pa.Table:
    """Fetches the units of a shard and checks each picture: rows of `raw`."""
    settings: PictureSettings = shard.settings
    rows = [_row(item, settings) for unit in shard.items for item in fetch(unit)]
    return tables.from_rows(rows, RAW)


@dataclass(frozen=True)
class VideoSettings:
    """What every shard of videos needs: where they lie, and how sample videos are made there."""

    folder: Path
    sample: bool
    seconds: float = 0.0
    seed: int = 0


def video_shard(shard: Shard) -> pa.Table:
    """Probes the videos of a shard, after writing them where they are samples: rows of `videos`."""
    settings: VideoSettings = shard.settings
    return tables.from_rows([_video_row(name, sha256, settings) for name, sha256 in shard.items], VIDEOS)


def _collect_pictures(
    params: Params, root: Path, output: Path, inventory: Mapping[str, Any], pool: Pool, *, retry: bool
) -> tuple[int, float]:
    """Fetches, carries over, publishes `data/raw`; returns how many rows there should be, and the seconds of work."""
    wanted = params.model_dump(include={"seed", "identities", "collect"}, mode="json")
    work = open_work(root, "collect", params=wanted, inventory=inventory["sources"])
    old = _old_network_urls(params, output)
    units = plan_units(params, root, old)
    settings = PictureSettings(
        params.collect.max_pixels, {name: person.rights.basis for name, person in params.identities.items()}
    )
    shards = _plan(units, params.collect.rows_per_shard, settings)
    seconds = run_shards(work, shards, collect_shard, _lost_row, RAW, pool, retry=retry, unit="shards of pictures")
    carried = _carry_over(work, output, shards, old, params.collect.rows_per_shard)
    publish(work, [*shards, *carried], output)
    rows_in = sum(_planned_rows(shard, output) for shard in [*shards, *carried])
    for shard in shards:  # the network may have something else the next time
        if shard.items[0].source in network_kinds():
            (work.folder / f"{shard.id}.parquet").unlink(missing_ok=True)
    return rows_in, seconds


def _plan(units: Sequence[Unit], rows_per_shard: int, settings: PictureSettings) -> list[Shard]:
    """Units of one row share shards, those that ask the network apart; a video or a search has a shard of its own."""
    network = network_kinds()
    here = [unit for unit in units if unit.single and unit.source not in network]
    away = [unit for unit in units if unit.single and unit.source in network]
    large = [unit for unit in units if not unit.single]
    cut = [*batched(here, rows_per_shard), *batched(away, rows_per_shard), *([unit] for unit in large)]
    return [Shard(f"{number:05d}", tuple(part), settings) for number, part in enumerate(cut)]


def _planned_rows(shard: Shard, output: Path) -> int:
    """Rows that the shard's units are bound to give; where only fetching could tell, the rows that are there."""
    if shard.items and all(unit.single for unit in shard.items):
        return len(shard.items)
    return int(tables.read_part(output / f"{shard.id}.parquet", RAW, ["status"]).num_rows)


def _row(item: Item, settings: PictureSettings) -> RawRow:
    """An item as a row: three ways out, and no fourth."""
    row: RawRow = {
        "identity": item.identity,
        "role": item.role,
        "source": item.source,
        "url": item.url,
        "page": item.page,
        "pts": item.pts,
        "licence": item.licence,
        "author": item.author,
        "rights": settings.rights[item.identity],
    }
    if item.data is None:
        return {**row, **_problem(item.error or Reason.PROCESSING_ERROR, item.detail)}
    row["sample_id"] = sha256_hex(item.data)
    try:
        height, width = decode(item.data, max_pixels=settings.max_pixels).shape[:2]
    except InputError as problem:
        return {**row, **_problem(problem.reason, problem.detail)}
    image: EncodedPicture = {"bytes": item.data, "path": f"{row['sample_id'][:16]}.{sniff(item.data)}"}
    read: RawRow = {"width": width, "height": height, "image": image, "status": State.OK}
    return {**row, **read}


def _problem(reason: Reason, detail: str) -> StateColumns:
    return {"status": reason.state, "error": reason, "detail": detail}


def _lost_row(unit: Unit, reason: Reason, detail: str) -> RawRow:
    where: RawRow = {"identity": unit.identity, "role": unit.role, "source": unit.source, "url": unit.key}
    return {**where, **_problem(reason, detail)}


def _old_network_urls(params: Params, output: Path) -> dict[str, list[str]]:
    """Addresses that earlier runs fetched well, for each identity that still has a network source."""
    asked = {
        name for name, person in params.identities.items() if any(source.asks_network for source in person.sources)
    }
    found: dict[str, list[str]] = {name: [] for name in sorted(asked)}
    network = network_kinds()
    if not asked or not output.is_dir():
        return found
    try:
        table = tables.read_table(output, RAW, ["identity", "source", "url", "status"])
    except FacemillError as error:
        raise FacemillError(f"{error}. If it cannot be mended, move {output} away to collect anew") from error
    for row in tables.to_rows(table, RAW):
        if row["identity"] in found and row["source"] in network and row["status"] == State.OK:
            found[row["identity"]].append(row["url"])
    return found


def _carry_over(
    work: Work, output: Path, shards: Sequence[Shard], old: Mapping[str, Sequence[str]], rows_per_shard: int
) -> list[Shard]:
    """Writes what earlier runs got from the network, and this one did not get again, as parts of their own."""
    if not any(old.values()):
        return []
    asked = [shard for shard in shards if shard.items[0].source in network_kinds()]
    parts = [tables.read_part(work.folder / f"{shard.id}.parquet", RAW, ["identity", "sample_id"]) for shard in asked]
    new = {(row["identity"], row["sample_id"]) for part in parts for row in tables.to_rows(part, RAW)}
    carried = []
    for number, rows in enumerate(batched(_old_rows(output, old, new), rows_per_shard)):
        shard = Shard(f"carried-{number:05d}", ())
        write_shard(work, shard, tables.from_rows(rows, RAW), 0.0)
        carried.append(shard)
    return carried


def _old_rows(output: Path, old: Mapping[str, Sequence[str]], new: set[tuple[str, str]]) -> Iterator[RawRow]:
    network = network_kinds()
    for row in tables.iterate_rows(output, RAW):
        wanted = row["identity"] in old and row["source"] in network and row["status"] == State.OK
        if wanted and (row["identity"], row["sample_id"]) not in new:
            yield row


def _collect_videos(
    params: Params, root: Path, output: Path, inventory: Mapping[str, Any], pool: Pool, *, retry: bool
) -> float:
    """Writes the sample archive, probes every video, publishes `data/videos` and `data/archive`."""
    wanted = params.model_dump(include={"seed", "archive"}, mode="json")
    work = open_work(root, "videos", params=wanted, archive=inventory["archive"], portraits=inventory["portraits"])
    if isinstance(params.archive, SampleArchive):
        names = _sample_names()
        settings = VideoSettings(work.folder / "archive", True, params.archive.seconds, params.seed)
        shards = plan_shards([(name, None) for name in names], 1, settings)  # seconds of work each
    else:
        names = []
        settings = VideoSettings(archive_folder(params, root), sample=False)
        listed = [(entry["name"], entry["sha256"]) for entry in inventory["archive"]]
        shards = plan_shards(listed, params.collect.rows_per_shard, settings)
    seconds = run_shards(work, shards, video_shard, _lost_video, VIDEOS, pool, retry=retry, unit="shards of videos")
    # exactly the sample videos: none for an archive that lies elsewhere
    publish_folder(root / Data.ARCHIVE, {name: settings.folder / name for name in names})
    publish(work, shards, output)
    return seconds


def _sample_names() -> list[str]:
    from facemill.sources.sample.videos import sample_archive

    return list(sample_archive())


def _video_row(name: str, sha256: str | None, settings: VideoSettings) -> VideoRow:
    from facemill.video import probe

    path = settings.folder / name
    if settings.sample:
        _write_sample(name, settings)
    row = _video(name, sha256)
    try:
        row |= {"sha256": sha256 or file_sha256(path), "size_bytes": path.stat().st_size}
        info = probe(path)
        if info.hdr:
            raise InputError(Reason.HDR_VIDEO, f"transfer {info.colour.trc}, {info.bit_depth} bits")
    except OSError as error:
        return {**row, **_problem(Reason.UNREADABLE, error.strerror or type(error).__name__)}
    except InputError as problem:
        return {**row, **_problem(problem.reason, problem.detail)}
    return row | {
        "codec": info.codec,
        "width": info.width,
        "height": info.height,
        "frames": info.frames,
        "duration_s": info.duration_s,
        "audio": info.audio[0].codec if info.audio else None,
        "status": State.OK,
    }


def _write_sample(name: str, settings: VideoSettings) -> None:
    from facemill.sources.sample.videos import write_archive_video

    if not (settings.folder / name).exists():
        write_archive_video(settings.folder, name, settings.seconds, settings.seed)


def _lost_video(item: tuple[str, str | None], reason: Reason, detail: str) -> VideoRow:
    return {**_video(*item), **_problem(reason, detail)}


def _video(name: str, sha256: str | None) -> VideoRow:
    """What is known of a video before it is opened; sample videos have no hash before they are made."""
    row: VideoRow = {"video": _valid(name)}
    return row | {"sha256": sha256} if sha256 else row


def _valid(name: str) -> str:
    """A file name as valid Unicode: tables cannot hold the half characters of a broken one."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
