"""Copies of a recorded program: every order, part and padding, with the bits of torch."""

import itertools
import random

import pytest
import torch
from torch.nn import functional as F

_cpu = pytest.importorskip("diffusion_engine._cpu")


def five(values, fill):
    return [fill] * (6 - len(values)) + list(values)


def copy(x, out, before=None, value=0.0, threads=2):
    p = _cpu.CopyParams()
    p.sizes, p.inside = five(out.shape, 1), five(x.shape, 1)
    p.x_strides, p.out_strides = five(x.stride(), 0), five(out.stride(), 0)
    p.before, p.value = five(before or [0] * out.dim(), 0), value
    p.x, p.out = x.data_ptr(), out.data_ptr()
    program = _cpu.Program(_cpu.Pool(threads))
    program.add(p, "copy")
    program.run([], [])


def nans(*shape):
    return torch.full(shape, torch.nan)


SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 1),
    (2, 3, 17, 33, 2),
    (1, 130, 16, 16, 1),
    (2, 1, 40, 3, 37),
    (1, 1, 1, 1, 90_001),
]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_order(shape, threads):
    x = torch.randn(shape)
    for order in itertools.permutations(range(5)):
        out = nans(*(shape[i] for i in order))
        copy(x.permute(order), out, threads=threads)
        assert torch.equal(out, x.permute(order)), order
        back = nans(*shape)
        copy(x, back.permute(order).permute([order.index(i) for i in range(5)]), threads=threads)
        assert torch.equal(back, x), order


def part(generator, size):
    """A part of an axis with `size` in it, and the whole axis."""
    step, first = generator.choice([1, 1, 2]), generator.randrange(3)
    return slice(first, first + (size - 1) * step + 1, step), first + (
        size - 1
    ) * step + 1 + generator.randrange(3)


@pytest.mark.parametrize("seed", range(60))
def test_parts(seed):
    """Slices with steps in wider tensors: what lies around them is not touched."""
    generator = random.Random(seed)
    torch.manual_seed(seed)
    shape = [
        generator.choice([1, 2, 3, 5, 7, 16, 17, 33]) for _ in range(generator.randrange(1, 6))
    ]
    order = generator.sample(range(len(shape)), len(shape))
    cut = [part(generator, size) for size in shape]
    x = torch.randn([whole for _, whole in cut])[tuple(s for s, _ in cut)]
    cut = [part(generator, shape[i]) for i in order]
    wide = nans(*(whole for _, whole in cut))
    expected = wide.clone()
    where = tuple(s for s, _ in cut)
    expected[where] = x.permute(order)
    copy(x.permute(order), wide[where])
    assert torch.equal(wide.nan_to_num(7e9), expected.nan_to_num(7e9))


@pytest.mark.parametrize("seed", range(60))
def test_padding(seed):
    """On any sides, and negative, which cuts."""
    generator = random.Random(seed)
    torch.manual_seed(seed)
    shape = [generator.choice([1, 3, 5, 7, 16, 33]) for _ in range(generator.randrange(1, 6))]
    order = generator.sample(range(len(shape)), len(shape))
    pads = [
        (generator.randrange(-1, 4) * (size > 2), generator.randrange(-1, 4) * (size > 2))
        for size in shape
    ]
    x = torch.randn([shape[order.index(i)] for i in range(len(shape))]).permute(order)
    expected = F.pad(x, [n for pair in reversed(pads) for n in pair], value=-2.5)
    out = nans(*expected.shape)
    copy(x, out, before=[first for first, _ in pads], value=-2.5)
    assert torch.equal(out, expected)


def test_expanded_and_constant():
    x, out = torch.randn(1, 5, 1), nans(4, 5, 600)
    copy(x.expand(4, 5, 600), out)
    assert torch.equal(out, x.expand(4, 5, 600))
    copy(x, out, before=[9, 0, 0], value=3.0)
    assert torch.equal(out, torch.full_like(out, 3.0))


def test_flipped():
    x, out = torch.arange(12.0).view(3, 4), nans(3, 4)
    p = _cpu.CopyParams()
    p.sizes, p.x_strides, p.out_strides = five((3, 4), 1), five((4, -1), 0), five((4, 1), 0)
    p.x, p.out = x.data_ptr() + 4 * 3, out.data_ptr()
    program = _cpu.Program(_cpu.Pool(1))
    program.add(p, "copy")
    program.run([], [])
    assert torch.equal(out, x.flip(1))
