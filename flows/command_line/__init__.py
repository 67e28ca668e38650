"""`facemill`, the command line: `main` puts it together, every other module is one group of commands.

Here stand names, options and help; the work is done by flows and by plain functions of `tasks`, which are imported
inside the commands: `facemill --help` and `facemill stage` answer without Prefect.
"""
