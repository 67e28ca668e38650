"""The classic face-swap autoencoder: one encoder for everybody, one decoder for each identity (S13).

    face  3×64×64                                    code  512×8×8
      │ conv 5×5 /2 + LeakyReLU   128×32×32            │ upscale                256×16×16
      │ conv 5×5 /2 + LeakyReLU   256×16×16            │ upscale                128×32×32
      │ conv 5×5 /2 + LeakyReLU   512×8×8              │ upscale                 64×64×64
      │ conv 5×5 /2 + LeakyReLU  1024×4×4              │ conv 5×5 + sigmoid       3×64×64
      │ dense                    1024                face  3×64×64
      │ dense                    1024×4×4
      │ upscale                   512×8×8            upscale(c) = conv 3×3 to 4c channels, LeakyReLU, PixelShuffle(2)
    code  512×8×8                                    (encoder on the left, the decoder of one identity on the right)

The encoder sees everybody and therefore writes pose, expression and light in one language; a decoder knows one person
only. A swap is decoder_B(encoder(A)). Encoder 69,662,976 parameters, a decoder 6,199,747: 82,062,470 with two
identities, layer for layer those of the original program; 108,420,806 at 128 px, with one halving and one upscale
more. What differs: RGB for BGR, N×C×H×W for N×H×W×C, He's initial weights for Glorot's, and the stride-2 padding is
symmetric (2, 2) where TensorFlow's "same" pads (1, 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.nets import SwapModel, of_preset, register, state_key


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Widths of the net; the defaults are S13's. `input_px` = code grid × 2 ** len(decoder_channels)."""

    input_px: int = 64
    encoder_channels: tuple[int, ...] = (128, 256, 512, 1024)
    bottleneck: int = 1024  # first dense layer
    unfold_channels: int = 1024  # second dense layer, on the encoder's smallest grid
    code_channels: int = 512  # after the encoder's upscale
    decoder_channels: tuple[int, ...] = (256, 128, 64)
    kernel_px: int = 5  # of the strided convs and of the last one
    slope: float = 0.1  # LeakyReLU

    @property
    def grid_px(self) -> int:
        """Side of the map that the encoder's last convolution gives, in cells."""
        return self.input_px >> len(self.encoder_channels)


PRESETS = {
    "classic": AutoencoderConfig(),
    # the same column with one more halving and one more upscale, for pictures of twice the side
    "classic128": AutoencoderConfig(
        input_px=128, encoder_channels=(128, 256, 512, 1024, 1024), decoder_channels=(256, 128, 64, 32)
    ),
    # some 20 times fewer multiplications: what two CPU cores train to a believable swap in minutes
    "small": AutoencoderConfig(
        encoder_channels=(32, 64, 128, 192),
        bottleneck=256,
        unfold_channels=128,
        code_channels=96,
        decoder_channels=(64, 32, 16),
    ),
}


class Autoencoder(SwapModel):
    """Shared encoder, one decoder for each identity under its name.

    `identities` are distinct names; their order carries no meaning beyond the order of `.identities`.

    Raises:
        FacemillError: no identity, a repeated one, or sizes that do not meet.
    """

    def __init__(self, identities: Sequence[str], config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        config = config or AutoencoderConfig()
        _check_config(identities, config)
        self.identities = tuple(identities)
        self.input_px = config.input_px
        self.encoder = _encoder(config)
        self.decoders = nn.ModuleDict({state_key(identity): _decoder(config) for identity in identities})
        self.apply(partial(_initialise, slope=config.slope))

    def forward(self, face: Tensor, identity: str) -> Tensor:
        """`face` (N, 3, P, P) RGB in 0…1 → the same pose, expression and light as `identity`, same shape and range."""
        return self.decode(self.encoder(face), identity)

    def encode(self, face: Tensor) -> Tensor:
        """(N, 3, P, P) → code (N, code_channels, 2·grid, 2·grid); the same whoever is on the picture."""
        code: Tensor = self.encoder(face)
        return code

    def decode(self, code: Tensor, identity: str) -> Tensor:
        """Code → face of `identity` (N, 3, P, P) in 0…1. Raises FacemillError that names the known identities."""
        self.require(identity)
        drawn: Tensor = self.decoders[state_key(identity)](code)
        return torch.sigmoid(drawn.float())  # bf16 has but 256 steps below 1


@register("autoencoder")
def build(preset: str, identities: Sequence[str]) -> Autoencoder:
    """The autoencoder of a preset. Raises FacemillError that names the presets for an unknown one."""
    return Autoencoder(identities, of_preset("autoencoder", PRESETS, preset))


def _encoder(config: AutoencoderConfig) -> nn.Sequential:
    """Strided convs, two dense layers, one upscale. The dense pair forgets where the face stood and whose it was."""
    widths, grid = (3, *config.encoder_channels), config.grid_px
    return nn.Sequential(
        *(_downscale(a, b, config) for a, b in pairwise(widths)),
        nn.Flatten(),
        nn.Linear(widths[-1] * grid**2, config.bottleneck),
        nn.Linear(config.bottleneck, config.unfold_channels * grid**2),
        nn.Unflatten(1, (config.unfold_channels, grid, grid)),
        _upscale(config.unfold_channels, config.code_channels, config),
    )


def _decoder(config: AutoencoderConfig) -> nn.Sequential:
    """Upscales back to the picture; the last conv gives RGB before the sigmoid."""
    widths = (config.code_channels, *config.decoder_channels)
    return nn.Sequential(
        *(_upscale(a, b, config) for a, b in pairwise(widths)),
        nn.Conv2d(widths[-1], 3, config.kernel_px, padding=config.kernel_px // 2),
    )


def _downscale(channels_in: int, channels_out: int, config: AutoencoderConfig) -> nn.Sequential:
    """(C, H, W) → (channels_out, H/2, W/2)."""
    conv = nn.Conv2d(channels_in, channels_out, config.kernel_px, stride=2, padding=config.kernel_px // 2)
    return nn.Sequential(conv, nn.LeakyReLU(config.slope))


def _upscale(channels_in: int, channels_out: int, config: AutoencoderConfig) -> nn.Sequential:
    """(C, H, W) → (channels_out, 2H, 2W): four channels of one cell become its four pixels."""
    conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)
    return nn.Sequential(conv, nn.LeakyReLU(config.slope), nn.PixelShuffle(2))


def _initialise(module: nn.Module, slope: float) -> None:
    """He's normal weights for LeakyReLU, zero biases; Glorot's for the output, which has a sigmoid behind it.

    S13's framework gave Glorot's everywhere: with it the same loss takes half as many steps again.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        if module.weight.shape[0] == 3:
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.kaiming_normal_(module.weight, a=slope)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_config(identities: Sequence[str], config: AutoencoderConfig) -> None:
    """Refuse what would build a net that cannot run."""
    if not identities or len(set(identities)) != len(identities):
        raise FacemillError(f"an autoencoder needs distinct identities, got {list(identities)}")
    if config.grid_px * 2 ** len(config.encoder_channels) != config.input_px:
        raise FacemillError(
            f"input_px {config.input_px} cannot be halved {len(config.encoder_channels)} times (encoder_channels)"
        )
    if config.grid_px * 2 ** (len(config.decoder_channels) + 1) != config.input_px:
        raise FacemillError(
            f"{len(config.decoder_channels)} decoder upscales do not lead from {2 * config.grid_px} px "
            f"back to {config.input_px} px"
        )
