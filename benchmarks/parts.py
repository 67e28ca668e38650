"""What it costs to encode a film in parts and join them, against one go.

    python benchmarks/parts.py                            # 600 frames of 1280×720, made from a sample portrait
    python benchmarks/parts.py --clip film.mp4 --seconds 10

In turns in one run, medians of 3, in seconds of processor time (a segment uses one core): (1) decode + encode in one
go; (2) the same segment by segment, each with a decoder and an encoder of its own; (3) the join of those parts, with
all its checks; (4) the plan of the segments. Beside it the sizes of both files.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from convert import make_clip

from facemill.video import Part, PartWriter, SegmentPlan, VideoReader, VideoWriter, join_parts, plan_segments, probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clip", type=Path, help="a video; made from a sample portrait by default")
    parser.add_argument("--frames", type=int, default=600, help="length of the made clip")
    parser.add_argument("--seconds", type=float, default=10.0, help="a segment is at least so long")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = arguments.clip or make_clip(folder / "clip.mp4", arguments.frames)
        compare(clip, folder, arguments.seconds, arguments.repeats)


def compare(clip: Path, folder: Path, seconds: float, repeats: int) -> None:
    """Prints medians, and ratios to one go."""
    info, plan = probe(clip), plan_segments(clip, least_s=seconds)
    print(f"{clip.name}: {info.width}×{info.height}, {info.codec}, {info.frames} frames, {len(plan.segments)} segments")
    parts = encode_parts(clip, plan, folder)
    one, joined = folder / "one.mp4", folder / "joined.mp4"
    sides: dict[str, Callable[[], object]] = {
        "one go": lambda: encode(clip, one),
        "segment by segment": lambda: encode_parts(clip, plan, folder),
        "join": lambda: join_parts(parts, joined, info, sound_from=clip, clock=plan.clock),
        "plan": lambda: plan_segments(clip, least_s=seconds),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.process_time()
            side()
            times[name].append(time.process_time() - start)
    whole = statistics.median(times["one go"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:<20} {median:8.3f} s  {median / whole:7.4f} of one go")
    size = joined.stat().st_size
    speed = size / 1e6 / statistics.median(times["join"])
    print(f"  joined: {size / one.stat().st_size:.4f} of the size of one go; {speed:.0f} MB/s")


def encode(clip: Path, target: Path) -> None:
    """Decodes and encodes all of it."""
    with VideoReader(clip, threads=1) as reader, VideoWriter(target, reader.info, sound_from=clip) as writer:
        for frame in reader:
            writer.write(frame)
        writer.commit()


def encode_parts(clip: Path, plan: SegmentPlan, folder: Path) -> list[Part]:
    """The same in parts."""
    parts = []
    for segment in plan.segments:
        with (
            VideoReader(clip, threads=1, segment=segment) as reader,
            PartWriter(folder / f"{segment.index}.mp4", reader.info) as writer,
        ):
            for frame in reader:
                writer.write(frame)
            parts.append(writer.commit())
    return parts


if __name__ == "__main__":
    main()
