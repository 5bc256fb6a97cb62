"""Times the op `conv3x3` against torch's convolutions, as they come and with weights that oneDNN packed."""

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

from .. import agreement, layers, results, shapes, timing
from ..providers import kernels

CPU = torch.device("cpu")
PART = 32  # output channels whose plain sums are the yardstick
GEOMETRY: tuple[Any, ...] = ((1, 1), (1, 1), (1, 1), 1)  # padding, stride, dilation, groups


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    """The op has no kernel for a GPU, where cuDNN is the library of choice, and no comparison there."""
    for workload, shape in shapes.convolutions() if kernels("conv3x3", device.type) else ():
        for layout in ("contiguous", "channels_last"):
            if shapes.wanted(only, workload, shape, layout, "float32"):
                yield partial(compare, workload, shape, layout, repeats)


def compare(workload: str, shape: tuple[int, ...], layout: str, repeats: int) -> list[results.Row]:
    """The rows of one shape (B, C, K, H, W); their rate is that of the direct algorithm's operations."""
    batch, channels, out_channels, height, width = shape
    x = torch.randn(batch, channels, height, width)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(out_channels, channels, 3, 3) / (9 * channels) ** 0.5
    bias = torch.randn(out_channels)
    everyone = contenders(x, weight, bias)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    part = plain.conv3x3(x[:1], weight[:PART], bias[:PART])
    bound = plain.allowed(part, exact[:1, :PART], x.dtype, float(exact.abs().max()))
    errors = agreement.errors("conv3x3", everyone, bound, exact)
    shared: results.Row = {
        "op": "conv3x3", "case": workload, "dtype": "float32", "shape": results.dims(shape),
        "layout": layout,
    }  # fmt: skip
    other = torch.zeros(2 * timing.cache_bytes(CPU) // 4)

    def evict() -> None:
        """Leaves x in the cache, as the layer before does, and the weights in memory, as a network does."""
        other.add_(1.0)
        x.sum()

    rows = layers.rows(CPU, repeats, everyone, errors, shared, before=evict)
    layers.rate(rows, 18 * batch * channels * out_channels * height * width, CPU, torch.float32)
    return rows


def contenders(x: Tensor, weight: Tensor, bias: Tensor) -> dict[str, layers.Contender]:
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *GEOMETRY, x.shape)
    found: dict[str, layers.Contender] = {
        "torch": partial(F.conv2d, x, weight, bias, padding=1),
        "torch:packed": partial(_packed, x, packed, bias),
    }
    for backend in kernels("conv3x3", "cpu"):
        for tile in tiles(weight.shape[1]):
            form = pack(weight, tile)
            found[f"ours:{backend}:{tile}x{tile}"] = partial(
                functional.conv3x3, x, weight, form, bias, backend=backend
            )
    return found


def _packed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *GEOMETRY, "none", [], "")


def errors(workload: str) -> Iterator[agreement.Sums]:
    for channels, out_channels, height, width in shapes.CONVOLUTIONS[workload]:
        for tile in tiles(channels):
            yield sums(channels, out_channels, height, width, tile)


def sums(channels: int, out_channels: int, height: int, width: int, tile: int) -> agreement.Sums:
    x, weight = torch.randn(1, channels, height, width), torch.randn(out_channels, channels, 3, 3)
    return agreement.Sums(
        f"conv3x3 {tile}x{tile}", (channels, out_channels, height, width),
        plain=plain.conv3x3(x, weight),
        torch=F.conv2d(x, weight, padding=1),
        engine=functional.conv3x3(x, weight, pack(weight, tile), backend="cpp"),
        exact=F.conv2d(x.double(), weight.double(), padding=1),
    )  # fmt: skip
