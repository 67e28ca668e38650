"""faceswap-GAN v2.2: shared encoder, one decoder for each identity, self-attention and a mask (S15-S17).

    face 3×64×64 in −1…1                              code 512×8×8
      │ conv 5×5                    64×64×64            │ upscale                 256×16×16
      │ conv 3×3 /2                128×32×32            │ upscale                 128×32×32
      │ conv 3×3 /2 + attention    256×16×16            │ attention
      │ conv 3×3 /2 + attention    512×8×8              │ upscale                  64×64×64
      │ conv 3×3 /2               1024×4×4              │ residual block, attention
      │ dense, dense              1024×4×4              ├ conv 5×5 + sigmoid   α    1×64×64
      │ upscale                    512×8×8              └ conv 5×5 + tanh      G    3×64×64
    code 512×8×8                                      face α·G + (1 − α)·input

At 128 and 256 px the encoder has one and two more /2 blocks of 1024, and the decoder, for each doubling, a side output
(conv 5×5 + tanh) at the lower scale, an upscale and a conv block of 64. Normalisation is over the whole sample,
upscaling is pixel shuffle with ICNR weights (`facemill.nets._blocks`). Parameters, with two identities:

    | preset      | encoder    | a decoder | both together | a discriminator |
    | standard64  | 59,130,506 | 6,300,924 |    71,732,354 |         747,845 |
    | standard128 | 68,567,692 | 6,490,305 |    81,548,302 |       1,878,664 |
    | standard256 | 78,004,878 | 6,679,686 |    91,364,250 |       3,009,483 |
    | lite64      | 10,065,994 |   415,460 |    10,896,914 | as standard64   |
    | lite128     | 19,045,452 |   436,329 |    19,918,110 | as standard128  |
    | lite256     | 19,635,278 |   457,198 |    20,549,674 | as standard256  |

The discriminator sees a picture beside the input that it was drawn from (6 channels) and answers with an 8×8 map.
What differs from the original program: RGB for BGR, N×C×H×W, stride-2 convs pad (1, 1) where TensorFlow's "same" pads
(0, 1), any number of identities from two, and names that say what they are. `small` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.nets import SwapModel, of_preset, register, state_key
from facemill.nets._blocks import (
    NearestUpscale,
    ResidualBlock,
    SelfAttention,
    ShuffleUpscale,
    Upscale,
    conv_block,
    critic_block,
    zero_bias,
)

SMALLEST_PX = 4  # side of the encoder's last map
CODE_PX = 8
CRITIC_PX = 8  # side of the discriminator's answer
FIRST_PX = 64  # side of the first picture that a decoder draws


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """Widths of the nets; the defaults are v2.2's "standard"."""

    input_px: int = 64  # 64 times a power of two
    encoder_channels: tuple[int, ...] = (64, 128, 256, 512, 1024)  # after the 5×5 conv and the first four /2 blocks
    latent: int = 1024  # first dense layer
    code_channels: int = 512
    decoder_channels: tuple[int, int, int] = (256, 128, 64)
    shuffle: bool = True  # pixel shuffle, else nearest neighbour
    attention_px: int = 64  # largest map of a decoder with attention: at 64 px, 4096 places look at 4096
    critic_channels: tuple[int, int, int] = (64, 128, 256)

    @property
    def doublings(self) -> int:
        """How often the 64 px picture is doubled; so many more blocks has the encoder, and side outputs the decoder."""
        return max(0, (self.input_px // FIRST_PX).bit_length() - 1)


_STANDARD = GanConfig()
_LITE = GanConfig(
    encoder_channels=(32, 64, 128, 256, 256), code_channels=256, decoder_channels=(128, 64, 32), shuffle=False
)

PRESETS = {
    "standard64": _STANDARD,
    "standard128": replace(_STANDARD, input_px=128),
    "standard256": replace(_STANDARD, input_px=256),
    "lite64": _LITE,
    "lite128": replace(_LITE, input_px=128, latent=2048),
    "lite256": replace(_LITE, input_px=256, latent=2048),
    # for CPUs: 4 % of the multiplications of standard64, half a second of one core for a step of 8 faces each
    "small": GanConfig(
        encoder_channels=(16, 32, 64, 128, 192),
        latent=64,  # with 256 it told a decoder whose face it was, and other people's came out torn
        code_channels=96,
        decoder_channels=(64, 32, 16),
        attention_px=16,  # a decoder has none: at 32 px it took nearly half of a step
        critic_channels=(16, 32, 64),
    ),
}


class Drawing(NamedTuple):
    """What a decoder gives; pictures in −1…1."""

    raw: Tensor  # (N, 3, P, P): G, the face before it is blended
    alpha: Tensor  # (N, 1, P, P) in 0…1: how much of it counts
    sides: tuple[Tensor, ...]  # (N, 3, p, p) for each lower scale p, 64 first


class Gan(SwapModel):
    """Encoder and decoders. Raises FacemillError for fewer than two distinct identities or an impossible size."""

    def __init__(self, identities: Sequence[str], config: GanConfig | None = None) -> None:
        super().__init__()
        config = config or GanConfig()
        _check(identities, config)
        self.identities, self.input_px, self.config = tuple(identities), config.input_px, config
        self.encoder = _encoder(config)
        self.decoders = nn.ModuleDict({state_key(identity): Decoder(config) for identity in identities})

    def forward(self, face: Tensor, identity: str) -> Tensor:
        """`face` (N, 3, P, P) RGB in 0…1 → the same pose and light as `identity`: α·G + (1 − α)·face, in 0…1."""
        raw, alpha = self.draw(face, identity)
        return torch.lerp(face.to(raw), raw, alpha)

    def draw(self, face: Tensor, identity: str) -> tuple[Tensor, Tensor]:
        """(N, 3, P, P) in 0…1 → G (N, 3, P, P) in 0…1, not yet blended, and α (N, 1, P, P)."""
        drawing = self.decode(self.encode(face * 2 - 1), identity)
        return (drawing.raw + 1) / 2, drawing.alpha

    def encode(self, face: Tensor) -> Tensor:
        """(N, 3, P, P) in −1…1 → code (N, code_channels, 8, 8); the same whoever is on the picture."""
        code: Tensor = self.encoder(face)
        return code

    def decode(self, code: Tensor, identity: str) -> Drawing:
        """Code → the face of `identity`. Raises FacemillError that names the known identities."""
        drawing: Drawing = self.decoder(identity)(code)
        return drawing

    def decoder(self, identity: str) -> Decoder:
        """The decoder of `identity`. Raises FacemillError that names the known identities."""
        self.require(identity)
        decoder = self.decoders[state_key(identity)]
        assert isinstance(decoder, Decoder)
        return decoder

    @torch.no_grad()
    def rotate_decoders(self) -> None:
        """Hands each decoder's weights to the next identity, the last one's to the first: with two, they swap.

        An optimizer's moments stay where they are, as they do in v2.2, which swaps the files of the weights.
        """
        decoders = [self.decoder(identity) for identity in self.identities]
        before = [{name: value.clone() for name, value in decoder.state_dict().items()} for decoder in decoders]
        for decoder, weights in zip(decoders, [before[-1], *before[:-1]], strict=True):
            for name, value in decoder.state_dict().items():
                value.copy_(weights[name])


class Decoder(nn.Module):
    """From the code to picture, mask and side outputs."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        upscale = _upscale(config)
        first, second, width = config.decoder_channels
        self.stem = nn.Sequential(
            upscale(config.code_channels, first),
            upscale(first, second),
            SelfAttention(second) if config.attention_px >= FIRST_PX // 2 else nn.Identity(),
            upscale(second, width),
            ResidualBlock(width),
            SelfAttention(width) if config.attention_px >= FIRST_PX else nn.Identity(),
        )
        self.sides = nn.ModuleList(nn.Conv2d(width, 3, 5, padding=2) for _ in range(config.doublings))
        self.doublings = nn.ModuleList(
            nn.Sequential(upscale(width, width), conv_block(width, width, stride=1, norm=False))
            for _ in range(config.doublings)
        )
        self.alpha = nn.Conv2d(width, 1, 5, padding=2)
        self.picture = nn.Conv2d(width, 3, 5, padding=2)
        for conv in (*self.sides, self.alpha, self.picture):
            _glorot(conv)
        _glorot_attention(self.stem)

    def forward(self, code: Tensor) -> Drawing:
        """(N, code_channels, 8, 8) → pictures in float32, whatever the precision of the convs."""
        x, sides = self.stem(code), []
        for side, double in zip(self.sides, self.doublings, strict=True):
            sides.append(torch.tanh(side(x).float()))
            x = double(x)
        return Drawing(torch.tanh(self.picture(x).float()), torch.sigmoid(self.alpha(x).float()), tuple(sides))


class Discriminator(nn.Sequential):
    """Is the first of two pictures real? (N, 6, P, P), picture and input side by side in −1…1 → (N, 1, 8, 8)."""

    def __init__(self, config: GanConfig) -> None:
        first, second, width = config.critic_channels
        layers: list[nn.Module] = [
            critic_block(6, first, norm=False),
            critic_block(first, second),
            critic_block(second, width),
            SelfAttention(width),
        ]
        for _ in range(config.doublings):
            layers += [critic_block(width, width), SelfAttention(width)]
        # 4×4 with "same" size: one row of zeros before, two behind
        super().__init__(*layers, nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(width, 1, 4, bias=False))
        _glorot(self[-1])
        _glorot_attention(self)


@register("gan")
def build(preset: str, identities: Sequence[str]) -> Gan:
    """The GAN of a preset. Raises FacemillError that names the presets for an unknown one."""
    return Gan(identities, of_preset("gan", PRESETS, preset))


def _encoder(config: GanConfig) -> nn.Sequential:
    """Attention stands behind the second and third halving; the dense pair forgets where the face stood."""
    widths = (*config.encoder_channels, *[config.encoder_channels[-1]] * config.doublings)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, padding=2, bias=False)]
    for at, (channels_in, channels_out) in enumerate(pairwise(widths), start=1):
        layers.append(conv_block(channels_in, channels_out, norm=at > 1))
        if at in (2, 3):
            layers.append(SelfAttention(channels_out))
    width = widths[-1]
    encoder = nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(width * SMALLEST_PX**2, config.latent),
        nn.Linear(config.latent, width * SMALLEST_PX**2),
        nn.Unflatten(1, (width, SMALLEST_PX, SMALLEST_PX)),
        _upscale(config)(width, config.code_channels),
    )
    for layer in encoder:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _glorot(layer)
    _glorot_attention(encoder)
    return encoder


def _upscale(config: GanConfig) -> Upscale:
    return ShuffleUpscale if config.shuffle else NearestUpscale


def _glorot(layer: nn.Module) -> None:
    """Glorot's uniform weights, zero biases: what layers without a ReLU behind them start from."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    nn.init.xavier_uniform_(layer.weight)
    zero_bias(layer)


def _glorot_attention(layers: nn.Sequential) -> None:
    for layer in layers:
        if isinstance(layer, SelfAttention):
            for conv in (layer.query, layer.key, layer.value):
                _glorot(conv)


def _check(identities: Sequence[str], config: GanConfig) -> None:
    """Refuse what would build a net that cannot run."""
    if len(identities) < 2 or len(set(identities)) != len(identities):
        raise FacemillError(f"a gan needs two or more distinct identities, got {list(identities)}")
    if config.input_px != FIRST_PX << config.doublings:
        raise FacemillError(f"input_px {config.input_px} of a gan must be {FIRST_PX} times a power of two")
    if len(config.encoder_channels) != 5:
        raise FacemillError(f"a gan's encoder has 5 widths, got {len(config.encoder_channels)} (encoder_channels)")
