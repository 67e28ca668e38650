"""Background, light, tone and grain of a frame."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.pictures import RGB
from facemill.sources.sample.portraits import Points
from facemill.sources.sample.pose import Pose


def finish(rgba: npt.NDArray[np.uint8], pose: Pose, landmarks: Points) -> RGB:
    """An RGBA frame, uint8 H×W×4 with the person's alpha, to the RGB picture that the pose describes."""
    rgb = _tone(_before_background(rgba, pose), pose)
    if pose.light > 0:
        height, width = rgb.shape[:2]
        rgb = _pixels(cv2.multiply(rgb, _shade(pose, landmarks, width, height), dtype=cv2.CV_8U))
    return _with_grain(rgb, pose) if pose.grain > 0 else rgb


def _before_background(rgba: npt.NDArray[np.uint8], pose: Pose) -> RGB:
    rgb = _pixels(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB))
    if pose.background is None and pose.background_blur_px == 0:
        return rgb
    behind = rgb if pose.background is None else backdrop(pose.background, rgb.shape[1], rgb.shape[0])
    if pose.background_blur_px > 0:
        side = int(pose.background_blur_px * 1.7) * 2 + 1  # two boxes of this width are close to the Gaussian
        behind = _pixels(cv2.blur(cv2.blur(behind, (side, side)), (side, side)))
    weight = _pixels(cv2.cvtColor(cv2.extractChannel(rgba, 3), cv2.COLOR_GRAY2RGB))
    front = cv2.multiply(rgb, weight, scale=1 / 255)
    return _pixels(cv2.add(front, cv2.multiply(behind, 255 - weight, scale=1 / 255)))


def _with_grain(rgb: RGB, pose: Pose) -> RGB:
    height, width = rgb.shape[:2]
    x, y = np.random.default_rng(pose.noise_seed).integers(0, _GRAIN_PX, 2)
    left, top = -int(x) % _GRAIN_PX, -int(y) % _GRAIN_PX
    noise = _grain(-(-height // _GRAIN_PX) + 1, -(-width // _GRAIN_PX) + 1)[top : top + height, left : left + width]
    return _pixels(cv2.addWeighted(rgb, 1, noise, pose.grain / _GRAIN_LEVELS, 0, dtype=cv2.CV_8U))


def _pixels(array: Any) -> RGB:
    """What OpenCV calls an array of any kind, as the bytes that it is here."""
    return np.ascontiguousarray(array, np.uint8)


def _tone(rgb: RGB, pose: Pose) -> RGB:
    """Gamma and colour temperature as one look-up table."""
    if pose.gamma == 1 and pose.warmth == 0:
        return rgb
    curve = (np.arange(256) / 255) ** pose.gamma
    gains = np.array([1 + 0.14 * pose.warmth, 1 + 0.02 * pose.warmth, 1 - 0.16 * pose.warmth])
    table = np.clip(curve[:, None] * gains * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(rgb, table[None]), np.uint8)


def _shade(pose: Pose, landmarks: Points, width: int, height: int) -> Any:
    """Gain for each pixel, float32 H×W×3: brighter towards the light, over the size of the face."""
    angle = np.deg2rad(pose.light_from_deg)
    centre, reach = landmarks.mean(0), float(np.ptp(landmarks[:, 1]))
    x = (np.arange(width) - centre[0])[None] * np.cos(angle)
    y = (np.arange(height) - centre[1])[:, None] * np.sin(angle)
    # 1 + light * (0.65 * tanh(1.4 * (x + y) / reach) - 0.25), without an array for each step
    gain = x + y
    gain *= 1.4
    gain /= reach
    np.tanh(gain, out=gain)
    gain *= 0.65
    gain -= 0.25
    gain *= pose.light
    gain += 1
    return cv2.cvtColor(np.maximum(gain, 0.12, out=gain).astype(np.float32), cv2.COLOR_GRAY2RGB)


_GRAIN_PX = 256
_GRAIN_LEVELS = 24.0


@lru_cache(maxsize=4)
def _grain(down: int, across: int) -> npt.NDArray[np.float32]:
    """Noise of standard deviation _GRAIN_LEVELS, a square of it so often below and beside itself; drawing it anew would
    cost more than the warp. Cached, do not write into it."""
    rng = np.random.default_rng(7)
    fine = rng.standard_normal((_GRAIN_PX, _GRAIN_PX, 3), dtype=np.float32)
    return np.tile(fine * _GRAIN_LEVELS, (down, across, 1))


@lru_cache(maxsize=64)
def backdrop(seed: int, width: int, height: int) -> RGB:
    """An out-of-focus room: a gradient and a few blurred shapes. RGB uint8, cached, do not write into it."""
    rng = np.random.default_rng([seed, 11])
    ends = np.array([_muted(rng) for _ in range(2)], np.float32)
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[:, None, None]
    small = np.ascontiguousarray(np.broadcast_to(ends[0] * (1 - ramp) + ends[1] * ramp, (64, 64, 3)))
    for _ in range(int(rng.integers(3, 9))):
        x, y, w, h = (int(value) for value in rng.integers((-8, -8, 4, 4), (64, 64, 28, 40)))
        colour = _muted(rng)
        if rng.random() < 0.5:
            cv2.rectangle(small, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(small, (x, y), w // 2 + 2, colour, -1)
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.8, 3.0)))
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 255).astype(np.uint8)


def _muted(rng: np.random.Generator) -> list[float]:
    """A colour as walls and furniture have it, not as paint boxes do."""
    colour = rng.uniform(15, 240, 3)
    return [float(value) for value in colour.mean() + 0.5 * (colour - colour.mean())]
