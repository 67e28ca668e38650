"""Faces through the frames of a video.

`segment.py` finds and follows all faces of one segment and says what they look like: `tracker.py` puts `cuts.py` (where
scenes start), `flow.py` (a box from one frame to the next), `match.py` (which box is which) and `facemill.media.view`
(a part of a frame) together, and `models.py` sees. `join.py` makes tracks of a whole video of its segments, `smooth.py`
takes the trembling from their points, `table.py` and `pieces.py` store them, and `naming.py` says who a track is.
"""
