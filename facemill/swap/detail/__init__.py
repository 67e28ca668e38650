"""Fine detail of new faces, which a net of few pixels cannot draw.

`methods.py` has the ways by name. One of them takes it from real pictures of the same person: `exemplars.py` chooses
those that travel with a model, `path.py` and `tracks.py` which of them each frame of a track takes, `drawn.py` and
`mesh.py` bring one to where the net draws the features, `from_exemplars.py` puts it all together. `match.py` has the
other way.
"""
