"""What a person may say of a conversion. Imports neither torch nor dlib: params.yaml is read without them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from facemill.device_choice import Device
from facemill.settings import Count, Limits, Name, Settings, Share
from facemill.video import EncoderSettings
from facemill.video.hdr import Hdr


@dataclass(frozen=True, kw_only=True)
class SwapSettings(Settings):
    """How a tracked video is converted. All but `device` and `verify` decides about the output's bytes."""

    identity_distance: Annotated[float, Limits(gt=0, le=2)] = 0.55
    """Largest distance of a track from the references of the identity that is replaced: the median over its embeddings
    (facemill/track/naming.py)."""
    colour: Name = "reinhard"
    """Name of the colour method (facemill/swap/colour.py)."""
    blend: Name = "feather"
    """Name of the blend method (facemill/swap/blend.py)."""
    feather: Annotated[float, Limits(ge=0, le=0.5)] = 0.1
    """Width of the soft edge over the height of the face."""
    detail: Name = "exemplars"
    """Name of the method that gives a face fine detail (facemill/swap/detail/methods.py): that of the new person's own
    pictures, which travel with the model; what was drawn, matched to the old face; or none."""
    occlusion: Name = "residual"
    """Name of the method that finds hands, microphones and strands of hair in front of a face, which stay there
    (facemill/swap/occlusion/methods.py): by what the net does not draw, by a net for segmentation from a file, or
    none."""
    occlusion_options: dict[str, Any] = field(default_factory=dict)
    """Of that method, see its builder; of segments `weights`, the ONNX file."""
    sharpen: Annotated[float, Limits(ge=0, le=3)] = 0.6
    """How much more fine detail than the net drew a face gets at most where detail is matched to the old one's; a face
    with more than that is softened (facemill/swap/detail/match.py). 0 leaves it as it was drawn."""
    batch: Count = 8
    """Frames that go through the net together."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """Which encoder writes the converted videos, at which quality and speed."""
    frame_failure_limit: Share = 0.1
    """The video fails when a face could not be replaced in a larger share of its frames."""
    accept_cut: bool = False
    """Convert what can be read of a video that is cut short, instead of failing it."""
    hdr: Hdr = "refuse"
    """What becomes of a video of high dynamic range (HDR10, HLG, Dolby Vision) in which somebody is replaced. refuse:
    it fails by name. tone_map: it becomes an ordinary one, BT.709 in 8 bits. keep: range, colours and tags stay, in 10
    bits where the encoder has them, and faces are drawn in values that no model was trained on."""
    verify: Literal["quick", "thorough"] = "quick"
    """How a written video is checked before it is published. quick: number and times of all frames by their packets,
    both ends and all joins decoded. thorough: every frame is decoded, the place of the sound is heard, and what an
    earlier run has read or written counts as the same only if all its bytes are, not by size and time."""
    device: Device = "auto"
    """Where the net runs; auto: on a GPU where there is one."""
