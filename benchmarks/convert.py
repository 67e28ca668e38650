"""Conversion against its floor and against a frames-on-disk version of itself; and whether memory grows with length.

    python benchmarks/convert.py                          # 100 frames of 1280×720, made from a sample portrait
    python benchmarks/convert.py --clip talk.mp4 --skip-memory
    python benchmarks/convert.py --skip-speed --skip-memory --model data/model    # of the sample people
    python benchmarks/convert.py --skip-speed --size 3840x2160
    python benchmarks/convert.py --skip-speed --noise --size 160x120 --frames 10000

In turns in one run, medians of 3: (1) decode + encode with the pictures untouched; (2) the same through RGB and back,
the floor of converters that work on RGB frames; (3) tracking and conversion together; (4) tracking alone; (5) the
conversion alone of what is tracked, as with another model; (6) the same with every frame written as PNG before and
after. The net is the small preset with random weights, which takes as long as a trained one. Memory is the peak
resident size of a process that converts the clip, and of one that converts the clip joined ten times; with --noise of
frames that have nothing but noise, among which one with a face. With a trained model of Hopper and Collins: how much
a still portrait with noise changes from frame to frame inside the face, after the conversion against before it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from facemill.nets import build_model
from facemill.pictures import decode, encode_png
from facemill.sources.sample import Pose, render
from facemill.swap.known import known_faces
from facemill.swap.one_video import convert, convert_tracked, convert_video
from facemill.swap.painter import FacePainter, FacesOfFrame
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.track.join import join_tracks
from facemill.track.models import FaceModels
from facemill.track.naming import name_tracks
from facemill.track.segment import track_frames
from facemill.track.settings import TrackingSettings
from facemill.track.table import TrackedFiles, read_looks, read_segments, write_tracks
from facemill.track.video import track_video
from facemill.video import Frame, VideoReader, VideoWriter, plan_segments, probe, read_frames
from tasks.work.cluster import one_thread

LOOPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clip", type=Path, help="a video with one large face; made from a sample portrait by default")
    parser.add_argument("--frames", type=int, default=100, help="length of the made clip")
    parser.add_argument("--size", type=size_wh, default=(1280, 720), help="of the made clip, such as 3840x2160")
    parser.add_argument("--noise", action="store_true", help="all frames but the first of the made clip are noise")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a model folder of the sample run, for the still with noise")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--peak-of", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(*arguments.peak_of)
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = arguments.clip or make_clip(
            Path(folder) / "clip.mp4", arguments.frames, arguments.size, noise=arguments.noise
        )
        info = probe(clip)
        print(f"{clip.name}: {info.width}×{info.height}, {info.codec}, {info.frames} frames")
        if not arguments.skip_speed:
            compare_speed(clip, Path(folder), arguments.repeats)
        if not arguments.skip_memory:
            compare_memory(clip, Path(folder))
        if arguments.model:
            compare_noise(arguments.model, Path(folder))


def compare_speed(clip: Path, folder: Path, repeats: int) -> None:
    """Times the four in turns; prints medians and ratios to the conversion."""
    one_thread()  # as in a worker: the pipeline's own threads keep two cores busy, OpenMP's would only spin beside them
    swapper, references, tools, settings = load(clip)
    files = track_video(clip, folder / "tracks", tools, TrackingSettings())
    sides: dict[str, Callable[[], None]] = {
        "decode + encode, untouched": lambda: recode(clip, folder / "a.mp4", through_rgb=False),
        "decode + RGB + encode": lambda: recode(clip, folder / "b.mp4", through_rgb=True),
        "conversion": lambda: report(
            convert(clip, folder / "c.mp4", swapper, references, tools, settings).frames_swapped
        ),
        "tracking alone": lambda: print_nothing(track_video(clip, folder / "again", tools, TrackingSettings())),
        "conversion of what is tracked": lambda: report(
            convert_tracked(clip, folder / "d.mp4", files, swapper, references, settings).frames_swapped
        ),
        "with PNG frames on disk": lambda: on_disk(clip, folder, swapper, references, tools, settings),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    frames = probe(clip).frames or 1
    own = statistics.median(times["conversion"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:<28} {median:7.2f} s  {frames / median:7.1f} frames/s  conversion takes {own / median:5.2f}×")


def compare_memory(clip: Path, folder: Path) -> None:
    """Prints both peaks and their ratio."""
    long = join(clip, folder / "long.mp4", LOOPS)
    peaks = []
    for path in (clip, long):
        command = [sys.executable, __file__, "--peak-of", str(path), str(folder / "out.mp4")]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        peaks.append(answer["peak_mib"])
        print(f"  peak memory of {answer['frames']:5d} frames: {answer['peak_mib']:7.1f} MiB")
    print(f"  {LOOPS} times as long takes {peaks[1] / peaks[0]:.3f}× the memory")


def print_peak(clip: Path, target: Path) -> None:
    """Converts in this process and prints its peak resident size."""
    one_thread()
    swapper, references, tools, settings = load(clip)
    receipt = convert(clip, target, swapper, references, tools, settings)
    # not getrusage's ru_maxrss: a child inherits its parent's
    status = Path("/proc/self/status").read_text()
    peak_mib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"frames": receipt.frames_out, "swapped": receipt.frames_swapped, "peak_mib": peak_mib}))


def compare_noise(model: Path, folder: Path) -> None:
    """Prints how much a still changes inside the face; a change of low frequencies is what eyes see as flicker."""
    picture, _ = render("hopper", Pose(), (640, 480))
    still = make_still(folder / "still.mp4", picture)
    left, top, right, bottom = FaceModels("hog").search(picture, 80)[0].astype(int)
    inset = (right - left) // 6
    inside = (slice(top + inset, bottom - inset), slice(left + inset, right - inset))
    before = np.stack([frame.rgb[inside] for frame in read_frames(still)]).astype(np.float32)
    for detail in ("match", "exemplars"):
        output = folder / f"{detail}.mp4"
        convert_video(still, output, model, {"hopper": "collins"}, SwapSettings(detail=detail))
        after = np.stack([frame.rgb[inside] for frame in read_frames(output)]).astype(np.float32)
        print(
            f"  a still with noise changes inside the face, detail {detail}: {change(after) / change(before):.2f}×, "
            f"in low frequencies {change(low(after)) / change(low(before)):.2f}×"
        )


def change(frames: npt.NDArray[np.float32]) -> float:
    """Mean difference of frames that follow one another."""
    return float(np.abs(np.diff(frames, axis=0)).mean())


def low(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each frame without what is finer than some pixels."""
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in frames])


