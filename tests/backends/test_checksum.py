"""Checksums see every change of a tensor."""

import pytest
import torch

from diffusion_engine import _cpu
from diffusion_engine.backends import checksum
from diffusion_engine.backends.checksum import checksums


@pytest.fixture(params=["native", "torch"])
def sums(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(checksum, "module", lambda name: "not built")
    return lambda *tensors: checksums(tensors)


SIZES = [1, 2, 7, 63, 64, 65, 4096, 70001, (1 << 19) + 5]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.complex64, torch.bool]
)
def test_one_element(sums, dtype):
    generator = torch.Generator().manual_seed(0)
    for size in SIZES:
        x = torch.randint(0, 2, (size,), generator=generator).to(dtype)
        (before,) = sums(x)
        places = torch.randint(size, (8,), generator=generator).tolist()
        for i in {0, size - 1, *places}:
            x[i] = 1 - x[i].item()
            assert sums(x) != [before], (size, i)
            x[i] = 1 - x[i].item()
        assert sums(x) == [before]


CHANGES = {
    "negated": lambda x: x.neg_(),
    "two signs": lambda x: x[:2].neg_(),
    "signs a row apart": lambda x: x[3:20:16].neg_(),
    "all up by a bit": lambda x: x.view(torch.int32).add_(1),
    "one up, one down": lambda x: x.view(torch.int32)[5:7].add_(
        torch.tensor([1, -1], dtype=torch.int32)
    ),
    "swapped": lambda x: x.copy_(torch.cat((x[64:128], x[:64], x[128:]))),
    "reversed": lambda x: x.copy_(x.flip(0)),
    "last": lambda x: x[-1:].mul_(1.5),
    "zero": lambda x: x.zero_(),
    "rolled by a block": lambda x: x.copy_(x.roll(1 << 16)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_that_leave_a_plain_sum(sums, change):
    x = torch.randn(1 << 18, generator=torch.Generator().manual_seed(0))
    before = sums(x)
    change(x)
    assert sums(x) != before


@pytest.mark.parametrize("isa", _cpu.isas())
@pytest.mark.parametrize("threads", [1, 3])
def test_a_pools_threads_make_the_same(threads, isa):
    tensors = [torch.randn(n) for n in (1, 7, 70001, 1 << 19)] + [torch.randn(2, 8, 5, 5)[:, ::2]]
    want, before = checksums(tensors), _cpu.isa()
    _cpu.set_isa(isa)
    try:
        assert checksums(tensors, _cpu.Pool(threads)) == want
    finally:
        _cpu.set_isa(before)


def test_layouts(sums):
    x = torch.randn(6, 5, 3, 3)
    last = x.contiguous(memory_format=torch.channels_last)
    strided = torch.randn(12, 5)[::2]
    for tensor in (
        x,
        last,
        strided,
        x.mT,
        torch.zeros(0),
        torch.tensor(3.0),
        torch.nn.Parameter(x),
    ):
        before = sums(tensor)
        assert sums(tensor.detach().clone()) == before
        if tensor.numel():
            with torch.no_grad():
                tensor.view(-1)[-1].add_(1.0) if tensor.is_contiguous() else tensor[-1, -1].add_(
                    1.0
                )
            assert sums(tensor) != before
    assert sums(x, strided) == [*sums(x), *sums(strided)]
    assert sums(torch.empty(3, device="meta")) == [0]


def test_threads_do_not_matter():
    x = torch.randn(1 << 20)
    before = checksums([x])
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert checksums([x]) == before
