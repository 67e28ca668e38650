"""`python -m tasks` is `facemill`."""

from tasks.cli import main

main()
