"""The op group_norm on every backend: accuracy, equal bits, untouched neighbours, refusals."""

import group_norm_cases as cases
import pytest
import torch
from accuracy import assert_accurate
from group_norm_checks import SMALL, _sample, check
from memory import same

from diffusion_engine.ops.functional import add_group_norm, group_norm
from diffusion_engine.ops.group_norm import GroupNormArgs
from diffusion_engine.ops.registry import objection, resolve


@pytest.fixture
def cpp(isa):
    return "cpp"


@pytest.mark.parametrize("part", range(10))
def test_cpp(cpp, part):
    for seed in range(20 * part, 20 * part + 20):
        check(cpp, seed)


@pytest.mark.slow
def test_cpp_at_length(cpp):
    for seed in range(1000, 3000):
        check(cpp, seed)


@pytest.mark.parametrize("part", range(6))
def test_triton(part):
    for seed in range(10 * part, 10 * part + 10):
        check("triton", seed, pixels=SMALL, batches=(1, 2))


@pytest.mark.slow
def test_triton_at_length():
    for seed in range(1000, 3000):
        check("triton", seed, pixels=SMALL, batches=(1, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_on_a_gpu(backend):
    for seed in range(400):
        check(backend, seed, "cuda")


@pytest.mark.parametrize(
    "shape", [(2, 64, 96, 96), (1, 32, 200, 131), (1, 6, 120, 120), (9, 40, 13, 9)]
)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_large_maps_and_threads(cpp, shape, last):
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 100
    x = x.to(memory_format=torch.channels_last) if last else x
    groups, weight = shape[1] // 2, torch.randn(shape[1])
    args = GroupNormArgs(x, torch.empty_like(x), weight, groups=groups, silu=True)
    got = cases.run(cpp, args).out
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        assert same(cases.run(cpp, args).out, got)
    plain, exact = cases.expected(args)
    assert_accurate(got, plain[0], exact[0])
    assert same(cases.run(cpp, _sample(args, 0)).out[0], got[0])


@pytest.mark.parametrize("channels, groups", [(320, 32), (960, 32), (72, 24), (33, 11), (201, 3)])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_bits_do_not_depend_on_how_channels_are_split(cpp, channels, groups, last):
    """Groups that do not fill vectors: batch and threads decide which channels are left over."""
    torch.manual_seed(0)
    x = torch.randn(8, channels, 8, 8) * 3 + 1
    x = x.to(memory_format=torch.channels_last) if last else x
    args = GroupNormArgs(x, torch.empty_like(x), groups=groups, silu=True)
    got = cases.run(cpp, args).out
    for count in (2, 1):
        torch.set_num_threads(count)
        for b in range(8):
            assert same(cases.run(cpp, _sample(args, b)).out[0], got[b]), (count, b)
        assert same(cases.run(cpp, args).out, got), count


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_a_mean_far_from_zero(cpp, last):
    """Squares of the values would cancel: the mean is 10^4 deviations."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 40, 40) + 1e4
    x = x.to(memory_format=torch.channels_last) if last else x
    got = group_norm(x, 2, backend=cpp).double()
    exact = torch.nn.functional.group_norm(x.double(), 2)
    # The mean itself is known to half a unit of 10^4.
    assert (got - exact).abs().max() < 1e4 * torch.finfo(torch.float32).eps
    assert (got.std() - 1).abs() < 1e-4


def test_out_may_be_x_and_summed_a_residual(cpp):
    torch.manual_seed(0)
    for last in (False, True):
        x, r = torch.randn(2, 2, 6, 5, 7)
        if last:
            x, r = (t.to(memory_format=torch.channels_last) for t in (x, r))
        want, total = add_group_norm(x, r, 3, silu=True, backend="torch")
        out, residual = (
            x.clone(memory_format=torch.preserve_format),
            r.clone(memory_format=torch.preserve_format),
        )
        args = GroupNormArgs(out, out, residual=residual, summed=residual, groups=3, silu=True)
        resolve("group_norm", cpp, args)(args.tensors())
        torch.testing.assert_close(out, want)
        assert same(residual, total)
        into, channel = x.clone(memory_format=torch.preserve_format), torch.randn(2, 6)
        want, total = add_group_norm(x, channel, 3, backend="torch")
        args = GroupNormArgs(into, torch.empty_like(into), residual=channel, summed=into, groups=3)
        resolve("group_norm", cpp, args)(args.tensors())
        torch.testing.assert_close(args.out, want)
        assert same(into, total)


def test_nan_stays_in_its_group(cpp):
    x = torch.randn(2, 6, 5, 5)
    x[1, 2, 0, 0] = float("nan")
    got = group_norm(x, 3, silu=True, backend=cpp)
    bad = torch.isnan(got)
    assert bad[1, 2:4].all() and bad.sum() == 50


def test_large_values_do_not_overflow_silu(cpp):
    """1 + exp(100) is infinite in float32, silu(-100) is not."""
    weight = torch.tensor([100.0, 1.0])
    x = torch.tensor([[[-1.0, 1.0, -1.0, 1.0], [2.0, -2.0, 2.0, -2.0]]])
    got = group_norm(x, 2, weight, silu=True, backend=cpp)
    want = torch.nn.functional.silu(torch.nn.functional.group_norm(x.double(), 2, weight.double()))
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-30)


# The function, as layers call it


def test_result_has_the_format_of_x():
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    assert group_norm(x, 2).stride() == x.stride()
    assert group_norm(x[:, :4], 2).is_contiguous(memory_format=torch.channels_last)
    assert group_norm(x.bfloat16(), 2).dtype == torch.bfloat16


def test_a_launch_is_kept_for_tensors_of_a_kind():
    from diffusion_engine.ops import launches

    x = torch.randn(3, 8, 5)
    first = group_norm(x, 2)
    count = len(launches._launches)
    assert same(group_norm(x.clone(), 2), first) and len(launches._launches) == count
    group_norm(x, 4)
    assert len(launches._launches) == count + 1


# Refusals


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"groups": 3}, ValueError, "groups=3 does not divide the 8 channels"),
        ({"groups": 0}, ValueError, "groups=0 does not divide"),
        ({"eps": 0.0}, ValueError, "eps=0.0: .* above 0"),
        ({"x": torch.zeros(2, 8, 3, dtype=torch.int32)}, TypeError, "x is torch.int32; cast it"),
        ({"x": torch.zeros(8)}, ValueError, r"needs x \[batch, channels, \*pixel\] .* got \[8\]"),
        ({"x": torch.zeros(0, 8, 3)}, ValueError, "with elements"),
        ({"weight": torch.zeros(7)}, ValueError, r"needs weight \[8\], got \[7\]"),
        ({"scale": torch.zeros(8)}, ValueError, r"needs scale \[2, 8\], got \[8\]"),
        ({"residual": torch.zeros(2, 8, 4)}, ValueError, r"\[2, 8, 3\] or \[2, 8\], got \[2, 8, 4\]"),
        ({"bias": torch.zeros(8, dtype=torch.int64)}, TypeError, "bias is torch.int64"),
        ({"weight": torch.zeros(8, device="meta")}, ValueError, "weight on meta; move one"),
    ],
)  # fmt: skip
def test_bad_arguments(change, error, match):
    given = {"x": torch.zeros(2, 8, 3), "groups": 2} | change
    with pytest.raises(error, match=match):
        group_norm(**given)


def test_a_named_backend_is_strict():
    x = torch.zeros(2, 8, 4, 4)
    mixed = GroupNormArgs(x, torch.empty_like(x, memory_format=torch.channels_last), groups=2)
    reason = objection("group_norm", "cpp", mixed)
    assert "neither all contiguous in their pixels nor all in their channels" in reason
    with pytest.raises(
        ValueError, match=r"backend='cpp' cannot run group_norm\. cpp: the images are"
    ):
        resolve("group_norm", "cpp", mixed)
    resolve("group_norm", "auto", mixed)(mixed.tensors())
    assert "take float32, bfloat16 and float16; x is torch.float64" in objection(
        "group_norm", "cpp", GroupNormArgs(x.double(), x.double(), groups=2)
    )
    scattered = x.permute(0, 1, 3, 2)[:, :, ::2]
    assert "have no single stride" in objection(
        "group_norm", "cpp", GroupNormArgs(scattered, torch.empty_like(scattered), groups=2)
    )
    with pytest.raises(ValueError, match="no such implementation of group_norm"):
        group_norm(x, 2, backend="metal")
