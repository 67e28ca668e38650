"""CycleGAN: two generators, each of which redraws a person as the other one (S15's baseline).

    face 3×P×P in −1…1, P = 128
      │ conv 7×7                   64×128×128
      │ conv 3×3 /2               128×64×64        residual block: conv 3×3, norm, ReLU, conv 3×3, norm, + input
      │ conv 3×3 /2               256×32×32
      │ 6 residual blocks         256×32×32        (9 from 256 px on)
      │ transposed conv 3×3 ×2    128×64×64
      │ transposed conv 3×3 ×2     64×128×128
      │ conv 7×7 + tanh             3×128×128
    face 3×P×P

Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", appendix 7.2:
c7s1-64, d128, d256, R256 × n, u128, u64, c7s1-3 with reflection padding; instance norm (here `nn.InstanceNorm2d`,
without learned factors) and ReLU behind every conv but the last. The discriminator judges patches of 70×70 px:
C64-C128-C256-C512 of 4×4 convs and LeakyReLU 0.2. Weights start from N(0, 0.02). A generator has 7,837,699 parameters
with 6 blocks and 11,378,179 with 9, a discriminator 2,764,737. Exactly two identities.

`small` is ours: it doubles by resize and conv, for transposed convs leave chequers that a short training keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.nets import SwapModel, of_preset, register, state_key
from facemill.nets._blocks import zero_bias

SLOPE = 0.2  # of the discriminator's LeakyReLU
START_DEVIATION = 0.02


@dataclass(frozen=True, kw_only=True)
class CycleGanConfig:
    """Sizes of the nets; the defaults are the paper's up to 128 px."""

    input_px: int = 128  # a multiple of 4, at least 32
    width: int = 64  # channels of the generator's first conv; doubled twice
    blocks: int = 6
    critic_width: int = 64  # channels of the discriminator's first conv; doubled three times
    transposed: bool = True  # transposed convs, else nearest neighbour and a conv: no chequers


PRESETS = {
    "paper64": CycleGanConfig(input_px=64),
    "paper128": CycleGanConfig(),
    "paper256": CycleGanConfig(input_px=256, blocks=9),
    # 4 % of the multiplications of paper64: for two CPU cores
    "small": CycleGanConfig(input_px=64, width=16, blocks=3, critic_width=16, transposed=False),
}


class CycleGan(SwapModel):
    """One generator for each identity, which redraws the other one. Raises FacemillError unless there are two."""

    def __init__(self, identities: Sequence[str], config: CycleGanConfig | None = None) -> None:
        super().__init__()
        config = config or CycleGanConfig()
        _check(identities, config)
        self.identities, self.input_px, self.config = tuple(identities), config.input_px, config
        self.generators = nn.ModuleDict({state_key(identity): _generator(config) for identity in identities})
        self.apply(start)

    def forward(self, face: Tensor, identity: str) -> Tensor:
        """`face` (N, 3, P, P) RGB in 0…1 → redrawn as `identity`, same shape and range."""
        return (self.redraw(face * 2 - 1, identity) + 1) / 2

    def redraw(self, face: Tensor, identity: str) -> Tensor:
        """(N, 3, P, P) in −1…1 → the same in float32, as `identity`. Raises FacemillError that names the known ones."""
        self.require(identity)
        drawn: Tensor = self.generators[state_key(identity)](face).float().tanh()
        return drawn


class ResidualBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x))))), reflection padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_conv(channels, channels, 3), *_conv(channels, channels, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape: the input plus what the two convolutions add to it."""
        changed: Tensor = self.layers(x)
        return x + changed


def patch_discriminator(config: CycleGanConfig) -> nn.Sequential:
    """(N, 3, P, P) in −1…1 → (N, 1, P/8 − 2, P/8 − 2): is the patch of 70×70 px around each place real?"""
    widths = [config.critic_width << doubling for doubling in range(4)]
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
    for channels_in, channels_out, stride in zip(widths, widths[1:], (2, 2, 1), strict=False):
        conv = nn.Conv2d(channels_in, channels_out, 4, stride=stride, padding=1)
        layers += [conv, nn.InstanceNorm2d(channels_out), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1)).apply(start)


def start(layer: nn.Module) -> None:
    """The paper's initial weights: N(0, 0.02), biases 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, std=START_DEVIATION)
        zero_bias(layer)


@register("cyclegan")
def build(preset: str, identities: Sequence[str]) -> CycleGan:
    """The CycleGAN of a preset. Raises FacemillError that names the presets for an unknown one."""
    return CycleGan(identities, of_preset("cyclegan", PRESETS, preset))


def _generator(config: CycleGanConfig) -> nn.Sequential:
    width = config.width
    return nn.Sequential(
        *_conv(3, width, 7),
        *_conv(width, 2 * width, 3, stride=2),
        *_conv(2 * width, 4 * width, 3, stride=2),
        *(ResidualBlock(4 * width) for _ in range(config.blocks)),
        *_up(4 * width, 2 * width, transposed=config.transposed),
        *_up(2 * width, width, transposed=config.transposed),
        nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect"),
    )


def _conv(channels_in: int, channels_out: int, kernel_px: int, *, stride: int = 1) -> list[nn.Module]:
    """Conv with reflection padding, norm, ReLU."""
    padding = kernel_px // 2
    conv = nn.Conv2d(channels_in, channels_out, kernel_px, stride=stride, padding=padding, padding_mode="reflect")
    return [conv, nn.InstanceNorm2d(channels_out), nn.ReLU()]


def _up(channels_in: int, channels_out: int, *, transposed: bool) -> list[nn.Module]:
    """Doubles both sides: the paper's "fractional-strided" conv, or resize and conv (Odena et al. 2016); norm, ReLU."""
    if not transposed:
        return [nn.Upsample(scale_factor=2), *_conv(channels_in, channels_out, 3)]
    conv = nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
    return [conv, nn.InstanceNorm2d(channels_out), nn.ReLU()]


def _check(identities: Sequence[str], config: CycleGanConfig) -> None:
    """Refuse what would build a net that cannot run."""
    if len(identities) != 2 or len(set(identities)) != 2:
        raise FacemillError(
            f"a cyclegan redraws two people as each other: it takes exactly two distinct identities, got "
            f"{list(identities)}; name two, or take the model 'gan' or 'autoencoder'"
        )
    if config.input_px % 4 or config.input_px < 32:
        raise FacemillError(f"input_px {config.input_px} of a cyclegan must be a multiple of 4, at least 32")
