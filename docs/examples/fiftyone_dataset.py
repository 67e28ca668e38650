"""Opens the faces of a dataset in FiftyOne (https://docs.voxel51.com), with landmarks, pose and state as fields.

    facemill export faces faces --rejected
    pip install fiftyone
    python docs/examples/fiftyone_dataset.py faces

FiftyOne is no dependency of facemill. What is tagged `drop` in its app is deleted from the folder at the end, so that
`facemill import faces faces` takes it as your decision.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fiftyone as fo


def samples(folder: Path) -> list[fo.Sample]:
    """A sample for each line of alignments.jsonl."""
    found = []
    for line in (folder / "alignments.jsonl").read_text(encoding="utf-8").splitlines():
        face = json.loads(line)
        sample = fo.Sample(filepath=str((folder / face["file"]).absolute()), tags=[face["split"] or "rejected"])
        sample["person"] = fo.Classification(label=face["identity"])
        sample["ended"] = fo.Classification(label=face["error"] or face["status"])
        for name in ("distance", "face_px", "sharpness", "yaw", "pitch", "roll", "licence", "url"):
            sample[name] = face[name]
        found.append((sample, face["landmarks_in_file"]))
    for sample, _ in found:
        sample.compute_metadata()
    for sample, points in found:
        width, height = sample.metadata.width, sample.metadata.height
        relative = [((x + 0.5) / width, (y + 0.5) / height) for x, y in points]  # ours have pixel centres at integers
        sample["landmarks"] = fo.Keypoints(keypoints=[fo.Keypoint(label="face", points=relative)])
    return [sample for sample, _ in found]


def main() -> None:
    """Shows the dataset until the app is closed, then deletes what was tagged."""
    dataset = fo.Dataset("facemill", overwrite=True)
    dataset.add_samples(samples(Path(sys.argv[1])))
    fo.launch_app(dataset).wait()
    for sample in dataset.match_tags("drop"):
        Path(sample.filepath).unlink()


if __name__ == "__main__":
    main()
