"""The CUDA kernels of group_norm and attention: their code run on the CPU, and on a GPU with `-m gpu`."""

import group_norm_cases
import pytest
import torch
from accuracy import assert_accurate
from test_cuda import cuda  # noqa: F401
from test_group_norm import check

from diffusion_engine.backends import layers, native
from diffusion_engine.ops import table
from diffusion_engine.ops.group_norm import GroupNormArgs


def bind_group_norm_on_host(args):
    module = native.loaded("_cuda")

    def run(p, addresses, tensor):
        size = module.group_norm_workspace(p, addresses)
        scratch = torch.full((size,), 255, dtype=torch.uint8)
        module.group_norm_on_host(p, addresses, scratch.data_ptr() if size else 0)

    return layers.bind_group_norm(args, "_cuda", run)


def objection_group_norm_on_host(args):
    return layers.objection_images(args)


@pytest.fixture
def emulated(cuda, monkeypatch):  # noqa: F811
    """A backend that runs the kernels' code on the CPU."""
    where = f"{__name__}:bind_group_norm_on_host"
    monkeypatch.setitem(table.IMPLEMENTATIONS, ("group_norm", "emulated"), where)
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


def check_large(backend, shape, last, dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 100
    x = (x.to(memory_format=torch.channels_last) if last else x).to(dtype)
    args = GroupNormArgs(
        x, torch.full_like(x, float("nan")), torch.randn(shape[1]), residual=torch.randn(shape[:2]),
        groups=2, silu=True,
    )  # fmt: skip
    got = group_norm_cases.run(backend, args).out
    exact, theirs = (group_norm_cases.by_torch(args, kind)[0] for kind in (torch.float64, None))
    assert_accurate(got, theirs, exact)


def test_group_norm_refusals(cuda):  # noqa: F811
    p = cuda.GroupNormParams()
    p.batch, p.channels, p.pixels, p.groups = 1, 6, 4, 4
    with pytest.raises(ValueError, match="4 groups do not divide 6 channels"):
        cuda.group_norm_on_host(p, [0] * 8)
    x = torch.zeros(1, 8, 128, 128)
    args = GroupNormArgs(x, x, groups=2)
    run = layers.bind_group_norm(args, "_cuda", lambda p, to, _: cuda.group_norm_on_host(p, to))
    with pytest.raises(ValueError, match=r"needs a workspace of [0-9]+ bytes"):
        run(args.tensors())