def make_still(path: Path, picture: npt.NDArray[np.uint8], frames: int = 60) -> Path:
    """A picture that does not move, with the noise of a camera in dim light in each frame, H.264, nearly lossless."""
    random = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "10", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
        for _ in range(frames):
            noisy = np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def load(clip: Path) -> tuple[Swapper, dict[str, npt.NDArray[np.float32]], FaceModels, SwapSettings]:
    """An untrained small model that looks for the largest face of the clip's first frame."""
    tools = FaceModels("hog")
    picture = next(read_frames(clip)).rgb
    boxes = tools.search(picture, 80)
    box = boxes[np.argmax(boxes[:, 2] - boxes[:, 0])]
    references = tools.embed(picture, tools.landmarks(picture, box[None]))
    model = build_model("autoencoder", "small", ["a", "b"]).eval()
    swapper = Swapper(model=model, device="cpu", becomes={"a": "b"}, coverage=1.1)
    return swapper, {"a": references}, tools, SwapSettings()


def print_nothing(_: object) -> None:
    """A side of the comparison whose result nobody wants."""


def report(swapped: int) -> None:
    if swapped == 0:
        sys.exit("no face was swapped: choose a clip with a large face in its first frame")


def recode(clip: Path, target: Path, *, through_rgb: bool) -> None:
    """The floor: everything but the face."""
    with VideoWriter(target, probe(clip), SwapSettings().encoder, sound_from=clip) as writer:
        with VideoReader(clip, pix_fmt=writer.pix_fmt) as reader:
            for frame in reader:
                if through_rgb:
                    frame = Frame.from_rgb(frame.rgb, frame.pts, frame.time_base, pix_fmt=writer.pix_fmt)
                writer.write(frame)
        writer.commit()


def on_disk(
    clip: Path,
    folder: Path,
    swapper: Swapper,
    references: dict[str, npt.NDArray[np.float32]],
    tools: FaceModels,
    settings: SwapSettings,
) -> None:
    """Extract all frames as PNG, find and convert PNG to PNG, encode the PNG: the way of the programs before."""
    times = []
    for index, frame in enumerate(read_frames(clip)):
        (folder / f"{index:06d}.png").write_bytes(encode_png(frame.rgb))
        times.append((frame.pts, frame.time_base))

    def frames(pattern: str) -> Iterator[Frame]:
        for index, (pts, time_base) in enumerate(times):
            yield Frame.from_rgb(decode((folder / pattern.format(index)).read_bytes()), pts, time_base)

    painter = FacePainter(swapper, settings)
    seen = track_frames(frames("{:06d}.png"), tools, TrackingSettings())
    assert seen is not None
    found = join_tracks([seen], TrackingSettings())
    files = TrackedFiles(*(str(folder / f"disk-{name}.parquet") for name in ("segments", "tracks", "points")))
    write_tracks(files, "", plan_segments(clip, least_s=1e6, most_s=1e6), [seen], found)
    who = name_tracks(read_looks(files), references, settings.identity_distance)
    known = known_faces(files, read_segments(files)[0], {track: name for track, name in who.items() if name})
    for index, frame in enumerate(frames("{:06d}.png")):
        painter.paint([FacesOfFrame(frame, tuple(known.faces.get(frame.pts, ())))])
        (folder / f"{index:06d}-out.png").write_bytes(encode_png(frame.rgb))
    with VideoWriter(folder / "d.mp4", probe(clip), settings.encoder, sound_from=clip) as writer:
        for frame in frames("{:06d}-out.png"):
            writer.write(frame)
        writer.commit()


def size_wh(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def make_clip(path: Path, frames: int, size_wh: tuple[int, int] = (1280, 720), *, noise: bool = False) -> Path:
    """A sample person who talks and moves, or stands there once before noise, H.264, 25 frames a second."""
    random = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *size_wh, "yuv420p"
        for index in range(frames):
            pose = Pose(mouth_open=0.5 + 0.5 * math.sin(index / 3), yaw_deg=12 * math.sin(index / 20))
            if noise and index:
                picture = random.integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
            else:
                picture, _ = render("hopper", pose, size_wh)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def join(clip: Path, target: Path, times: int) -> Path:
    """The clip so many times in a row, its packets copied."""
    with av.open(str(target), "w") as output:
        targets: dict[int, Any] = {}
        shift_s = 0.0
        for _ in range(times):
            with av.open(str(clip)) as source:
                streams = [stream for stream in source.streams if stream.type in ("video", "audio")]
                for stream in streams:
                    if stream.index not in targets:
                        targets[stream.index] = output.add_stream_from_template(stream)
                for packet in source.demux(streams):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    ticks = round(shift_s / float(packet.time_base))
                    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                    packet.stream = targets[packet.stream.index]
                    output.mux(packet)
                shift_s += max(
                    float(stream.duration * stream.time_base)
                    for stream in streams
                    if stream.duration and stream.time_base
                )
    return target


if __name__ == "__main__":
    main()
