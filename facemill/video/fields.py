"""Whole frames out of interlaced ones, for encoders that cannot keep the fields."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import av.error
import av.filter


class Weaver:
    """Makes each frame of two fields one of whole lines, at the same time (FFmpeg's bwdif)."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._shape: tuple[int, int, str] | None = None
        self._time_base = Fraction(1)

    def progressive(self, picture: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """The pictures that are ready after this one; it looks one ahead."""
        shape = (picture.width, picture.height, picture.format.name)
        if self._graph is None or shape != self._shape:
            yield from self.rest()
            self._graph, self._shape, self._time_base = _graph(picture), shape, Fraction(picture.time_base or 1)
        self._graph.push(picture)
        yield from self._ready()

    def rest(self) -> Iterator[av.VideoFrame]:
        """What is left after the last picture."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph = None

    def _ready(self) -> Iterator[av.VideoFrame]:
        assert self._graph is not None
        while True:
            try:
                picture = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(picture, av.VideoFrame)
            if picture.pts is not None:  # the filter counts half ticks, one for each field
                ticks = Fraction(picture.time_base or 1) / self._time_base
                picture.pts, picture.duration = round(picture.pts * ticks), round(picture.duration * ticks)
                picture.time_base = self._time_base
            yield picture


def _graph(picture: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    deinterlacer = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlacer)
    deinterlacer.link_to(sink)
    graph.configure()
    return graph
