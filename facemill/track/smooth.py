"""Landmarks of one face over time without their trembling: smoothing that knows the future.

Local regression (Savitzky & Golay 1964; parabolas, with the frames' true times) over windows that lie symmetrically
around each frame, so that nothing lags. How wide a window may be is decided for each frame as Lepski (1991) has it:
windows grow as long as what they say agrees with what all narrower ones said, given how much the points tremble. A face
at rest is averaged over two thirds of a second, a blink or a syllable over a frame or two.

How much points tremble is measured on the face itself, by the third difference of its motion, which is all but blind to
what moves smoothly. A face moves as a whole and in its parts, and the parts need not wait for each other: the motion of
the whole (the mean of the points) and each part's own (cheeks, brows, nose, eyes, mouth) are smoothed apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.landmarks import BROWS, JAW, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE

Array = npt.NDArray[Any]

HALF_WIDTHS_S = (0.08, 0.12, 0.16, 0.24, 0.32)
"""Half of the windows, in seconds: at 25 frames a second 2 … 8 frames to each side."""
SURE_OF_MOVING, SURE_OF_STIFF, SURE_OF_WHOLE = 1.8, 6.0, 1.6
"""How far apart what two windows say may be, in standard deviations of trembling, before it counts as motion. Lips and
lids do move from one frame to the next; cheeks, nose and brows leap mostly because the predictor errs."""
_JAW = np.arange(68)[JAW]
_CHEEKS, _LOWER = np.concatenate([_JAW[:4], _JAW[13:]]), np.concatenate([_JAW[4:13], np.arange(68)[MOUTH]])
PARTS: tuple[tuple[Any, float], ...] = (
    (_CHEEKS, SURE_OF_STIFF),
    (BROWS, SURE_OF_STIFF),
    (NOSE, SURE_OF_STIFF),
    (LEFT_EYE, SURE_OF_MOVING),
    (RIGHT_EYE, SURE_OF_MOVING),
    (_LOWER, SURE_OF_MOVING),  # the chin moves with the mouth
)
STIFF, MOVING = (NOSE, BROWS), 1.5
"""No point trembles more than so many times as much as the median one of nose and brows: what exceeds that is speech,
which is faster than the third difference can tell from noise."""
CHUNK, MARGIN = 512, 128
"""Frames that are smoothed at a time, and how many are looked at before and after them: a film takes no more memory
than a clip."""
EASED = np.array([1, 2, 3, 2, 1]) / 9
"""Where a window goes from wide to narrow in one frame, that itself makes points leap: what neither lids nor lips are
(they are as fast as that) goes over in five frames."""
LEAST_FRAMES = 5  # fewer tell nothing of how they tremble


def smoothed(seconds: Array, points: Array, strength: float) -> npt.NDArray[np.float32]:
    """The points of one face along one scene.

    Args:
        seconds: (T,) times, rising; frames may be missing.
        points: (T, 68, 2) in pixels.
        strength: 0 leaves them as they are, 1 takes all of the trembling that can be told from motion.

    Returns:
        (T, 68, 2) float32.
    """
    given = np.asarray(points, np.float64)
    if strength <= 0 or len(given) < LEAST_FRAMES:
        return given.astype(np.float32)
    times = np.asarray(seconds, np.float64)
    even = np.empty_like(given)
    for start in range(0, len(given), CHUNK):
        first, last = max(0, start - MARGIN), min(len(given), start + CHUNK + MARGIN)
        own = _smoothed_chunk(times[first:last], given[first:last])
        even[start : start + CHUNK] = own[start - first :][:CHUNK]
    return (given + strength * (even - given)).astype(np.float32)


def _smoothed_chunk(seconds: Array, points: Array) -> Array:
    windows = _Windows.of(seconds)
    whole = points.mean(axis=1, keepdims=True)  # (T, 1, 2)
    own = points - whole
    noise = _trembling(own)
    calm = np.median(np.concatenate([noise[part] for part in STIFF], axis=0))
    even = windows.smoothed(whole, _trembling(whole), SURE_OF_WHOLE, eased=True) + np.zeros_like(points)
    for part, sure in PARTS:
        even[:, part] += windows.smoothed(
            own[:, part], np.minimum(noise[part], MOVING * calm), sure, eased=sure == SURE_OF_STIFF
        )
    return even


@dataclass(frozen=True)
class _Windows:
    """weights: (T, T) each, from narrow to wide, `_window_weights`; apart: (T,) for each pair of them, the standard
    deviation of the difference between what they say of values that tremble by 1."""

    weights: tuple[Array, ...]
    apart: dict[tuple[int, int], Array]

    @classmethod
    def of(cls, seconds: Array) -> _Windows:
        weights = (np.eye(len(seconds)), *(_window_weights(seconds, half) for half in HALF_WIDTHS_S))
        # Both are weighted sums of the same independent values
        apart = {
            (wide, narrow): np.sqrt(((weights[wide] - weights[narrow]) ** 2).sum(axis=1))
            for wide in range(len(weights))
            for narrow in range(wide)
        }
        return cls(weights, apart)

    def smoothed(self, values: Array, noise: Array, sure: float, *, eased: bool) -> Array:
        """(T, K, 2): K points, of which all take the same window in a frame; `noise`: (K, 2), how much they tremble."""
        flat, deviation = values.reshape(len(values), -1), noise.ravel()  # (T, K, 2) → (T, 2K)
        said = [window @ flat for window in self.weights]
        width = np.zeros(len(flat), int)  # of each frame's window: its place in `weights`
        going = np.ones(len(flat), bool)  # frames whose window may still grow
        for wide in range(1, len(said)):
            for narrow in range(wide):
                expected = np.maximum(self.apart[wide, narrow][:, None] * deviation, 1e-9)
                going &= np.mean(((said[wide] - said[narrow]) / expected) ** 2, axis=1) <= sure**2
            width[going] = wide
        shares = np.stack([width == wide for wide in range(len(said))]).astype(float)  # (W, T)
        if eased:
            padded = np.pad(shares, ((0, 0), (2, 2)), mode="edge")
            shares = np.stack([np.convolve(one, EASED, "valid") for one in padded])
        return np.asarray(np.einsum("wt,wtc->tc", shares, np.stack(said)).reshape(values.shape))


def _trembling(values: Array) -> Array:
    """(K, 2) of (T, K, 2): standard deviation of what is no motion; by the median, which motion hardly changes."""
    third = np.diff(values, n=3, axis=0)  # of white noise: √20 standard deviations
    deviation = 1.4826 * np.median(np.abs(third), axis=0) / np.sqrt(20.0)
    return np.asarray(np.maximum(deviation, 1e-6))


def _window_weights(seconds: Array, half_s: float) -> Array:
    """(T, T): row t has the weights by which a parabola through the frames around t gives its value there."""
    apart = seconds[None] - seconds[:, None]
    # As far to one side as to the other: at the ends of a scene windows shrink, and nothing is dragged along
    reach = np.minimum(half_s, np.minimum(seconds - seconds[0], seconds[-1] - seconds))[:, None] + 1e-6
    near = np.abs(apart) <= reach
    # Tapered, so that frames enter and leave a window without a jolt
    weights = np.where(near, 1 - (np.abs(apart) / (reach + 0.02)) ** 2, 0.0).clip(0)
    # The row of the least-squares projection that gives the parabola's value at its middle, for each frame
    powers = np.stack([np.ones_like(apart), apart / half_s, (apart / half_s) ** 2], axis=-1)  # (T, T, 3)
    moments = np.einsum("ts,tsi,tsj->tij", weights, powers, powers)
    enough = (near.sum(axis=1) > 3)[:, None]
    solved = np.linalg.pinv(moments, rcond=1e-9, hermitian=True)[:, 0]  # (T, 3)
    return np.where(enough, weights * np.einsum("ti,tsi->ts", solved, powers), np.eye(len(seconds)))
