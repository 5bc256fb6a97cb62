"""The yardstick of the kernels: plain float32 sums, with the same bits wherever they are computed."""

import numpy as np
import pytest
import torch
from accuracy import assert_accurate

from diffusion_engine.testing import plain

DIGESTS = "61524955487 -13108213772 -25049754226"  # of results() below, on any processor


def made(*shape):
    """Numbers between -1 and 1 that are the same on every machine, unlike torch.randn's last bits."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 7919 % 4093).float() / 2046.0 - 1.0).view(shape)


def test_a_product_sums_from_left_to_right():
    a, b = made(2, 3, 50), made(2, 50, 4)
    for (n, i, j), value in np.ndenumerate(plain.product(a, b).numpy()):
        total = np.float32(0.0)
        for x, y in zip(a[n, i].numpy(), b[n, :, j].numpy(), strict=True):
            total = np.float32(total + np.float32(x * y))
        assert value == total


def test_moments_are_summed_axis_after_axis():
    x = made(2, 3, 5, 7, 11)
    want = np.zeros((2, 3), np.float32)
    for n in np.ndindex(want.shape):
        for plane in x[n].numpy():
            of_plane = np.float32(0.0)
            for line in plane:
                of_line = np.float32(0.0)
                for value in line:
                    of_line += value
                of_plane += of_line
            want[n] += of_plane
    assert np.array_equal(plain._total(x).flatten(1).numpy(), want)


def results():
    """(plain, exact) of each op."""
    x, weight, bias, residual = made(2, 12, 9, 7), made(5, 12, 3, 3), made(5), made(2, 5, 9, 7)
    q, k, v = made(2, 2, 9, 16), made(2, 2, 33, 16) * 3.0, made(2, 2, 33, 16)
    exact = [t.double() for t in (x, weight, bias, residual)]
    conv = torch.nn.functional.conv2d(*exact[:3], padding=1) + exact[3]
    yield "conv3x3", plain.conv3x3(x, weight, bias, residual), conv
    weights = torch.softmax(q.double() @ k.double().mT / 4.0, dim=-1)
    yield "attention", plain.attention(q, k, v), weights @ v.double()
    norm = torch.nn.functional.group_norm(x.double() + exact[0].flip(0), 3, x[0, :, 0, 0].double())
    norm = torch.nn.functional.silu(norm)
    mine = plain.group_norm(x, 3, x[0, :, 0, 0], silu=True, residual=x.flip(0))
    yield "group_norm", mine, norm


def test_plain_sums_are_nearly_exact():
    for name, mine, exact in results():
        assert mine.dtype == torch.float32 and mine.shape == exact.shape, name
        assert 0.0 < (mine - exact).abs().max() < 1e-5 * exact.abs().max(), name


def digests():
    return " ".join(
        str(mine.contiguous().view(torch.int32).sum().item()) for _, mine, _ in results()
    )


def test_the_same_bits_on_every_processor():
    """test_processors.py asks again under the other instruction sets of torch."""
    assert digests() == DIGESTS


def test_what_is_allowed():
    exact = torch.tensor([1.0, -4.0], dtype=torch.float64)
    one = torch.tensor([1.0, -4.0 + 2**-20])
    unit = torch.finfo(torch.float32).eps
    assert plain.allowed(one, exact, torch.float32) == 2 * 2**-20 + 4 * unit
    assert plain.allowed(one, exact, torch.float32, scale=1.0) == 2 * 2**-20 + unit
    assert plain.allowed(one, exact, torch.bfloat16) == 4 * torch.finfo(torch.bfloat16).eps
    assert_accurate(torch.tensor([1.0, -4.0 + 2**-19]), one, exact)
    with pytest.raises(AssertionError, match="twice the plain sum's and a unit are"):
        assert_accurate(torch.tensor([1.0, -4.0 + 2**-18]), one, exact)
