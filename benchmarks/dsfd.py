"""DSFD: time of the net and of the whole detector, and the least that the machine's own rates allow.

    python benchmarks/dsfd.py [--side 640] [--batches 1 4] [--device cpu] [--precisions float32]

The second shot only, as in detection, with random weights, on which the time does not depend. A row is a precision and
a batch, its time the median of the repeats after one that does not count.

- FLOPs: counted by torch on one forward (a multiply-add is two). Rate: a large matrix product, timed here in the same
  precision. Bytes: every layer reads its input and weights and writes its output once. Bandwidth: a large copy. Both
  rates are the best of several tries, what the machine can do.
- floor = the larger of FLOPs / rate and bytes / bandwidth. Convolutions by Winograd's scheme need fewer
  multiplications than are counted, so that a layer can undercut it.
- after: decoding and suppression when 5,000 priors of each picture pass the threshold, the most there can be.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import machine
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from facemill.detect.dsfd import TOP_BOXES, candidates, suppressed
from facemill.device import DeviceSettings
from facemill.nets.dsfd import Dsfd, DsfdConfig, DsfdOutput, Shot

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Cost:
    """What one forward pass of a picture asks of the machine."""

    flops: float
    activation_values: float
    weights: float

    def floor_s(self, batch: int, dtype: torch.dtype, flops_per_s: float, bytes_per_s: float) -> float:
        moved = (self.activation_values * batch + self.weights) * dtype.itemsize
        return max(self.flops * batch / flops_per_s, moved / bytes_per_s)


def main() -> None:
    arguments = _arguments()
    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # the product as the convolutions
    cost = forward_cost(arguments.side, arguments.width)
    print(f"{machine.describe(device)}, {arguments.side} px, width {arguments.width:g}")
    values_m, weights_m = cost.activation_values / 1e6, cost.weights / 1e6
    print(
        f"a picture: {cost.flops / 1e9:.0f} GFLOP, {values_m:.0f} M values read and written; {weights_m:.1f} M weights"
    )
    print(
        f"{'precision':10}{'batch':>6}{'ms':>9}{'pictures/s':>12}{'floor ms':>10}{'of floor':>10}"
        f"{'GFLOP/s':>10}{'product':>10}{'GB/s':>7}"
    )
    for precision in arguments.precisions:
        _row_group(precision, arguments, device, cost)
    after_s = statistics.median(machine.seconds_of(_after(arguments.side), torch.device("cpu")))
    print(f"after the net, one picture, {TOP_BOXES} boxes of 5000: {1000 * after_s:.1f} ms on the CPU")


def forward_cost(side_px: int, width: float) -> Cost:
    """Counted on shapes alone, without computing."""
    with torch.device("meta"):
        model, picture = Dsfd(DsfdConfig(width=width)).eval(), torch.empty(1, 3, side_px, side_px)
    values = 0

    def count(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += sum(x.numel() for x in inputs) + output.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):  # ReLUs could be fused into them
            module.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(picture)
    return Cost(counter.get_total_flops(), values, sum(p.numel() for p in model.parameters()))


def _row_group(precision: str, arguments: argparse.Namespace, device: torch.device, cost: Cost) -> None:
    dtype = DTYPES[precision]
    flops_per_s, bytes_per_s = machine.matrix_product_rate(device, dtype), machine.copy_rate(device)
    layout = torch.channels_last  # as the detector: contiguous takes 1.2 to 2 times as long on a CPU
    model = Dsfd(DsfdConfig(width=arguments.width)).eval().to(dtype)
    DeviceSettings(device, None, layout).place(model)
    for batch in arguments.batches:
        pictures = torch.rand(batch, 3, arguments.side, arguments.side, device=device).to(memory_format=layout)
        forward_s = statistics.median(machine.seconds_of(partial(model, pictures), device, arguments.repeats))
        floor_s = cost.floor_s(batch, dtype, flops_per_s, bytes_per_s)
        print(
            f"{precision:10}{batch:6}{1000 * forward_s:9.1f}{batch / forward_s:12.2f}{1000 * floor_s:10.1f}"
            f"{forward_s / floor_s:9.2f}×{cost.flops * batch / forward_s / 1e9:10.0f}{flops_per_s / 1e9:10.0f}"
            f"{bytes_per_s / 1e9:7.0f}",
            flush=True,
        )


def _after(side_px: int) -> Callable[[], object]:
    """Decoding and suppression of a picture all of whose priors are over the threshold."""
    model = Dsfd(DsfdConfig(width=0.125))
    count = len(model.eval()(torch.zeros(1, 3, side_px, side_px)).second.logits[0])
    generator = torch.Generator().manual_seed(0)
    shot = Shot(torch.randn(1, count, 4, generator=generator), torch.randn(1, count, 2, generator=generator))

    def work() -> object:
        [boxes] = candidates(DsfdOutput(None, shot), (side_px, side_px), model, 0.01)
        return suppressed(boxes)

    return work


def _arguments() -> argparse.Namespace:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=640, help="height and width of a picture, px")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16] if cuda else [1, 4])
    parser.add_argument("--width", type=float, default=1.0, help="share of the channels")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if cuda else "cpu")
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES), default=list(DTYPES) if cuda else ["float32"])
    parser.add_argument("--repeats", type=int, default=20 if cuda else 2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
