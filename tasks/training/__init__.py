"""What stage `train` brings beside the library: its process, its curves, its measures, the files it is given."""
