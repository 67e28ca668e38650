"""An encoder leaves its process, and what that starts, scheduled as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clips import make_clip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are scheduled otherwise here")

OPEN = {
    "a part": """
with VideoReader(source) as reader, PartWriter(target, reader.info, EncoderSettings(name=encoder)) as writer:
    for frame in reader:
        writer.write(frame)
    look()
    writer.commit()
""",
    "a check": "check_encoder(EncoderSettings(name=encoder))",
    "a question": "container_holds('mp4', encoder)",
}


def policies(code: str) -> set[str]:
    """The policies of all threads of a process, seen when the code looks and when it has ended."""
    look = (
        "import os, sys\nfrom pathlib import Path\nseen = set()\n"
        "def look():\n    seen.update(os.sched_getscheduler(int(thread)) for thread in os.listdir('/proc/self/task'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{look}{code}\nlook()\nprint('seen', *seen)"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("seen", 1)[1].split())


@pytest.mark.parametrize("how", OPEN)
@pytest.mark.parametrize("encoder", ["libsvtav1", "libx264", "libx265", "libvpx-vp9"])
def test_no_thread_becomes_realtime(tmp_path: Path, encoder: str, how: str) -> None:
    """SVT-AV1 makes them so where it may; for who may not, this holds anyway."""
    source = make_clip(tmp_path / "in.mp4", frames=4, size=(320, 240), sound=None)
    names = (
        "from facemill.video import EncoderSettings, PartWriter, VideoReader\n"
        "from facemill.video.encoder import check_encoder, container_holds\n"
        f"source, target, encoder = Path({str(source)!r}), Path({str(tmp_path / 'part.mkv')!r}), {encoder!r}\n"
    )
    assert policies(names + OPEN[how]) == {str(os.SCHED_OTHER)}


def test_what_was_there_before_and_what_fails_is_put_right_too() -> None:
    code = (
        "import threading\nfrom facemill.video.scheduling import scheduled_as_before\n"
        "go = threading.Event()\n"
        "try:\n"
        "    with scheduled_as_before():\n"
        "        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\n"
        "        threading.Thread(target=go.wait).start()\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    look()\n"
        "go.set()"
    )
    assert policies(code) == {str(os.SCHED_OTHER)}


def test_a_thread_that_its_caller_scheduled_otherwise_stays_so() -> None:
    code = (
        "import threading\nfrom facemill.video.scheduling import scheduled_as_before\n"
        "go = threading.Event()\n"
        "def work():\n    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\n    go.wait()\n"
        "other = threading.Thread(target=work)\nother.start()\n"
        "while os.sched_getscheduler(other.native_id) != os.SCHED_BATCH:\n    pass\n"
        "with scheduled_as_before():\n    pass\n"
        "look()\ngo.set()"
    )
    assert policies(code) == {str(os.SCHED_OTHER), str(os.SCHED_BATCH)}
