"""Charts as inline SVG: they take their colours from the page's style sheet, so they follow light and dark.

Series are coloured by the classes `s0`, `s1`, …; text and axes by `axis`. Every function returns safe markup whose
texts are escaped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 520, 260
MAX_POINTS = 240


@dataclass(frozen=True)
class Series:
    """One curve: equally long x and y, rising x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class PlotArea:
    """The size of a drawing, the rectangle of the data in it, and the way from data to its coordinates."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_y: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = 52
    bottom: int = 30
    top: int = 10
    right: int = 12

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / ((high - low) or 1.0) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = (math.log10(end) for end in self.y_range) if self.log_y else self.y_range
        at = math.log10(value) if self.log_y else value
        return self.height - self.bottom - (at - low) / ((high - low) or 1.0) * (self.height - self.bottom - self.top)


def line_chart(series: Sequence[Series], *, label: str, log_y: bool = True) -> Markup:
    """Curves over a common axis; logarithmic where all values are positive."""
    values = [y for one in series for y in one.y if math.isfinite(y)]
    if not values:
        return Markup("")
    log_y = log_y and min(values) > 0 and max(values) / min(values) > 3
    low, high = min(values), max(values)
    y_range = (low * 0.9, high * 1.1) if log_y else _padded(low, high)
    xs = [x for one in series for x in one.x]
    frame = PlotArea((min(xs), max(xs)), y_range, log_y)
    lines = [
        Markup('<polyline class="curve s{}" points="{}"><title>{}</title></polyline>').format(
            index % 8, _points(frame, one), one.name
        )
        for index, one in enumerate(series)
    ]
    return _svg(frame, [_y_axis(frame), _x_axis(frame), *lines], label)


def histogram(
    groups: Mapping[str, Sequence[float]],
    *,
    label: str,
    limits: Sequence[float] = (),
    bins: int = 28,
) -> Markup:
    """Stacked counts by group over common bins; `limits` are drawn as dashed lines."""
    values = [value for group in groups.values() for value in group]
    if not values:
        return Markup("")
    low, high = _padded(min([*values, *limits]), max([*values, *limits]), share=0.03)
    counts = {name: _counts(group, low, high, bins) for name, group in groups.items()}
    tallest = max(sum(column) for column in zip(*counts.values(), strict=True))
    frame = PlotArea((low, high), (0.0, float(tallest) * 1.05), width=360, height=190, left=38)
    bars, step = [], (high - low) / bins
    for index in range(bins):
        base = 0
        for number, (name, column) in enumerate(counts.items()):
            if column[index]:
                bars.append(_bar(frame, low + index * step, step, base, column[index], number, name))
            base += column[index]
    marks = [_limit(frame, value) for value in limits]
    return _svg(frame, [_y_axis(frame, whole=True), _x_axis(frame), *bars, *marks], label)


def dumbbells(rows: Sequence[tuple[str, float, float]], *, threshold: float, label: str) -> Markup:
    """One line a row from a hollow dot (before) to a full one (after), with a dashed threshold."""
    ends = [value for _, before, after in rows for value in (before, after)]
    high = max(1.0, *ends) * 1.08
    frame = PlotArea((0.0, high), (0.0, 1.0), width=420, height=38 + 34 * len(rows), left=96, bottom=26)
    parts = [_x_axis(frame), _limit(frame, threshold)]
    for index, (name, before, after) in enumerate(rows):
        y = 26 + 34 * index
        parts.append(
            Markup(
                '<g class="s{n}"><text class="axis name" x="{tx}" y="{ty}">{name}</text>'
                '<line class="bell" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y}" y2="{y}"/>'
                '<circle class="hollow" cx="{x1:.1f}" cy="{y}" r="5"><title>before {before:.2f}</title></circle>'
                '<circle class="full" cx="{x2:.1f}" cy="{y}" r="6"><title>after {after:.2f}</title></circle></g>'
            ).format(
                n=index % 8,
                tx=frame.left - 10,
                ty=y + 4,
                name=_short(name, 13),
                x1=frame.x(before),
                x2=frame.x(after),
                y=y,
                before=before,
                after=after,
            )
        )
    return _svg(frame, parts, label)


def timeline(rows: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], *, length: float, label: str) -> Markup:
    """A line for each name with bars from when to when it is there, in seconds.

    Args:
        rows: name, number of its colour, beginning and end of each bar.
        length: of the whole line.
    """
    frame = PlotArea((0.0, max(length, 1e-3)), (0.0, 1.0), width=WIDTH, height=34 + 22 * len(rows), left=96, bottom=26)
    parts = [_x_axis(frame)]
    for index, (name, colour, spans) in enumerate(rows):
        y = 8 + 22 * index
        parts.append(
            Markup('<text class="axis name" x="{}" y="{}">{}</text>').format(frame.left - 10, y + 11, _short(name, 13))
        )
        for start, end in spans:
            parts.append(
                Markup(
                    '<rect class="bar s{n}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="14">'
                    "<title>{name}, {start:.2f} to {end:.2f} s</title></rect>"
                ).format(
                    n=colour % 8,
                    x=frame.x(start),
                    y=y,
                    width=max(1.0, frame.x(end) - frame.x(start)),
                    name=name,
                    start=start,
                    end=end,
                )
            )
    return _svg(frame, parts, label)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within the range, about `count` of them."""
    raw = (high - low) / max(1, count)
    if raw <= 0:
        return [low]
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range; fewer where it is wide, more where it is narrow."""
    factors: tuple[float, ...] = (1,) if high / low > 1000 else (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 5, 7)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def thinned(series: Series) -> Series:
    """At most `MAX_POINTS` points; each stretch is replaced by its mean, so that a noisy curve stays readable."""
    if len(series.y) <= MAX_POINTS:
        return series
    edges = [round(index * len(series.y) / MAX_POINTS) for index in range(MAX_POINTS + 1)]
    stretches = list(itertools.pairwise(edges))
    mean = [(sum(series.x[a:b]) / (b - a), sum(series.y[a:b]) / (b - a)) for a, b in stretches]
    return Series(series.name, [x for x, _ in mean], [y for _, y in mean])


def _svg(frame: PlotArea, parts: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        frame.width, frame.height, label, Markup("").join(parts)
    )


def _points(frame: PlotArea, series: Series) -> str:
    kept = thinned(series)
    pairs = zip(kept.x, kept.y, strict=True)
    return " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in pairs if math.isfinite(y))


def _y_axis(frame: PlotArea, whole: bool = False) -> Markup:
    low, high = frame.y_range
    marks = log_ticks(low, high) if frame.log_y else ticks(low, high, 4)
    if whole:
        marks = [mark for mark in marks if mark == int(mark)]
    end = frame.width - frame.right
    line = Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text class="axis end" x="{}" y="{ty:.1f}">{text}</text>'
    )
    return Markup("").join(
        line.format(frame.left, end, frame.left - 7, y=frame.y(mark), ty=frame.y(mark) + 4, text=_number(mark))
        for mark in marks
    )


def _x_axis(frame: PlotArea) -> Markup:
    y = frame.height - frame.bottom
    base = Markup('<line class="base" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
        frame.left, frame.width - frame.right, y=y
    )
    marks = ticks(*frame.x_range, 4 if frame.width < 400 else 6)
    text = Markup('<text class="axis middle" x="{:.1f}" y="{}">{}</text>')
    return base + Markup("").join(text.format(frame.x(mark), y + 17, _number(mark)) for mark in marks)


def _bar(frame: PlotArea, x: float, step: float, base: int, count: int, number: int, name: str) -> Markup:
    left, right = frame.x(x), frame.x(x + step)
    return Markup(
        '<rect class="bar s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(
        number % 8,
        left + 0.5,
        frame.y(base + count),
        max(0.5, right - left - 1),
        frame.y(base) - frame.y(base + count),
        f"{name}: {count} from {_number(round(x, 3))} to {_number(round(x + step, 3))}",
    )


def _limit(frame: PlotArea, value: float) -> Markup:
    return Markup(
        '<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"><title>limit {v}</title></line>'
    ).format(frame.top, frame.height - frame.bottom, x=frame.x(value), v=_number(value))


def _counts(values: Sequence[float], low: float, high: float, bins: int) -> list[int]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int((value - low) / (high - low) * bins)))] += 1
    return counts


def _padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    space = (high - low) * share or max(abs(high) * 0.1, 0.5)
    return low - space, high + space


def _number(value: float) -> str:
    """As short as it can be: 1500 -> 1,500; 0.05 -> 0.05; 1e-05 -> 1e-5."""
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:,.10g}".replace("-", "−") if abs(value) < 1e6 else f"{value:.3g}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
