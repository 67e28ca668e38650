"""Puts one identity's face in place of another's through a video, and touches nothing else.

Reading order: `known.py` (whose face is where, from the tracks), `converter.py` (a segment, and how all are joined),
`painter.py` (faces into frames), `swapper.py` (the net), `mask.py`, `colour.py`, `detail/`, `light.py`,
`blend.py` (how the new face meets the picture), `threads.py` (the bounded queues between decoding, swapping and
encoding), `job.py` (one video of an archive, done once), `one_video.py` (one video in this process), `preview.py` (how
one will look).
"""
