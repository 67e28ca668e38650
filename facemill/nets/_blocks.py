"""Layers that the adversarial nets are made of: whole-sample norm, self-attention, upscaling without checkerboards.

Each is written as its source draws it; tensors are N×C×H×W. `SampleNorm` is not `nn.InstanceNorm2d`: that one takes
mean and deviation of each channel, this one of all channels together, and keeps their differences, which are colour.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2
"""Of every LeakyReLU in faceswap-GAN v2.2."""

Upscale = Callable[[int, int], nn.Module]
"""(channels in, channels out) → a layer that doubles both sides."""


class SampleNorm(nn.Module):
    """(x − μ) / (σ + 1e-3) · γ + β with μ and σ over C, H, W of one sample, and one γ and one β for all channels.

    This is what v2.2 runs under the name of instance norm. A sample that is the same everywhere gives β, and its
    gradient is finite: σ has gradient 0 where it is 0.
    """

    EPSILON = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape N×…; the same shape and dtype. Moments are taken in float32."""
        return whole_sample_norm(x, self.weight, self.bias).to(x.dtype)


def whole_sample_norm(x: Tensor, weight: Tensor | float = 1.0, bias: Tensor | float = 0.0) -> Tensor:
    """(x − μ) / (σ + 1e-3) · weight + bias of each sample, float32."""
    x = x.float()
    deviation, mean = torch.std_mean(x, dim=tuple(range(1, x.dim())), keepdim=True, correction=0)
    scale = weight / (deviation + SampleNorm.EPSILON)
    return torch.addcmul(bias - mean * scale, x, scale)  # two numbers a sample: one pass over the pixels


class SelfAttention(nn.Module):
    """SAGAN's block (Zhang et al. 2019, Eq. 1-3): y = x + γ · softmax(f(x)ᵀ g(x)) h(x), γ = 0 at first.

    f and g have C/8 channels, h has C; there is no fourth 1×1 conv. Scores are not divided by √(C/8), as in the paper.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, channels // 8, 1)  # f
        self.query = nn.Conv2d(channels, channels // 8, 1)  # g
        self.value = nn.Conv2d(channels, channels, 1)  # h
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape; every place may look at every other."""
        query, key, value = (conv(x).flatten(2).mT.unsqueeze(1) for conv in (self.query, self.key, self.value))
        seen = functional.scaled_dot_product_attention(query, key, value, scale=1.0)  # (N, 1, H·W, C)
        return x + self.gamma.to(x.dtype) * seen.squeeze(1).mT.reshape(x.shape)


class ShuffleUpscale(nn.Sequential):
    """Conv 3×3 to 4c channels, LeakyReLU, norm, pixel shuffle: (C, H, W) → (c, 2H, 2W). ICNR initial weights."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)
        super().__init__(conv, nn.LeakyReLU(SLOPE), SampleNorm(), nn.PixelShuffle(2))
        icnr_(conv.weight)
        zero_bias(conv)


class NearestUpscale(nn.Sequential):
    """Nearest ×2, reflection padding, conv 3×3, norm: a quarter of the weights of `ShuffleUpscale`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="reflect")
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), conv, SampleNorm())
        nn.init.kaiming_normal_(conv.weight)
        zero_bias(conv)


class ResidualBlock(nn.Module):
    """LeakyReLU(x + conv(LeakyReLU(conv(x)))), 3×3 convs without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        for conv in (self.first, self.second):
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        inner = functional.leaky_relu(self.first(x), SLOPE)
        return functional.leaky_relu(self.second(inner) + x, SLOPE)


def conv_block(channels_in: int, channels_out: int, *, stride: int = 2, norm: bool = True) -> nn.Sequential:
    """Conv 3×3 without bias, ReLU, norm."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.ReLU(), *([SampleNorm()] if norm else []))


def critic_block(channels_in: int, channels_out: int, *, norm: bool = True) -> nn.Sequential:
    """Conv 4×4 with stride 2 and without bias, LeakyReLU, norm: halves both sides."""
    conv = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.LeakyReLU(SLOPE), *([SampleNorm()] if norm else []))


def zero_bias(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    """Sets a layer's bias to 0, if it has one."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def icnr_(weight: Tensor) -> Tensor:
    """He's weights, the same for the four channels that become the pixels of one cell (Aitken et al. 2017).

    A conv 3×3 before a pixel shuffle then starts as a nearest-neighbour upscale: no checkerboard to unlearn.
    """
    cells = torch.empty_like(weight[::4])
    nn.init.kaiming_normal_(cells)
    return weight.copy_(cells.repeat_interleave(4, dim=0))
