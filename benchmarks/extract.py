"""Extraction with two Dask workers against the same shard function in a bare loop; prints the ratio.

It means something on an idle machine only. The second ratio, of processor seconds (loop to busiest worker), tells what
idle cores would give: it falls when workers are fed unevenly or do extra work, not when others use the machine.

    python benchmarks/extract.py                 # 64 pictures, HOG, medians of 3
    python benchmarks/extract.py --detector mtcnn --pictures 128
    python benchmarks/extract.py --source FOLDER --pictures 1000 --rows-per-shard 16   # pictures of one's own
    python benchmarks/extract.py --source crowd.mp4 --min-face-px 40 --max-side-px 1920  # frames of a video

Both sides run `tasks.extract.extract_shard` on the same shards, in turns in one run, with one thread a process and the
models loaded before the clock starts. Without --source the pictures are the two sample portraits, shifted and lit
differently.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path

import numpy as np

from facemill import tables
from facemill.media_files import PICTURE_SUFFIXES, list_files
from facemill.pictures import RGB, decode, encode_jpeg, sha256_hex
from facemill.schema import UNIQUE, UniqueRow
from facemill.video import VideoReader
from tasks.extract import extract_shard, pictures_of
from tasks.params import ClusterParams, ExtractParams
from tasks.work.cluster import InlinePool, Pool, one_thread, open_pool
from tasks.work.results import Shard

PORTRAITS = (("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"), ("skimage", "data/astronaut.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Extraction: Dask workers against a bare loop.")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--detector", default="hog")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--source", type=Path, help="a folder of pictures, or a video")
    parser.add_argument("--rows-per-shard", type=int, default=4)
    parser.add_argument("--min-face-px", type=int, default=80)
    parser.add_argument("--max-side-px", type=int, default=1280)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        encoded = samples() if arguments.source is None else brought(arguments.source)
        source = write_pictures(Path(folder), islice(encoded, arguments.pictures))
        params = ExtractParams(
            detector=arguments.detector,
            rows_per_shard=arguments.rows_per_shard,
            min_face_px=arguments.min_face_px,
            max_side_px=arguments.max_side_px,
        )
        items = [item.value for item in pictures_of(source)]
        size = params.rows_per_shard
        shards = [Shard(tuple(items[at : at + size]), params) for at in range(0, len(items), size)]
        compare(shards, arguments.workers, arguments.repeats)


def compare(shards: list[Shard], workers: int, repeats: int) -> None:
    """Times both sides in turns and prints medians and their ratio."""
    one_thread()
    loop, pooled = list[float](), list[float]()
    busiest: dict[str, list[float]] = {"loop": [], "pool": []}
    with open_pool(ClusterParams(kind="local", workers=workers)) as pool:
        work_all(InlinePool(), shards[:1])  # models
        work_all(pool, shards[: 2 * workers])
        for _ in range(repeats):
            for name, runner, walls in (("loop", InlinePool(), loop), ("pool", pool, pooled)):
                start = time.perf_counter()
                busiest[name].append(work_all(runner, shards))
                walls.append(time.perf_counter() - start)
    pictures = sum(len(shard.items) for shard in shards)
    for name, values in (("bare loop", loop), (f"{workers} Dask workers", pooled)):
        median, each = statistics.median(values), ", ".join(f"{value:.2f}" for value in values)
        print(f"{name:16s} {median:6.2f} s  {pictures / median:6.2f} pictures/s  ({each})")
    print(f"ratio {statistics.median(loop) / statistics.median(pooled):.2f} (target: 1.8 on 2 cores)")
    one, most = statistics.median(busiest["loop"]), statistics.median(busiest["pool"])
    print(f"processor seconds: loop {one:.2f}, busiest worker {most:.2f}, ratio {one / most:.2f}")


def work_all(pool: Pool, shards: list[Shard]) -> float:
    """Works the shards; processor seconds of the process that used most."""
    used: dict[int, float] = defaultdict(float)
    for _, result in pool.run(work_one, shards):
        if isinstance(result, BaseException):
            raise result
        process, spent = result
        used[process] += spent
    return float(max(used.values()))


def work_one(shard: Shard) -> tuple[int, float]:
    """The shard's work, without sending its table back: in the stage it is written where it was made."""
    start = time.process_time()
    extract_shard(shard)
    return os.getpid(), time.process_time() - start


def write_pictures(folder: Path, pictures: Iterable[bytes]) -> Path:
    """A part of `unique` with encoded pictures."""
    rows: list[UniqueRow] = []
    for data in pictures:
        sample = sha256_hex(data)
        row: UniqueRow = {"sample_id": sample, "identity": "x", "role": "sample", "cluster": sample, "keep": True}
        rows.append({**row, "status": "ok", "image": {"bytes": data, "path": None}})
    tables.write_part(folder / "unique.parquet", tables.from_rows(rows, UNIQUE))
    return folder / "unique.parquet"


def samples() -> Iterator[bytes]:
    """The sample portraits without end, none like another."""
    portraits, random = [portrait(*place) for place in PORTRAITS], np.random.default_rng(0)
    for index in count():
        shifted = np.roll(portraits[index % 2], random.integers(-40, 40, 2), axis=(0, 1))
        yield encode_jpeg(np.clip(shifted * random.uniform(0.7, 1.1), 0, 255).astype(np.uint8))


def brought(source: Path) -> Iterator[bytes]:
    """The pictures of a folder as they are, or the frames of a video as JPEG."""
    if source.is_dir():
        yield from (path.read_bytes() for path in list_files(source, PICTURE_SUFFIXES))
        return
    with VideoReader(source) as reader:
        yield from (encode_jpeg(frame.rgb) for frame in reader)


def portrait(package: str, path: str) -> RGB:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"wants the sample portrait of {package}: pip install it")
    return decode((Path(spec.origin).parent / path).read_bytes())


if __name__ == "__main__":
    main()
