"""A film's grain on the new face: without it a clean face lies in a noisy picture, as if it were pasted.

    flattest squares in and around the face ──► how strong their noise is, and of which spectrum
    noise of that strength and spectrum, from a generator seeded with these very pixels ──► added to the brightness

How noisy a film is shows where nothing else is to be seen; a wrinkled cheek would pass for noise. Film has its grain
all over, so the flattest squares of the rectangle around the face tell it, and those that hardly differ from them; a
picture without grain has squares that are flat. It is drawn anew for each frame, as the film's own is, but from the
frame's pixels: the same frame gets the same grain whatever the segments or workers, and one that stands still keeps it.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]

LEAST, WHOLE = 2.0, 3.5
"""Standard deviations of brightness, of 255: up to the first it is none (a clean portrait's skin has 1.9), from the
second on a film's grain, and gradually more in between."""
SQUARE_PX = 16
"""Side of the squares that are looked at: grain is finer."""
FLATTEST = 0.05
"""Share of the squares that are taken to show nothing but the film; more of them would show wrinkles."""
MOST_SQUARES = 96
"""At most so many squares are looked at: as many tell a spectrum, and more cost time."""
REACH_PX = 4
"""How far grains reach: of the kernel that makes them the middle is taken, which costs a fifth of the whole."""
AROUND = 0.25
"""How much of the rectangle's side is looked at beyond each of its edges, where there is more than a face."""
ALIKE = 2.0
"""How many times their variance a square may have and count among them: by chance alone, the flattest are too flat."""
LEAST_SQUARES = 40
"""Fewer of them, around a face of some 80 px, may all show features: such a face gets no grain."""
SLOW_PX = 3.0
"""Standard deviation of the blur that is taken off before: shades and soft edges are no noise."""
CLIPPED = 8
"""Brightness nearer than this to black or white hides noise: such squares are not looked at."""


def grained(new: Picture, ground: npt.NDArray[np.uint8], weight: Picture, around: npt.NDArray[np.uint8]) -> Picture:
    """The new face with the frame's grain.

    Args:
        new: (h, w, 3) RGB in 0…1, the new face in a rectangle of the frame.
        ground: (h, w, 3) RGB uint8, what the frame shows there.
        weight: (h, w) in 0…1, where the new face will be seen. At its edge, where two independent grains are mixed,
            that of the new face is made stronger, so that the sum is neither weaker nor stronger than the film's.
        around: (H, W, 3) RGB uint8, the rectangle and as much of the frame around it as tells its grain, see `wider`.

    Returns:
        (h, w, 3) in 0…1, a new array, or `new` where the frame has no grain.
    """
    kernel = grain_of(around)
    if kernel is None:
        return new
    random = np.random.default_rng(zlib.crc32(np.ascontiguousarray(ground).tobytes()))
    white = random.standard_normal(weight.shape, np.float32)
    grain = cv2.filter2D(white, -1, kernel, borderType=cv2.BORDER_REFLECT)
    seen = np.maximum(weight, np.float32(1e-3))
    stronger = np.where(weight > 0, np.sqrt((2 - seen) / seen), 0) / 255
    return np.asarray(np.clip(new + (grain * stronger)[..., None], 0.0, 1.0), np.float32)


def wider(x: int, y: int, width: int, height: int) -> tuple[float, float, float, float]:
    """The rectangle that tells the grain of a face's rectangle, x0, y0, x1, y1; it may reach beyond the frame."""
    by_x, by_y = AROUND * width, AROUND * height
    return x - by_x, y - by_y, x + width + by_x, y + height + by_y


def grain_of(picture: npt.NDArray[np.uint8]) -> Picture | None:
    """What makes a picture's grain of white noise: a kernel, (N, N), in brightness of 255.

    Args:
        picture: RGB uint8 (h, w, 3).

    Returns:
        The middle, N = 2 × `REACH_PX` + 1, of the kernel whose spectrum is that of the flat squares; None where there
        is no grain.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    squares, light = (_squares(one) for one in (grey - cv2.GaussianBlur(grey, (0, 0), SLOW_PX), grey))
    means = light.mean(axis=(1, 2))
    squares = squares[(means > CLIPPED) & (means < 255 - CLIPPED)]
    if len(squares) < LEAST_SQUARES:
        return None
    power = squares.var(axis=(1, 2))
    flattest = float(np.sort(power)[: round(FLATTEST * len(squares))].mean())
    strength = flattest**0.5
    if strength <= LEAST:
        return None
    alike = squares[power <= ALIKE * flattest]
    some = alike[:: -(-len(alike) // MOST_SQUARES)]
    spectrum = np.sqrt((np.abs(np.fft.rfft2(some)) ** 2).mean(axis=0))
    kernel = np.fft.fftshift(np.fft.irfft2(spectrum, s=(SQUARE_PX, SQUARE_PX))) / SQUARE_PX
    middle = slice(SQUARE_PX // 2 - REACH_PX, SQUARE_PX // 2 + REACH_PX + 1)
    kernel = kernel[middle, middle] * np.sqrt((kernel**2).sum() / (kernel[middle, middle] ** 2).sum())
    return np.asarray(min(1.0, (strength - LEAST) / (WHOLE - LEAST)) * kernel, np.float32)


def _squares(picture: Picture) -> Picture:
    """(N, SQUARE_PX, SQUARE_PX) of (h, w), without what is left over at its end."""
    down, across = (side // SQUARE_PX for side in picture.shape)
    whole = picture[: down * SQUARE_PX, : across * SQUARE_PX]
    parts = whole.reshape(down, SQUARE_PX, across, SQUARE_PX).swapaxes(1, 2)
    return parts.reshape(-1, SQUARE_PX, SQUARE_PX)
