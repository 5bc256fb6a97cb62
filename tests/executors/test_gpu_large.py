"""On a GPU: steps on more than 2^31 elements, against steps on few of them."""

import pytest
import torch

from diffusion_engine.ops import layout as at
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import StepArgs, Table

DEVICE = "cuda"

pytestmark = pytest.mark.gpu


def row(normals):
    """x' = 0.3 x + 0.9 (1.1 x - 0.7 out) + 0.2 z, and half of it as the next input."""
    coef, index = torch.zeros(1, at.COEF), torch.zeros(1, at.INDEX, dtype=torch.int32)
    for column, value in (
        (at.P, 1.1), (at.Q, -0.7), (at.LO, -torch.inf), (at.HI, torch.inf), (at.SCALE, 1.0), (at.A, 0.3),
        (at.D, 0.9), (at.C, 0.2 if normals else 0.0), (at.C_IN, 0.5),
    ):  # fmt: skip
        coef[0, column] = value
    flags = at.DENOISED | (at.NORMAL if normals else 0)
    for column, value in (
        (at.NEXT, -1),
        (at.KEY, 7),
        (at.READS, 1),
        (at.WRITES, 1),
        (at.FLAGS, flags),
    ):
        index[0, column] = value
    return Table(
        coef.to(DEVICE),
        index.to(DEVICE),
        torch.zeros(1, at.LABELS, dtype=torch.float64, device=DEVICE),
    )


def step(backend, x, out, seeds, normals):
    """(the next x, the next input) of samples [B, 1, pixels], in place of x."""
    batch, net_in = len(x), torch.empty_like(out)

    def ints(*values):
        return torch.tensor(values, dtype=torch.int32, device=DEVICE)

    own = ints(*range(batch)).view(batch, 1)
    args = StepArgs(
        slots=x[None], row=ints(*[0] * batch), seed=torch.tensor(seeds, device=DEVICE), table=row(normals),
        src=own, dst=own, net_in=net_in, status=ints(*[0] * batch), ticket=ints(*[0] * batch),
        normals=int(normals),
    )  # fmt: skip
    resolve("step", backend, args)((out,))
    assert args.status.tolist() == [0] * batch and args.row.tolist() == [-1] * batch
    return x, net_in


def room(gib):
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < gib * 2**30:
        pytest.skip(f"needs {gib} GiB of free memory")


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_many_samples(backend):
    """Those beyond 2^31 elements are as they are alone, and one as the definition says."""
    room(32)
    check_samples(backend, batch=33, pixels=2**26)


def check_samples(backend, batch, pixels):
    made = torch.Generator(DEVICE).manual_seed(0)
    x = torch.empty(batch, 1, pixels, device=DEVICE).normal_(generator=made)
    out = torch.empty_like(x, dtype=torch.bfloat16).normal_(generator=made)
    first = {b: x[b : b + 1].clone() for b in (0, batch - 2, batch - 1)}
    made_x, made_in = step(backend, x, out, range(batch), normals=True)
    for b, alone in first.items():
        for name in (backend, "torch") if b == batch - 1 else (backend,):
            want = step(name, alone.clone(), out[b : b + 1], [b], normals=True)
            assert torch.equal(made_x[b : b + 1], want[0])
            assert torch.equal(made_in[b : b + 1], want[1])


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_large_samples(backend):
    """Windows of a sample, around 2^31 elements and at its end, are as the same elements by themselves."""
    room(48)
    check_windows(backend, pixels=2**31 + 2**12, around=2**31)


def check_windows(backend, pixels, around):
    x = torch.empty(2, 1, pixels, device=DEVICE).normal_()
    out = torch.empty_like(x, dtype=torch.bfloat16).normal_()
    windows = [slice(0, 64), slice(around - 64, around + 64), slice(pixels - 64, pixels)]
    before = [(x[..., w].clone(), out[..., w].clone()) for w in windows]
    made = step(backend, x, out, [1, 2], normals=False)
    for window, (few, outs) in zip(windows, before, strict=True):
        want = step("torch", few, outs, [1, 2], normals=False)
        assert all(torch.equal(a[..., window], b) for a, b in zip(made, want, strict=True))
