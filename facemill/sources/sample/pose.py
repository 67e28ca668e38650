"""What one frame of a sample person shows, as numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pose:
    """What one frame shows. The defaults give the portrait as it is."""

    yaw_deg: float = 0.0
    """Head turned; positive brings the nose to the right of the picture. Natural up to 20."""
    pitch_deg: float = 0.0
    """Head nodding; positive looks down. Natural up to 12."""
    roll_deg: float = 0.0
    """The whole picture turned clockwise."""
    scale: float = 1.0
    """1 makes the landmarks' box FACE_PX/VIEW_PX of the picture's smaller side."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Right and down, as shares of the picture's smaller side."""
    mouth_open: float = 0.0
    """0…1; below 0 closes a smiling mouth."""
    smile: float = 0.0
    """-1…1: corners of the mouth."""
    blink: float = 0.0
    """0 open … 1 shut."""
    brows: float = 0.0
    """-1…1: lowered, raised."""
    light: float = 0.0
    """0…1: how much darker the side away from the light is."""
    light_from_deg: float = 0.0
    """Where the light comes from: 0 right, 90 below, 180 left, 270 above."""
    gamma: float = 1.0
    """Above 1 is darker."""
    warmth: float = 0.0
    """-1…1: blue to orange light."""
    background: int | None = None
    """Seed of another background; None keeps the portrait's own."""
    background_blur_px: float = 0.0
    """Gaussian blur of the background."""
    grain: float = 0.0
    """Standard deviation of the noise, in grey levels."""
    noise_seed: int = 0
