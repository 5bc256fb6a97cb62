"""The CUDA kernels of group_norm and attention: their code run on the CPU, and on a GPU with `-m gpu`."""

import group_norm_cases
import on_host
import pytest
import torch
from accuracy import assert_accurate
from group_norm_checks import check

from diffusion_engine.backends import group_norm
from diffusion_engine.ops import table
from diffusion_engine.ops.group_norm import GroupNormArgs

ON_HOST = on_host.emulated(group_norm.bind, group_norm.layout_objection)


@pytest.fixture
def emulated(cuda, monkeypatch):
    """A backend that runs the kernels' code on the CPU."""
    monkeypatch.setitem(table.IMPLEMENTATIONS, ("group_norm", "emulated"), f"{__name__}:ON_HOST")
    return "emulated"


@pytest.mark.parametrize("part", range(5))
def test_group_norm(emulated, part):
    for seed in range(40 * part, 40 * part + 40):
        check(emulated, seed)


@pytest.mark.slow
def test_group_norm_at_length(emulated):
    for seed in range(1000, 3000):
        check(emulated, seed)


LARGE = [(1, 8, 64, 64), (2, 12, 41, 37), (1, 6, 130, 9), (2, 1200, 7, 7)]


@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_group_norm_in_parts(emulated, shape, last):
    """Groups of several blocks."""
    check_large(emulated, shape, last)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "shape", [*LARGE, (2, 320, 64, 64), (3, 960, 32, 32), (1, 128, 256, 256), (2, 96, 61, 67)]
)
def test_group_norm_in_parts_on_the_gpu(shape, last, dtype, backend):
    check_large(backend, shape, last, dtype, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("part", range(4))
def test_random_large_group_norms_on_the_gpu(part, backend):
    """Of every kind of argument, most of them in parts."""
    for seed in range(5000 + 25 * part, 5025 + 25 * part):
        check(backend, seed, "cuda", pixels=[(64, 64), (97, 41), (128, 96), (20000,)])


def check_large(backend, shape, last, dtype=torch.float32, device="cpu"):
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 100
    x = (x.to(memory_format=torch.channels_last) if last else x).to(dtype)
    args = GroupNormArgs(
        x, torch.empty_like(x), torch.randn(shape[1]), residual=torch.randn(shape[:2]),
        groups=32 if shape[1] % 32 == 0 and shape[1] > 64 else 2, silu=True,
    )  # fmt: skip
    got = group_norm_cases.run(backend, args, device).out.cpu()
    plain, exact = group_norm_cases.expected(args)
    assert_accurate(got, plain[0], exact[0])


def test_group_norm_refusals(cuda):
    p = cuda.GroupNormParams()
    p.batch, p.channels, p.pixels, p.groups = 1, 6, 4, 4
    with pytest.raises(ValueError, match="4 groups do not divide 6 channels"):
        cuda.group_norm_on_host(p, [0] * 8)
    x = torch.zeros(1, 8, 128, 128)
    args = GroupNormArgs(x, x, groups=2)

    class WithoutWorkspace(on_host.OnHost):
        def layer_kernel(self, op, device):
            return cuda.group_norm_on_host

    run = group_norm.bind(WithoutWorkspace(), args)
    with pytest.raises(ValueError, match=r"needs a workspace of [0-9]+ bytes"):
        run(args.tensors())
