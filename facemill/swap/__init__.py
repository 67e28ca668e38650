"""Puts one identity's face in place of another's through a video, and touches nothing else.

Reading order: `converter.py` (the whole way of a video), `finder.py` and `tools.py` (whose face is where), `swapper.py`
(the net), `mask.py`, `colour.py`, `blend.py` (how the new face meets the picture), `threads.py` (the bounded queues
between decoding, swapping and encoding), `job.py` (one video of an archive, done once).
"""
