"""The op conv3x3: accuracy, equal bits, untouched neighbours, refusals."""

from dataclasses import replace

import conv3x3_cases as cases
import pytest
import torch
from accuracy import assert_accurate
from memory import before_a_wall, same
from torch.nn import functional as F

from diffusion_engine.ops.conv3x3 import Conv3x3Args, pack, tiles
from diffusion_engine.ops.functional import conv3x3
from diffusion_engine.ops.registry import objection, resolve
from diffusion_engine.testing import plain as yardstick

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def check(seed):
    args, plain, exact = cases.case(seed)
    got, again = cases.run("cpp", args), cases.run("cpp", args)
    try:
        assert_accurate(got.out, plain, exact)
    except AssertionError as error:
        raise AssertionError(f"{cases.describe(args)}: {error}") from error
    assert same(got.out, again.out)
    assert same(cases.around(got), cases.around(args)), "written outside of out"
    alone = cases.run("cpp", cases.sample(args, args.x.shape[0] - 1))
    assert same(alone.out[0], got.out[-1]), "a sample alone has other bits"


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_cpp_is_accurate(isa, first):
    for seed in range(first, first + 25):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_cpp_is_accurate_on_many_cases(isa, first):
    for seed in range(first, first + 100):
        check(seed)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (3, 2), (4, 4), (5, 9), (7, 6), (13, 1)])
