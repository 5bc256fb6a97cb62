"""Times the op conv3x3 against torch's convolutions, as they come and with weights that oneDNN packed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_engine.ops import functional
from diffusion_engine.ops.conv3x3 import pack, tiles
from diffusion_engine.testing import plain

from . import layers, results, shapes, timing

PART = 32  # output channels whose plain sums are the yardstick
GEOMETRY: tuple[Any, ...] = ((1, 1), (1, 1), (1, 1), 1)  # padding, stride, dilation, groups


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    """Nothing on a GPU, where cuDNN is the library of choice."""
    for workload, shape in shapes.convolutions() if device.type == "cpu" else ():
        for layout in ("contiguous", "channels_last"):
            label = f"{workload} {'x'.join(map(str, shape))} {layout} float32"
            if all(word in label for word in only):
                yield partial(compare, workload, shape, layout, repeats)


def compare(workload: str, shape: tuple[int, ...], layout: str, repeats: int) -> list[results.Row]:
    """Shape (B, C, K, H, W). The rate is that of the direct algorithm's operations."""
    batch, channels, out_channels, height, width = shape
    x = torch.randn(batch, channels, height, width)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(out_channels, channels, 3, 3) / (9 * channels) ** 0.5
    bias = torch.randn(out_channels)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *GEOMETRY, x.shape)
    contenders: dict[str, layers.Contender] = {
        "torch": partial(F.conv2d, x, weight, bias, padding=1),
        "torch:packed": partial(_packed, x, packed, bias),
    }
    for tile in tiles(channels):
        form = pack(weight, tile)
        contenders[f"ours:cpp:{tile}x{tile}"] = partial(
            functional.conv3x3, x, weight, form, bias, backend="cpp"
        )
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    part = plain.conv3x3(x[:1], weight[:PART], bias[:PART])
    bound = plain.allowed(part, exact[:1, :PART], x.dtype, float(exact.abs().max()))
    errors = layers.check("conv3x3", contenders, bound, exact)
    shared = {
        "op": "conv3x3", "case": workload, "dtype": "float32", "shape": "x".join(map(str, shape)),
        "layout": layout,
    }  # fmt: skip
    device = torch.device("cpu")
    other = torch.zeros(2 * timing.cache_bytes(device) // 4)

    def evict() -> None:
        """Weights come from memory, as in a call of a whole network; x from the layer before."""
        other.add_(1.0)
        x.sum()

    rows = layers.times_of(device, repeats, contenders, errors, shared, before=evict)
    flops = 18 * batch * channels * out_channels * height * width
    for row in rows:
        row["gflop_s"] = flops / row["median_us"] * 1e-3  # type: ignore[operator]
        row["ceiling_share"] = row["gflop_s"] / layers.ceiling(device, torch.float32)
    return rows


def _packed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *GEOMETRY, "none", [], "")
