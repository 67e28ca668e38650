"""`python -m facemill.detector_training FOLDER --output DIR`: training where there are only torch, numpy, OpenCV and
pyarrow. It has the options of `facemill detector train`: the fields of `DetectorTraining`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facemill.command_options import from_options, options
from facemill.detector_training.run import train_detector
from facemill.detector_training.settings import DetectorTraining
from facemill.errors import FacemillError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


def main(arguments: list[str] | None = None) -> int:
    """Trains, and returns the exit code: 0 done, 1 an error that was told, 130 told to end, the state is saved."""
    given = vars(_parser().parse_args(arguments))
    folder, output = given.pop("folder"), given.pop("output")
    try:
        settings = from_options(DetectorTraining, given)
        trained = train_detector(folder, output, settings, tell=lambda line: print(line, flush=True))
    except FacemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    if trained.metrics is None:
        step = trained.outcome.step
        print(f"The training was told to end: step {step} is saved, and the same command goes on from it.", flush=True)
        return EXIT_INTERRUPTED
    print(f"detector in {trained.folder / 'detector'}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m facemill.detector_training", description="Train DSFD.")
    parser.add_argument("folder", type=Path, help="pictures and annotations: VOC, WIDER FACE or dlib")
    parser.add_argument("--output", type=Path, required=True, help="folder of this training")
    for option in options(DetectorTraining):
        parser.add_argument(option.flag, metavar=option.metavar, help=option.help.replace("%", "%%"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
