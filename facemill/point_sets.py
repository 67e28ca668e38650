"""One point cloud onto another (S10), in two or three dimensions, with and without known partners.

- Partners known (row k belongs to row k): `fit`, closed form, weighted; `fit_trimmed` where some rows are wrong.
- Partners unknown: `register`, Coherent Point Drift (Myronenko & Song 2010, "Point Set Registration: Coherent Point
  Drift", sections 4 and 5). The moving points are centres of a Gaussian mixture, the fixed points its draws, a uniform
  part takes the outliers; EM turns soft partners into a fit and back. Points may be missing on either side.
- Many shapes: `mean_shape`, generalised Procrustes analysis (Gower 1975).

facemill aligns faces by `fit`: 68 landmarks have known partners, and then nothing else comes as near to the true points
(benchmarks/alignment.py: 1.7 px of a 256 px crop, `fit_trimmed` 2.9, `register` from there on 3.2; with a quarter of
the face covered 3.9, 4.5 and 4.2). The others are for wrong partners, or for none: scans, another landmark model.

Three kinds of map: "rigid" (turn and shift), "similarity" (and one scale), "affine" (and shear). A map is D×(D+1)
float64: ``fixed = A[:, :D] @ moving + A[:, D]``, in two dimensions the affine of `align.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Map = npt.NDArray[np.float64]
Kind = Literal["rigid", "similarity", "affine"]

MAX_PAIRS = 16_000_000
"""Moving times fixed points: the table of partners takes 8 bytes a pair, and a few of them are alive at once."""


@dataclass(frozen=True)
class Registration:
    """How one cloud lies on another.

    matrix: (D, D+1), moving -> fixed. partner: (M,) int64, the fixed point that each moving point lies on, or -1 where
    none is nearer than three standard deviations. residual: root mean square distance of those pairs, in units of
    `fixed`. rounds: of EM; converged: it came to rest before `max_rounds`.
    """

    matrix: Map
    partner: npt.NDArray[np.int64]
    residual: float
    rounds: int
    converged: bool


def register(
    moving: npt.NDArray[Any],
    fixed: npt.NDArray[Any],
    kind: Kind = "rigid",
    *,
    outliers: float = 0.1,
    any_turn: bool = True,
    max_rounds: int = 150,
) -> Registration:
    """Brings (M, D) points `moving` onto (N, D) points `fixed`, whose partners and order are not known; D is 2 or 3.

    Deterministic, and never a reflection for "rigid" and "similarity".

    Args:
        moving: (M, D).
        fixed: (N, D).
        kind: of the map.
        outliers: about which share of `fixed` belongs to no moving point, 0 ≤ share < 1; take it rather too high. A
            fifth of outliers with a fifth of the partners missing is borne by all kinds; twice that no longer by an
            affine.
        any_turn: try many turns as a start (12 in the plane, 24 in space), since EM alone finds turns up to some 60°;
            False is that many times faster.
        max_rounds: of EM.

    Raises:
        ValueError: other shapes, NaN, fewer than D + 1 points, points in one place, or too many pairs.
    """
    moving, fixed = _cloud("moving", moving), _cloud("fixed", fixed)
    if moving.shape[1] != fixed.shape[1]:
        raise ValueError(f"moving has {moving.shape[1]} dimensions, fixed {fixed.shape[1]}")
    if len(moving) * len(fixed) > MAX_PAIRS:
        raise ValueError(f"{len(moving)} × {len(fixed)} points are more than {MAX_PAIRS} pairs: thin the clouds first")
    if not 0.0 <= outliers < 1.0:
        raise ValueError(f"outliers must be a share, 0 ≤ share < 1, got {outliers}")
    few, some = _thinned(moving), _thinned(fixed)
    turns = _turns(moving.shape[1]) if any_turn else [np.eye(moving.shape[1])]
    tried = [start for turn in turns for start in _tries(few, some, _start(turn, moving, fixed, kind), kind, outliers)]
    best = min(tried, key=lambda matrix: _misfit(matrix, few, some, outliers))
    matrix, variance, rounds = _em(moving, fixed, best, kind, outliers, max_rounds)
    return _result(moving, fixed, matrix, variance, rounds, rounds < max_rounds)


def fit(
    src: npt.NDArray[Any], dst: npt.NDArray[Any], kind: Kind = "similarity", weights: npt.NDArray[Any] | None = None
) -> Map:
    """The map of that kind that brings (K, D) `src` closest to its partners `dst`, (weighted) least squares.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns", Eq. (38)–(43);
    without scale it is Kabsch's. Never a reflection, unless affine: where one would fit better, the best rotation is
    returned.

    Args:
        src: (K, D).
        dst: (K, D), row by row the partners.
        kind: of the map.
        weights: (K,) ≥ 0; equal ones by default.

    Raises:
        ValueError: `src` does not determine the map: all points in one place, or for an affine in one line or plane.
    """
    share = np.full(len(src), 1.0 / len(src)) if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    mean_src, mean_dst = share @ src, share @ dst
    from_src, from_dst = src - mean_src, dst - mean_dst
    spread = (from_src * share[:, None]).T @ from_src  # (D, D)
    if np.trace(spread) <= np.finfo(float).tiny:
        raise ValueError("src: the points coincide, so they have no direction")
    across = (from_dst * share[:, None]).T @ from_src  # (D, D)
    if kind == "affine":
        if np.linalg.matrix_rank(spread, tol=1e-12 * np.trace(spread), hermitian=True) < len(spread):
            raise ValueError("src: the points lie on a line or plane, so no affine is determined by them")
        linear = np.linalg.solve(spread, across.T).T
    else:
        u, singular, vt = np.linalg.svd(across)
        sign = np.ones(len(spread))
        sign[-1] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0  # Eq. (39): keeps out reflections
        factor = float(singular @ sign) / np.trace(spread) if kind == "similarity" else 1.0  # Eq. (42)
        linear = factor * (u * sign) @ vt  # Eq. (40)
    return np.hstack([linear, (mean_dst - linear @ mean_src)[:, None]])


def fit_trimmed(
    src: npt.NDArray[Any], dst: npt.NDArray[Any], kind: Kind = "similarity", *, outliers: float = 0.3, seed: int = 0
) -> Map:
    """`fit` that lets the worst rows go; rows with NaN on either side count as missing.

    Least trimmed squares (Rousseeuw & Van Driessen 2006, "Computing LTS Regression for Large Data Sets"): from 60 small
    samples, fit the rows that fit best until they stay the same; the smallest sum wins. Deterministic for a seed.

    Args:
        src: (K, D).
        dst: (K, D), row by row the partners.
        kind: of the map.
        outliers: share of the rows that may be let go, < 0.5.
        seed: of the samples.

    Raises:
        ValueError: as `fit`, or another share.
    """
    src, dst = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    known = np.isfinite(src).all(axis=1) & np.isfinite(dst).all(axis=1)
    src, dst = _cloud("src", src[known]), dst[known]
    if not 0.0 <= outliers < 0.5:
        raise ValueError(f"outliers must be a share, 0 ≤ share < 0.5, got {outliers}")
    kept_count = max(src.shape[1] + 1, round(len(src) * (1.0 - outliers)))
    rng, best, least = np.random.default_rng(seed), None, np.inf
    for _ in range(60):
        kept = rng.choice(len(src), src.shape[1] + 1, replace=False)
        for _ in range(20):
            try:
                matrix = fit(src[kept], dst[kept], kind)
            except ValueError:
                break  # a sample in one place or line: the next one
            errors = ((apply(matrix, src) - dst) ** 2).sum(axis=1)
            previous, kept = kept, np.sort(np.argsort(errors, kind="stable")[:kept_count])
            if errors[kept].sum() < least:
                best, least = matrix, errors[kept].sum()
            if np.array_equal(previous, kept):
                break
    return fit(src, dst, kind) if best is None else best


def mean_shape(
    shapes: npt.NDArray[Any],
    *,
    by: slice | npt.NDArray[np.int64] = slice(None),
    settle: Callable[[Points], Points] | None = None,
    rounds: int = 100,
) -> Points:
    """(S, K, D) shapes with known partners -> (K, D), their mean after each was brought onto it (similarity).

    Generalised Procrustes analysis.

    Args:
        shapes: (S, K, D).
        by: the points that align; all are averaged.
        settle: puts the mean in its frame in each round, which it would drift out of; by default centred, with unit
            root mean square radius, turned like the first.
        rounds: at most so many.

    Raises:
        ValueError: other shapes, NaN, or none.
    """
    shapes = np.asarray(shapes, np.float64)
    if shapes.ndim != 3 or not len(shapes) or not np.isfinite(shapes).all():
        raise ValueError(f"shapes: expected finite (S, K, D), S ≥ 1, got {shapes.shape}")
    settle = settle or _unit_shape
    mean = settle(shapes[0])
    for _ in range(rounds):
        placed = [apply(fit(shape[by], mean[by]), shape) for shape in shapes]
        previous, mean = mean, settle(np.mean(placed, axis=0))
        if np.abs(mean - previous).max() < 1e-9:
            break
    return mean


def apply(matrix: Map, points: npt.NDArray[Any]) -> Points:
    """Takes (…, D) points of the source to where a map D×(D+1) puts them; the shape stays."""
    mapped: Points = np.asarray(points, np.float64) @ matrix[:, :-1].T + matrix[:, -1]
    return mapped


def _em(
    moving: Points, fixed: Points, matrix: Map, kind: Kind, outliers: float, max_rounds: int
) -> tuple[Map, float, int]:
    """Fig. 2 and 3 of the paper: map, variance and rounds from a start."""
    dimensions = moving.shape[1]
    floor = 1e-12 * float(fixed.var(axis=0).sum())
    squares = _squares(apply(matrix, moving), fixed)  # (M, N)
    variance = max(float(np.median(squares.min(axis=0))) * 4.0, 0.01 * float(fixed.var(axis=0).sum()))
    for done in range(1, max_rounds + 1):
        part = np.exp(-squares / (2.0 * variance))
        ratio = outliers / (1.0 - outliers) * len(moving) / len(fixed)
        uniform = (2.0 * np.pi * variance) ** (dimensions / 2) * ratio / _volume(fixed)
        part /= part.sum(axis=0) + uniform + np.finfo(float).tiny
        weights = part.sum(axis=1)
        if np.count_nonzero(weights > 1e-9) <= dimensions:
            return matrix, variance, done  # next to nothing left to hold on to
        targets = part @ fixed / np.maximum(weights, 1e-300)[:, None]
        try:
            matrix = fit(moving, targets, kind, weights)  # equals Eq. (7)–(11): soft partners are weighted ones
        except ValueError:
            return matrix, variance, done
        squares = _squares(apply(matrix, moving), fixed)
        before, variance = variance, max(float((part * squares).sum() / (weights.sum() * dimensions)), floor)
        if abs(before - variance) <= 1e-5 * before or variance <= floor:
            return matrix, variance, done
    return matrix, variance, max_rounds


def _volume(fixed: Points) -> float:
    """Of the box in which an outlier may lie (the paper scales the clouds so that it is about 1)."""
    return float(np.maximum(np.ptp(fixed, axis=0), 1e-6 * np.ptp(fixed)).prod())


def _start(turn: Points, moving: Points, fixed: Points, kind: Kind) -> Map:
    """That turn about the middle, with the middles and (unless rigid) the sizes made equal; medians bear outliers."""
    middle, target = np.median(moving, axis=0), np.median(fixed, axis=0)
    size, wanted = (
        float(np.median(np.linalg.norm(cloud - at, axis=1))) for cloud, at in ((moving, middle), (fixed, target))
    )
    linear = turn * (wanted / size if kind != "rigid" and size > 0 else 1.0)
    return np.hstack([linear, (target - linear @ middle)[:, None]])


def _turns(dimensions: int) -> Iterator[Points]:
    """12 turns of the plane, or the 24 of a cube."""
    if dimensions == 2:
        for angle in np.arange(12) * np.pi / 6:
            yield np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            turn = np.eye(3)[list(order)] * np.array(signs)[:, None]
            if np.linalg.det(turn) > 0:
                yield turn


def _tries(moving: Points, fixed: Points, start: Map, kind: Kind, outliers: float) -> Iterator[Map]:
    """Where EM leads from a start; for an affine also by way of a similarity, which clutter does not shear."""
    yield _em(moving, fixed, start, kind, outliers, 60)[0]
    if kind == "affine":
        upright = _em(moving, fixed, start, "similarity", outliers, 60)[0]
        yield _em(moving, fixed, upright, kind, outliers, 60)[0]


def _misfit(matrix: Map, moving: Points, fixed: Points, outliers: float) -> float:
    """Mean distance to the nearest point, both ways, without the worst share: a cloud shrunk to a point fits badly.

    A mirror image counts as no fit: a symmetric cloud, such as a face, lies on it as well as on itself.
    """
    if np.linalg.det(matrix[:, :-1]) <= 0:
        return np.inf
    squares = _squares(apply(matrix, moving), fixed)
    share = 1.0 - min(0.5, outliers)
    ways = (np.sort(np.sqrt(squares.min(axis=axis))) for axis in (0, 1))
    return float(sum(way[: max(1, int(len(way) * share))].mean() for way in ways))


def _result(moving: Points, fixed: Points, matrix: Map, variance: float, rounds: int, converged: bool) -> Registration:
    squares = _squares(apply(matrix, moving), fixed)
    nearest = squares.argmin(axis=1)
    distance = squares[np.arange(len(moving)), nearest]
    # 1e-6 of the cloud's size: exact clouds have no variance left
    near = distance <= max(9.0 * variance, 1e-12 * float(fixed.var(axis=0).sum()))
    residual = float(np.sqrt(distance[near].mean())) if near.any() else float("nan")
    return Registration(matrix, np.where(near, nearest, -1).astype(np.int64), residual, rounds, converged)


def _squares(moved: Points, fixed: Points) -> Points:
    """(M, N) squared distances."""
    summed: Points = np.zeros((len(moved), len(fixed)))
    for axis in range(moved.shape[1]):
        summed += (moved[:, axis, None] - fixed[None, :, axis]) ** 2
    return summed


def _thinned(points: Points, count: int = 200) -> Points:
    """At most `count` of the points, spread evenly over their order."""
    thinned: Points = points[np.unique(np.linspace(0, len(points) - 1, min(count, len(points))).astype(int))]
    return thinned


def _unit_shape(shape: Points) -> Points:
    centred = shape - shape.mean(axis=0)
    unit: Points = centred / np.sqrt((centred**2).sum(axis=1).mean())
    return unit


def _cloud(name: str, points: npt.NDArray[Any]) -> Points:
    cloud = np.asarray(points, np.float64)
    if cloud.ndim != 2 or cloud.shape[1] not in (2, 3) or len(cloud) <= cloud.shape[1]:
        raise ValueError(f"{name}: expected (K, 2) or (K, 3) points, more than dimensions, got {cloud.shape}")
    if not np.isfinite(cloud).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if not np.ptp(cloud, axis=0).any():
        raise ValueError(f"{name}: the points coincide, so they have no direction")
    return cloud