@pytest.mark.parametrize("last", FORMATS)
def test_small_maps_have_the_bits_of_padded_ones(isa, tile, shape, last):
    """Zeros around a map change nothing: its windows read zeros there anyway."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 9, *shape), torch.randn(18, 9, 3, 3), torch.randn(18)
    padded = F.pad(x, (0, 18 - shape[1], 0, 18 - shape[0]))
    packed = pack(weight, tile)
    got, want = (
        conv3x3(t.contiguous(memory_format=FORMATS[last]), weight, packed, bias, backend="cpp")
        for t in (x, padded)
    )
    assert same(got, want[:, :, : shape[0], : shape[1]])
    assert got.is_contiguous(memory_format=FORMATS[last])


def layer(batch, channels, out_channels, side, last="channels_last"):
    torch.manual_seed(0)
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=FORMATS[last])
    residual = torch.randn(batch, out_channels, side, side).contiguous(memory_format=FORMATS[last])
    weight, bias = torch.randn(out_channels, channels, 3, 3), torch.randn(out_channels)
    return x, weight, bias, residual


@pytest.mark.parametrize("last", FORMATS)
@pytest.mark.parametrize(
    "sizes",
    [(1, 128, 128, 32), (2, 256, 320, 16), (3, 512, 96, 8), (1, 3, 128, 32), (1, 128, 3, 32)],
)
def test_layers_of_networks(isa, sizes, last):
    x, weight, bias, residual = layer(*sizes, last)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1) + residual.double()
    plain = yardstick.conv3x3(x, weight, bias, residual)
    for tile in tiles(x.shape[1]):
        got = conv3x3(x, weight, pack(weight, tile), bias, residual, backend="cpp")
        assert_accurate(got, plain, exact)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("sizes", [(5, 128, 160, 16), (9, 40, 24, 9), (3, 64, 700, 4)])
def test_same_bits_alone_and_on_any_threads(sizes, tile):
    x, weight, bias, residual = layer(*sizes)
    packed = pack(weight, tile)
    want = conv3x3(x, weight, packed, bias, residual, backend="cpp")
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        assert same(conv3x3(x, weight, packed, bias, residual, backend="cpp"), want)
        for b in range(sizes[0]):
            one = slice(b, b + 1)
            alone = conv3x3(x[one], weight, packed, bias, residual[one], backend="cpp")
            assert same(alone[0], want[b])


def test_both_formats_have_the_same_bits(isa):
    for tile in (2, 4):
        found = []
        for last in FORMATS:
            x, weight, bias, residual = layer(2, 37, 21, 11, last)
            found.append(conv3x3(x, weight, pack(weight, tile), bias, residual, backend="cpp"))
        assert same(*found)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("channels", [1, 3, 8, 13, 16])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 7), (8, 8)])
@pytest.mark.parametrize("last", FORMATS)
def test_nothing_is_read_beyond_the_tensors(isa, tile, channels, size, last):
    """An error here ends the process."""
    torch.manual_seed(0)
    image = (2, channels, *size)

    def walled(values):
        if last == "channels_last":
            return before_a_wall(values.movedim(1, -1).contiguous()).movedim(-1, 1)
        return before_a_wall(values)

    x, residual = walled(torch.randn(image)), walled(torch.randn(image))
    out = walled(torch.empty(image))
    weight = torch.randn(channels, channels, 3, 3)
    packed, bias = before_a_wall(pack(weight, tile)), before_a_wall(torch.randn(channels))
    args = Conv3x3Args(x, weight, packed, bias, residual, out)
    resolve("conv3x3", "cpp", args)(args.tensors())
    assert same(out, conv3x3(x, weight, packed, bias, residual, backend="cpp"))


def test_out_may_be_the_residual(isa):
    for last in FORMATS:
        x, weight, bias, residual = layer(2, 20, 33, 7, last)
        packed = pack(weight, 2)
        want = conv3x3(x, weight, packed, bias, residual, backend="cpp")
        args = Conv3x3Args(x, weight, packed, bias, residual, residual)
        resolve("conv3x3", "cpp", args)(args.tensors())
        assert same(residual, want)


@pytest.mark.parametrize("tile", [2, 4])
def test_nan_stays_in_its_tiles(isa, tile):
    x, weight, bias, _ = layer(2, 9, 17, 16)
    packed = pack(weight, tile)
    clean = conv3x3(x, weight, packed, bias, backend="cpp")
    x[1, 4, 6, 9] = torch.nan
    got = conv3x3(x, weight, packed, bias, backend="cpp")
    bad = got.isnan()
    assert bad[1, :, 5:8, 8:11].all() and not bad[0].any()
    rows, columns = (bad[1, 0].any(dim=d).nonzero() for d in (1, 0))
    assert rows.max() - rows.min() < 2 * tile and columns.max() - columns.min() < 2 * tile
    assert same(got.where(~bad, 0.0), clean.where(~bad, 0.0))


def test_definition_by_hand():
    x, weight, bias, residual = (t.double() for t in layer(1, 2, 1, 3))
    args = Conv3x3Args(x, weight, pack(weight, 2), bias, residual, torch.empty_like(residual))
    resolve("conv3x3", "torch", args)(args.tensors())
    # The corner's window begins outside of the image.
    want = bias[0] + residual[0, 0, 0, 0] + (weight[0, :, 1:, 1:] * x[0, :, :2, :2]).sum()
    assert torch.allclose(args.out[0, 0, 0, 0], want, rtol=1e-14)


def test_a_tile_is_chosen_by_the_channels_of_a_layer():
    assert tiles(64) == tiles(1280) == (4, 2)
    assert tiles(63) == tiles(3) == (2,)
    weight = torch.randn(33, 5, 3, 3)
    assert pack(weight, 2).shape == (16, 3, 5, 16) and pack(weight, 4).shape == (36, 3, 5, 16)


# Refusals


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": torch.zeros(8, 3, 3)}, ValueError, r"x \[B, C, H, W\] with elements, got \[8, 3, 3\]"),
        ({"x": torch.zeros(0, 8, 3, 3)}, ValueError, "with elements"),
        ({"x": torch.zeros(2, 7, 3, 3)}, ValueError, r"needs weight \[K, 7, 3, 3\], got \[4, 8, 3, 3\]"),
        ({"x": torch.zeros(2, 8, 3, 3).half()}, TypeError, "x is torch.float16; cast it to float32"),
        ({"packed": torch.zeros(4, 8, 3, 3)}, ValueError, r"needs packed \[16, 1, 8, 16\] or \[36, .*pack"),
        ({"bias": torch.zeros(5)}, ValueError, r"needs bias \[4\], got \[5\]"),
        ({"residual": torch.zeros(2, 8, 3, 3)}, ValueError, r"residual \[2, 4, 3, 3\], got \[2, 8"),
        ({"bias": torch.zeros(4).double()}, TypeError, "bias torch.float64; cast them to one"),
        ({"bias": torch.zeros(4, device="meta")}, ValueError, "bias on meta; move one"),
    ],
)  # fmt: skip
def test_bad_arguments(change, error, match):
    weight = torch.zeros(4, 8, 3, 3)
    given = {"x": torch.zeros(2, 8, 3, 3), "weight": weight, "packed": pack(weight, 2)} | change
    with pytest.raises(error, match=match):
        conv3x3(**given)


def test_a_tile_of_another_size():
    with pytest.raises(ValueError, match="tile=3: pack transforms weights for tiles of 2 or 4"):
        pack(torch.zeros(4, 8, 3, 3), 3)


def test_a_named_backend_is_strict():
    x, weight, bias, residual = layer(2, 8, 6, 4)
    packed, out = pack(weight, 2), torch.empty_like(residual)
    args = Conv3x3Args(x, weight, packed, bias, residual.contiguous(), out)
    reason = objection("conv3x3", "cpp", args)
    assert "out and residual with strides" in reason and "give them one memory format" in reason
    with pytest.raises(
        ValueError, match=r"backend='cpp' cannot run conv3x3\. cpp: out and residual"
    ):
        resolve("conv3x3", "cpp", args)
    resolve("conv3x3", "auto", args)(args.tensors())
    assert same(out, F.conv2d(x, weight, bias, padding=1) + residual.contiguous())
    assert "x with strides" in objection(
        "conv3x3", "cpp", replace(args, x=torch.zeros(2, 16, 4, 8)[:, ::2, :, ::2])
    )
    scattered = torch.zeros(2, 8, 4, 8)[..., :4]
    assert "have no single stride" in objection("conv3x3", "cpp", replace(args, x=scattered))
    wide = Conv3x3Args(x.double(), weight.double(), packed, None, None, out.double())
    assert objection("conv3x3", "cpp", wide) == "the kernel takes float32; x is torch.float64"
    with pytest.raises(ValueError, match="no such implementation of conv3x3"):
        conv3x3(x, weight, packed, backend="cuda")
