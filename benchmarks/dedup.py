"""A million rows without pictures through the stages that decide over everything: seconds and peak memory of each.

    python benchmarks/dedup.py                    # 100,000 and 1,000,000 rows, some 20 minutes of one core
    python benchmarks/dedup.py --rows 20000

Tables with the real schemas in parts of 256 rows, written through `facemill.tables`: `raw` with hashes that are drawn
by chance and already known to the stage, in which one row in a hundred is a copy of another (half of them with the same
bytes, half with 1–4 other bits), then `faces` with one embedding for each picture that `unique` keeps. `dedup` and
`curate` run on them as `facemill stage` runs them, each in a process of its own, twice: the second time with nothing to
do. Every planted copy has to fall, and nothing else may. Then a person drops one face, and `curate` runs once more.

Beside the stages, alone in a process: `judge` on the same columns, whose memory is the table of hashes that grows with
the rows; and all pairs of at most 8 bits among as many hashes with 10,000 planted, with and without 2 % identical ones,
against comparing each with each, which is measured with fewer and extrapolated by its square.

Busy seconds are the processor's, which other programs on the machine change little. Peaks are those of the whole
process, with all that Python and its libraries take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.dedup import Looks, judge
from facemill.embeddings import DIMENSIONS
from facemill.face_looks import LOOK_BYTES
from facemill.hamming import near_pairs, pairs_within
from facemill.schema import DATASET, FACES, RAW, UNIQUE, TableSchema
from tasks import curate, dedup
from tasks.catalogue import Data
from tasks.curating.decisions import DECISIONS_FILE, Decision, Verdict, write_decisions
from tasks.params import Params, parse_params
from tasks.work.deciders import current_deciders, read_deciders, write_deciders
from tasks.work.results import open_store, put_items

ROWS = (100_000, 1_000_000)
PART_ROWS, IDENTITIES, REFERENCES, STRANGERS = 256, 10, 3, 0.1
COPIES = 0.01
NAIVE_HASHES = 30_000
PLANTED_PAIRS, IDENTICAL, FAR_BITS = 10_000, 0.02, 8
ALONE = 1_000
"""So few rows that what a process takes with them is Python and its libraries."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="where the tables are written: some 4 GB for a million rows")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "ROWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, rows = arguments.step
        print(json.dumps(_measured(STEPS[name], arguments.folder, int(rows))))
        return
    print(f"{'step':<22}{'rows':>10}{'seconds':>10}{'busy s':>10}{'peak MiB':>10}{'above 1,000 rows':>18}  ")
    alone: dict[str, float] = {}
    for rows in (ALONE, *arguments.rows):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for name in STEPS:
                found = _step(name, rows, Path(folder))
                alone.setdefault(name, found["peak_mib"])
                above = found["peak_mib"] - alone[name]
                times = f"{found['seconds']:>10.1f}{found['busy']:>10.1f}"
                memory = f"{found['peak_mib']:>10.0f}{above:>18.0f}"
                print(f"{name:<22}{rows:>10,}{times}{memory}  {found['said'] or ''}", flush=True)


def _step(name: str, rows: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--step", name, str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(step: Callable[[Path, int], str], folder: Path, rows: int) -> dict[str, Any]:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    said = step(folder, rows)
    after = resource.getrusage(resource.RUSAGE_SELF)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - start, "busy": busy, "peak_mib": after.ru_maxrss / 1024, "said": said}


def _params() -> Params:
    rights = {"basis": "own", "evidence": "drawn by chance"}
    person = {"rights": rights, "references": ["r"], "sources": [{"kind": "folder", "path": "p"}]}
    return parse_params(
        {
            "identities": {_name(at): person for at in range(IDENTITIES)},
            "archive": {"kind": "sample"},
            "convert": {"becomes": {_name(0): _name(1)}},
            "cluster": {"kind": "inline"},
        }
    )


def _name(identity: int) -> str:
    return f"person-{identity}"


def _hashes(rows: int) -> npt.NDArray[np.uint64]:
    """(N, 6): four words of the content's hash, phash, dhash; each hundredth row is a copy of the one 50 before it."""
    words = np.random.default_rng(rows).integers(0, 2**64, (rows, 6), dtype=np.uint64)
    copies = _copies(rows)
    words[copies] = words[copies - 50]
    chance = np.random.default_rng(1)
    other = copies[1::2]  # other bytes, which look almost the same
    words[other, :4] = chance.integers(0, 2**64, (len(other), 4), dtype=np.uint64)
    for _ in range(4):  # up to four bits, of which two may be the same
        words[other, 4] ^= np.uint64(1) << chance.integers(0, 64, len(other), dtype=np.uint64)
    return words


def _copies(rows: int) -> npt.NDArray[np.int64]:
    return np.arange(round(1 / COPIES), rows, round(1 / COPIES))


def _parts(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + PART_ROWS, rows)) for first in range(0, rows, PART_ROWS))


def _texts(words: npt.NDArray[np.uint64]) -> list[str]:
    text = words.astype(">u8").tobytes().hex()
    return [text[at : at + 64] for at in range(0, len(text), 64)]


