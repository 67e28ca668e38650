"""`python -m tasks` is `facemill`."""

import sys

try:
    from tasks.cli import main
except ModuleNotFoundError as error:  # DVC runs the `python` of the PATH, whichever that is
    sys.exit(f"error: {sys.executable} has no {error.name}: activate the environment first (. .venv/bin/activate)")

main()
