"""Faces through the frames of a video.

`cuts.py` tells where scenes start, `flow.py` follows a box to the next frame, `match.py` tells which box is which,
`view.py` looks at a part of a frame, `models.py` sees the faces in it. `tracker.py` puts them together for all faces of
a video; `facemill.swap.finder` does for the one face that is to be replaced.

`segment.py` tracks one segment of a video, with landmarks and embeddings; `join.py` puts segments together, `smooth.py`
takes the trembling from the landmarks, `table.py` writes and reads the result, `naming.py` says who a track is.
"""
