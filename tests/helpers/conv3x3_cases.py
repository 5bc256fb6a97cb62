"""Random calls of conv3x3: seed -> Conv3x3Args whose images lie in NaN-filled memory."""

import random
from dataclasses import replace
from functools import lru_cache

import torch
from group_norm_cases import base_of, fresh, image
from torch.nn import functional as F

from diffusion_engine.ops.conv3x3 import Conv3x3Args, pack, tiles
from diffusion_engine.ops.registry import resolve
from diffusion_engine.testing import plain

# Around the vectors and panels of the kernels, primes, one.
CHANNELS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 64, 67]
MANY = [64, 65, 80, 96, 97, 100, 127, 128, 131, 160, 200, 256, 259]  # enough for tiles of 4 x 4
SIDES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17]
RESULTS = 200  # at least: of a few, the largest error of the plain sum is a matter of luck
LARGE = [10, 12, 13, 15, 16, 17, 18, 20, 23, 33]


def make(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    many = rng.random() < 0.5
    sides = SIDES + LARGE if many else SIDES
    channels, batch = rng.choice(MANY if many else CHANNELS), rng.choice([1, 1, 2, 3])
    while True:
        out_channels, height, width = rng.choice(CHANNELS), rng.choice(sides), rng.choice(sides)
        if not many and rng.random() < 0.1:
            out_channels, height, width = 4 * rng.choice(CHANNELS), 1, 1
        if batch * out_channels * height * width >= RESULTS:
            break
    x_last, out_last = rng.random() < 0.5, rng.random() < 0.5
    x = torch.randn(batch, channels, height, width) * 10.0 ** rng.uniform(-2, 2)
    x = rng.choice([x, F.silu(x), x + 3.0])
    weight = torch.randn(out_channels, channels, 3, 3) * 10.0 ** rng.uniform(-2, 1)
    size = float(x.std() * weight.std()) * 3 * channels**0.5
    shape = (batch, out_channels, height, width)
    given = rng.random() < 0.4
    x = image(rng, x.shape, torch.float32, x_last, x)
    if rng.random() < 0.15:  # one sample, or one channel, for all
        x = x[:1].expand(x.shape) if x_last or rng.random() < 0.5 else x[:, :1].expand(x.shape)
    return Conv3x3Args(
        x=x,
        weight=weight,
        packed=pack(weight, rng.choice(tiles(channels))),
        bias=torch.randn(out_channels) * size if rng.random() < 0.6 else None,
        residual=image(rng, shape, torch.float32, out_last, torch.randn(shape) * size) if given else None,
        out=image(rng, shape, torch.float32, out_last),
    )  # fmt: skip


def run(backend, args):
    """The call on memory of its own."""
    args = fresh(args)
    resolve("conv3x3", backend, args)(args.tensors())
    return args


def sample(args, b):
    """The same call for one sample, at its place in memory."""
    images = {
        name: getattr(args, name)[b : b + 1]
        for name in ("x", "residual", "out")
        if getattr(args, name) is not None
    }
    return replace(args, **images)


def expected(args):
    """(the plain float32 sum, the exact result)"""
    given = args.x, args.weight, args.bias, args.residual
    x, weight, bias, residual = (None if t is None else t.double() for t in given)
    y = F.conv2d(x.contiguous(), weight, bias, padding=1)
    return plain.conv3x3(*given), y if residual is None else y + residual


@lru_cache(maxsize=200)
def case(seed):
    """(args, *expected(args)), kept for the next instruction set."""
    return (args := make(seed)), *expected(args)


def around(args):
    """The memory that out lies in, without out itself."""
    memory = base_of(args.out).clone()
    out = args.out
    torch.as_strided(memory, out.shape, out.stride(), out.storage_offset()).zero_()
    return memory


def describe(args):
    shapes = {
        name: (tuple(t.shape), t.stride())
        for name, t in vars(args).items()
        if isinstance(t, torch.Tensor)
    }
    return f"tile {args.tile}, {shapes}"
