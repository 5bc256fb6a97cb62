"""Random calls of group_norm: seed -> GroupNormArgs whose outputs lie in NaN-filled memory."""

import math
import random
from dataclasses import replace

import torch
from torch.nn import functional as F

from diffusion_engine.ops.group_norm import GroupNormArgs
from diffusion_engine.ops.registry import resolve
from diffusion_engine.testing import plain

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
PIXELS = [
    (),
    (1,),
    (5,),
    (64,),
    (1, 1),
    (1, 1),
    (3, 5),
    (8, 8),
    (7, 11),
    (16, 16),
    (2, 3, 4),
    (1, 33),
    (31, 31),
]
CHANNELS = [1, 2, 3, 5, 8, 10, 12, 16, 24, 32]


def image(rng, shape, dtype, last, fill=None):
    """A tensor [B, C, *pixel] inside NaN-filled memory: in either layout, at times with a batch stride,
    or with every second channel."""
    batch, channels, *pixel = shape
    room = rng.choice([0, 0, 3])  # channels that lie between two samples, or between two pixels
    step = rng.choice([1, 1, 2]) if not last or math.prod(pixel) == 1 else 1
    if last and pixel:
        base = torch.empty((batch, *pixel, step * channels + room), dtype=dtype)
        made = base.movedim(-1, 1)[:, : step * channels : step]
    else:
        base = torch.empty((batch, step * channels + room, *pixel), dtype=dtype)
        made = base[:, : step * channels : step]
    if fill is not None:
        made.copy_(fill)
    return made


def strided(rng, values):
    """Values of [C] or [B, C], at times every second element of NaN-filled memory, or of an axis the first
    one for all."""
    kind, axis = rng.choice(["dense", "apart", "expanded"]), rng.randrange(values.ndim)
    if kind == "apart":
        memory = torch.empty((*values.shape, 2), dtype=values.dtype)
        return memory[..., 0].copy_(values)
    return values.narrow(axis, 0, 1).expand(values.shape) if kind == "expanded" else values


def make(seed, pixels=PIXELS, batches=(1, 2, 3)):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    groups = rng.choice([1, 2, 3, 4, 7])
    shape = (rng.choice(batches), groups * rng.choice(CHANNELS), *rng.choice(pixels))
    last, kind = rng.random() < 0.5, rng.choice(FLOATS)
    spread, mean = 10.0 ** rng.uniform(-2, 2), rng.choice([0.0, 0.0, 1.0, 30.0])

    def dtype():
        return rng.choice((kind, kind, torch.float32))

    def given(chance, *size, image_like=False, scale=1.0):
        if rng.random() > chance:
            return None
        values = torch.randn(size) * scale
        if image_like:
            return image(rng, size, dtype(), last, values)
        return strided(rng, values.to(dtype()))

    x = image(rng, shape, kind, last, (torch.randn(shape) + mean) * spread)
    x = x[:1].expand(shape) if rng.random() < 0.1 else x
    residual = given(0.25, *shape, image_like=True, scale=spread)
    if residual is None:
        residual = given(0.33, *shape[:2], scale=spread)
    if residual is not None and residual.ndim == 2 and rng.random() < 0.3:  # in the shape of x
        residual = residual.view(*residual.shape, *[1] * (len(shape) - 2)).expand(shape)
    adaptive = rng.random() < 0.3
    return GroupNormArgs(
        x=x,
        out=image(rng, shape, dtype(), last),
        weight=given(0.7, shape[1]),
        bias=given(0.7, shape[1]),
        scale=given(1.0, *shape[:2]) if adaptive else None,
        shift=given(1.0, *shape[:2]) if adaptive else None,
        residual=residual,
        summed=image(rng, shape, dtype(), last) if residual is not None and rng.random() < 0.6 else None,
        groups=groups,
        eps=rng.choice([1e-5, 1e-6, 1e-3]) * spread**2,
        silu=rng.random() < 0.6,
    )  # fmt: skip


def base_of(view):
    """The whole memory of a view, as it lies."""
    return torch.as_strided(view, (view.untyped_storage().size() // view.itemsize,), (1,), 0)


def fresh(args):
    """The same call on memory of its own."""

    def own(view):
        if view is None:
            return None
        memory = base_of(view).clone()
        return torch.as_strided(memory, view.shape, view.stride(), view.storage_offset())

    tensors = {name: own(t) for name, t in vars(args).items() if isinstance(t, torch.Tensor)}
    return replace(args, **tensors)


def run(backend, args, device="cpu"):
    """(out, summed) of a call on memory of its own, and that memory."""
    args = fresh(args)
    moved = {n: _to(t, device) for n, t in vars(args).items() if isinstance(t, torch.Tensor)}
    args = replace(args, **moved)
    resolve("group_norm", backend, args)(args.tensors())
    return args


def _to(view, device):
    if device == "cpu":
        return view
    memory = base_of(view).to(device)
    return torch.as_strided(memory, view.shape, view.stride(), view.storage_offset())


def per_channel(tensor, x):
    return tensor.view(*tensor.shape, *[1] * (x.ndim - tensor.ndim))


def expected(args):
    """((out, summed) as plain float32 sums, the same exactly)"""
    residual = None if args.residual is None else per_channel(args.residual.float(), args.x)
    h = args.x.float() if residual is None else args.x.float() + residual
    out = plain.group_norm(
        args.x, args.groups, args.weight, args.bias, args.eps, silu=args.silu, scale=args.scale,
        shift=args.shift, residual=args.residual,
    )  # fmt: skip
    return (out, h), by_torch(args, torch.float64)


def by_torch(args, kind=None):
    """(out, summed) as one writes them in torch, in x's dtype or in another."""
    x = args.x if kind is None else args.x.to(kind)

    def like(tensor):
        return None if tensor is None else tensor.to(x.dtype)

    h = x if args.residual is None else x + per_channel(like(args.residual), x)
    y = torch.group_norm(h.contiguous(), args.groups, like(args.weight), like(args.bias), args.eps)
    if args.scale is not None:
        y = y * (1 + per_channel(like(args.scale), x)) + per_channel(like(args.shift), x)
    y = F.silu(y) if args.silu else y
    if kind is None:
        y, h = y.to(args.out.dtype), h if args.summed is None else h.to(args.summed.dtype)
    return y, h