def _table(schema: TableSchema[Any], rows: int, columns: dict[str, Any]) -> pa.Table:
    full = {name: columns.get(name, pa.nulls(rows, kind)) for name, kind in _types(schema).items()}
    return pa.Table.from_pydict(full, schema=schema.arrow)


def _types(schema: TableSchema[Any]) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema.arrow}


def make_raw(folder: Path, rows: int) -> str:
    """`raw`, and its hashes as an earlier run would have left them: each content once."""
    params = _params()
    for stage in ("dedup", "curate"):
        write_deciders(folder, stage, current_deciders(folder, stage, params))
    words = _hashes(rows)
    store = open_store(folder, "dedup-hash", dedup.HASHES, code=read_deciders(folder, "dedup", params).key)
    known: set[str] = set()

    def parts() -> Iterator[pa.Table]:
        for part in _parts(rows):
            ids, numbers = _texts(words[part, :4]), range(rows)[part]
            hashes = zip(ids, words[part, 4].tolist(), words[part, 5].tolist(), strict=True)
            seen: list[tuple[str, list[dedup.HashRow]]] = [
                (key, [{"phash": phash, "dhash": dhash, "flat": False, "status": "ok"}])
                for key, phash, dhash in hashes
                if key not in known
            ]
            known.update(key for key, _ in seen)
            put_items(store, seen)
            count = len(ids)
            columns: dict[str, list[Any]] = {"sample_id": ids, "identity": [_name(at % IDENTITIES) for at in numbers]}
            columns |= {"role": ["sample"] * count, "source": ["folder"] * count}
            columns |= {"url": [f"p/{at:09d}.jpg" for at in numbers], "licence": ["CC0"] * count}
            columns |= {"width": [512] * count, "height": [512] * count, "status": ["ok"] * count, "unit": ids}
            yield _table(RAW, count, columns)

    tables.write_table(folder / Data.RAW, parts())
    return ""


def run_dedup(folder: Path, rows: int) -> str:
    """The stage, whose verdicts must be the planted ones."""
    totals = dedup.run(_params(), folder)
    fallen = totals.counts.get("rejected", {})
    expected = {"exact_duplicate": len(_copies(rows)[::2]), "near_duplicate": len(_copies(rows)[1::2])}
    if fallen != {reason: count for reason, count in expected.items() if count}:
        raise SystemExit(f"planted {expected}, found {totals.counts}")
    return f"{sum(fallen.values()):,} copies fell, all that were planted"


