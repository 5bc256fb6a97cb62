"""The sums that drivers decide by: exact to float64, and the same bits however a sample lies in memory."""

import math

import pytest
import torch

from diffusion_engine.drivers.sums import dot, dots, norm


@pytest.mark.parametrize("shape", [(1,), (3, 1), (3, 5, 7), (4, 64, 65)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_sum_of_products(shape, dtype):
    torch.manual_seed(0)
    x, y = torch.randn(2, *shape, dtype=dtype)
    pairs = list(zip(x.double().flatten().tolist(), y.double().flatten().tolist(), strict=True))
    exact, size = math.fsum(a * b for a, b in pairs), math.fsum(abs(a * b) for a, b in pairs)
    assert abs(dot(x, y) - exact) <= 2.0**-52 * (1 + math.log2(len(pairs))) * size
    assert norm(x) == math.sqrt(dot(x, x))
    assert dots(torch.stack([y, x]), torch.stack([x, x])).tolist() == [dot(x, y), dot(x, x)]


def test_neither_memory_nor_threads_change_the_bits():
    torch.manual_seed(1)
    batch = torch.randn(3, 4, 64, 65)
    alone, threads = dot(batch[1].clone(), batch[2].clone()), torch.get_num_threads()
    beside = batch.to(memory_format=torch.channels_last)
    assert dot(beside[1], beside[2]) == alone
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert dot(batch[1], batch[2]) == alone
    finally:
        torch.set_num_threads(threads)
