"""`python -m flows.command_line` is `facemill`, for whoever has only an interpreter."""

from flows.command_line.main import main

main()
