"""The errors of the ops of networks beside those of the plain float32 sum and of torch, over the layers of
W1: python -m benchmarks.errors. Nothing is timed."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_engine.ops import functional
from diffusion_engine.ops.conv3x3 import pack, tiles
from diffusion_engine.testing import plain

from . import layers, results, shapes, timing

END = "-errors.csv"
KEYS = ("op", "shape", "plain", "torch", "ours", "of_bound", "device", "version", "commit", "date")
WORKLOAD = "W1"


def main() -> None:
    torch.manual_seed(0)
    device = timing.device_name(torch.device("cpu"))
    about = {
        "device": device,
        "version": torch.__version__,
        "commit": results.commit(),
        "date": results.now(),
    }
    path = results.device_file(device, END)
    with path.open("w", newline="") as file, torch.no_grad():
        writer = csv.DictWriter(file, KEYS, lineterminator="\n")
        writer.writeheader()
        for row in rows():
            print(row, flush=True)
            writer.writerow(row | about)
    print(f"wrote {path}")


def rows() -> Iterator[dict[str, str]]:
    for shape, silu in shapes.NORMS[WORKLOAD]:
        yield norm(shape, silu)
    for heads, queries, keys, dim in shapes.ATTENTIONS[WORKLOAD]:
        yield attention(heads, queries, keys, dim)
    for channels, out_channels, height, width in shapes.CONVOLUTIONS[WORKLOAD]:
        for tile in tiles(channels):
            yield convolution(channels, out_channels, height, width, tile)


def norm(shape: tuple[int, ...], silu: bool) -> dict[str, str]:
    x, (w, b) = torch.randn(1, *shape), torch.randn(2, shape[0])
    groups = min(layers.GROUPS, shape[0])
    exact = layers._norm(x.double(), w.double(), b.double(), groups, silu)
    own = layers._norm(x, w, b, groups, silu)
    got = functional.group_norm(x, groups, w, b, silu=silu, backend="cpp")
    return row("group_norm", shape, plain.group_norm(x, groups, w, b, silu=silu), own, got, exact)


def attention(heads: int, queries: int, keys: int, dim: int) -> dict[str, str]:
    q, k, v = (torch.randn(1, heads, n, dim) for n in (queries, keys, keys))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    own = F.scaled_dot_product_attention(q, k, v)
    got = functional.attention(q, k, v, backend="cpp")
    return row("attention", (heads, queries, keys, dim), plain.attention(q, k, v), own, got, exact)


def convolution(
    channels: int, out_channels: int, height: int, width: int, tile: int
) -> dict[str, str]:
    x, weight = torch.randn(1, channels, height, width), torch.randn(out_channels, channels, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    own = F.conv2d(x, weight, padding=1)
    got = functional.conv3x3(x, weight, pack(weight, tile), backend="cpp")
    shape = channels, out_channels, height, width
    return row(f"conv3x3 {tile}x{tile}", shape, plain.conv3x3(x, weight), own, got, exact)


def row(
    op: str, shape: tuple[int, ...], sums: Tensor, own: Tensor, got: Tensor, exact: Tensor
) -> dict[str, str]:
    """Errors of the largest value, and ours of what is allowed."""
    size = float(exact.abs().max())
    plain_s, torch_s, ours = (float((t - exact).abs().max()) for t in (sums, own, got))
    share = ours / plain.allowed(sums, exact, got.dtype)
    found = {
        "plain": plain_s / size,
        "torch": torch_s / size,
        "ours": ours / size,
        "of_bound": share,
    }
    known = {"op": op, "shape": "x".join(map(str, shape))}
    return known | {name: f"{value:.2g}" for name, value in found.items()}


if __name__ == "__main__":
    main()