def make_faces(folder: Path, rows: int) -> str:
    """`faces`: a face in each picture that is kept, near its person's centre or, as a stranger's, far from it."""
    chance = np.random.default_rng(2)
    centres = chance.normal(0, 1, (IDENTITIES, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    references = {_name(at): REFERENCES for at in range(IDENTITIES)}

    def parts() -> Iterator[pa.Table]:
        for path in tables.parts(folder / Data.UNIQUE):
            kept = tables.read_part(path, UNIQUE, ["sample_id", "identity", "source", "url", "keep"])
            kept = kept.filter(kept["keep"])
            count, owners = len(kept), kept["identity"].to_pylist()
            roles = []
            for owner in owners:
                roles.append("reference" if references[owner] else "sample")
                references[owner] = max(0, references[owner] - 1)
            own = np.array([int(owner.split("-")[1]) for owner in owners])
            spread = np.where(chance.random(count) < STRANGERS, 1.0, 0.3) * (np.array(roles) == "sample")
            embeddings = centres[own] + spread[:, None] * chance.normal(0, 1, (count, DIMENSIONS)) / np.sqrt(DIMENSIONS)
            columns: dict[str, Any] = {name: kept[name] for name in ("sample_id", "identity", "source", "url")}
            columns |= {"face_id": [f"{text[:16]}-0" for text in kept["sample_id"].to_pylist()], "role": roles}
            columns |= {"face_index": [0] * count, "score": [1.0] * count, "detector": ["hog"] * count}
            for name, numbers in (("box", 4), ("landmarks", 136), ("affine", 6)):
                columns[name] = list(chance.random((count, numbers)))
            columns["look"] = [row.tobytes() for row in chance.integers(0, 256, (count, LOOK_BYTES), np.uint8)]
            columns |= {"embedding": list(embeddings), "face_px": [128.0] * count, "sharpness": [50.0] * count}
            columns |= {angle: [0.0] * count for angle in ("yaw", "pitch", "roll")}
            yield _table(FACES, count, columns | {"status": ["ok"] * count})

    tables.write_table(folder / Data.FACES, parts())
    return ""


def run_curate(folder: Path, rows: int) -> str:
    """The stage: strangers fall."""
    counts = curate.run(_params(), folder).counts
    return f"{sum(counts['ok'].values()):,} ok, {counts['rejected']}"


def run_decided(folder: Path, rows: int) -> str:
    """The stage, after a person has dropped one face that it had accepted."""
    columns = ["sample_id", "status", "role"]
    accepted = (row for row in tables.iterate_rows(folder / Data.DATASET, DATASET, columns) if row["status"] == "ok")
    dropped = next(row["sample_id"] for row in accepted if row["role"] != "reference")
    write_decisions(folder / DECISIONS_FILE, [Decision(dropped, None, Verdict.DROP)])
    return run_curate(folder, rows)


def check_split(folder: Path, rows: int) -> str:
    """No duplicate cluster lies on both sides of the split; by itself, since it holds all their names."""
    sides: dict[str, set[str]] = {"train": set(), "val": set()}
    for part in tables.parts(folder / Data.DATASET):
        table = tables.read_part(part, DATASET, ["cluster", "split", "status"])
        for side, clusters in sides.items():
            clusters.update(table.filter(pc.equal(table["split"], side))["cluster"].to_pylist())
    if sides["train"] & sides["val"]:
        raise SystemExit("a duplicate cluster lies on both sides of the split")
    return ", ".join(f"{len(clusters):,} clusters for {side}" for side, clusters in sides.items())


def judge_alone(folder: Path, rows: int) -> str:
    """What the verdict itself takes, without tables."""
    words = _hashes(rows)
    looks = Looks(
        phash=words[:, 4].copy(),
        dhash=words[:, 5].copy(),
        flat=np.zeros(rows, np.bool_),
        owner=(np.arange(rows) % IDENTITIES).astype(np.int32),
        sample_id=words[:, :4].copy(),
        rank=np.zeros((rows, 4)),
        tie=np.arange(rows),
    )
    del words
    stands_for, _ = judge(looks)
    return f"{(stands_for != np.arange(rows)).sum():,} copies"


def pairs(folder: Path, rows: int) -> str:
    """All pairs of at most 8 bits among hashes of which 10,000 are planted near others."""
    return _pairs(rows, 0)


def pairs_with_identical(folder: Path, rows: int) -> str:
    """The same where one hash in fifty is one and the same, as of black pictures."""
    return _pairs(rows, round(rows * IDENTICAL))


def _pairs(rows: int, identical: int) -> str:
    chance = np.random.default_rng(rows)
    hashes = chance.integers(0, 2**64, rows, dtype=np.uint64)
    planted = min(PLANTED_PAIRS, rows // 10)
    near, far = np.arange(planted), rows - 1 - np.arange(planted)
    hashes[far] = hashes[near] ^ _flips(chance, planted)
    hashes[rows // 2 : rows // 2 + identical] = hashes[rows // 2]
    start = time.process_time()
    # With identical ones the caller groups them, as `facemill.dedup` does: their pairs alone would be 200 million.
    values, inverse = np.unique(hashes, return_inverse=True)
    found: set[tuple[int, int]] = set()
    for low, high, _ in near_pairs(values, FAR_BITS):
        found.update(zip(low.tolist(), high.tolist(), strict=True))
    seconds = time.process_time() - start
    wanted = {(min(pair), max(pair)) for pair in zip(inverse[near].tolist(), inverse[far].tolist(), strict=True)}
    found = {(min(pair), max(pair)) for pair in found}
    if wanted - found:
        raise SystemExit(f"{len(wanted - found)} of {planted} planted pairs were not found")
    return f"{len(found):,} pairs, all {planted:,} planted among them, in {seconds:.1f} busy s"


def _flips(chance: np.random.Generator, count: int) -> npt.NDArray[np.uint64]:
    """(N,) words with 1 … FAR_BITS bits set."""
    places = np.argsort(chance.random((count, 64)), axis=1)[:, :FAR_BITS].astype(np.uint64)
    chosen = np.arange(FAR_BITS) < chance.integers(1, FAR_BITS + 1, count)[:, None]
    return np.asarray(np.bitwise_or.reduce(np.where(chosen, np.uint64(1) << places, np.uint64(0)), axis=1))


def naive(folder: Path, rows: int) -> str:
    """Comparing each with each, row against all later ones, by numpy; the same pairs."""
    count = min(rows, NAIVE_HASHES)
    hashes = np.random.default_rng(3).integers(0, 2**64, count, dtype=np.uint64)
    hashes[count // 2 : count // 2 + 100] = hashes[:100] ^ _flips(np.random.default_rng(4), 100)
    start = time.process_time()
    found = [
        (at, at + 1 + int(other))
        for at in range(count)
        for other in np.flatnonzero(np.bitwise_count(hashes[at] ^ hashes[at + 1 :]) <= FAR_BITS)
    ]
    seconds = time.process_time() - start
    if [list(pair) for pair in found] != pairs_within(hashes, FAR_BITS)[:, :2].tolist():
        raise SystemExit("the two ways found other pairs")
    all_s = seconds * (rows / count) ** 2
    return f"{count:,} hashes in {seconds:.1f} busy s; {all_s:,.0f} s for {rows:,} by the square"


STEPS: dict[str, Callable[[Path, int], str]] = {
    "tables": make_raw,
    "dedup": run_dedup,
    "dedup, nothing new": run_dedup,
    "faces": make_faces,
    "curate": run_curate,
    "curate, nothing new": run_curate,
    "curate, one decision": run_decided,
    "look at the split": check_split,
    "judge alone": judge_alone,
    "pairs of 8 bits": pairs,
    "with 2 % identical": pairs_with_identical,
    "each with each": naive,
}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
