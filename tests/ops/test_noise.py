"""Philox and the normals: known answers, the same bits everywhere, and the right distribution."""

import math

import numpy as np
import pytest
import torch
from known_answers import KNOWN, ONES
from on_host import OnHost

from diffusion_engine.backends import native
from diffusion_engine.backends import noise as noise_backend
from diffusion_engine.ops import layout as at
from diffusion_engine.ops import philox as noise
from diffusion_engine.ops.noise import NoiseArgs
from diffusion_engine.ops.registry import resolve


def fill(backend, shape, seeds, key=1, m=0, out=None):
    out = torch.empty(shape) if out is None else out
    resolve("noise", backend, NoiseArgs(out, torch.tensor(seeds)))(key, m)
    return out


@pytest.mark.parametrize("counter, key, words", KNOWN)
def test_known_answers(counter, key, words):
    made = noise.philox(*(torch.tensor([c]) for c in (*counter, *key)))
    assert tuple(int(w) for w in made) == words
    assert tuple(native.module("_cpu").philox(counter, key)) == words


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 3, 5, 7), (2, 2, 33, 31), (1, 130)])
@pytest.mark.parametrize("key, m", [(0, 0), (7, 1), (2**31 - 1, 2), (-5, 0)])
def test_same_bits(backend, shape, key, m):
    seeds = [(-1) ** i * (2**62 + 12345 * i) for i in range(shape[0])]
    assert torch.equal(fill(backend, shape, seeds, key, m), fill("torch", shape, seeds, key, m))


@pytest.mark.parametrize("backend", ["torch", "cpp", "triton"])
def test_channels_last_numbers_elements_alike(backend):
    plain = fill(backend, (2, 3, 5, 7), [1, 2])
    last = torch.empty(2, 5, 7, 3).movedim(-1, 1)
    assert torch.equal(fill(backend, (2, 3, 5, 7), [1, 2], out=last), plain)


def of_rows(shape, dtype=torch.int32):
    """Row counters, one sample done, and rows whose keys use all 32 bits."""
    row = torch.tensor([2, -1, 0, 1, 2][: shape[0]], dtype=dtype)
    index = torch.zeros(3, at.INDEX, dtype=torch.int32)
    index[:, at.KEY] = torch.tensor([7, -5, 2**31 - 1], dtype=torch.int32)
    return row, index


@pytest.mark.parametrize("backend", ["torch", "cpp", "triton", "cuda on the host"])
@pytest.mark.parametrize("shape", [(1, 100), (3, 7), (5, 3, 5, 8), (2, 2, 33, 31)], ids=str)
@pytest.mark.parametrize("key, m", [(0, noise.LATENT), (2**31, 1)])
def test_keys_of_the_rows(backend, shape, key, m):
    row, index = of_rows(shape)
    seeds = torch.arange(shape[0]) - 1
    out = torch.full(shape, -7.0)
    args = NoiseArgs(out, seeds, row, index)
    if backend.startswith("cuda"):
        cuda = native.module("_cuda")
        if isinstance(cuda, str):
            pytest.skip(cuda)
        noise_backend.bind(OnHost(), args)(key, m)
    else:
        resolve("noise", backend, args)(key, m)
    for b, r in enumerate(row.tolist()):
        own = key + int(index[r, at.KEY])
        want = fill("torch", (1, *shape[1:]), [b - 1], own, m)
        assert torch.equal(out[b : b + 1], want) if r >= 0 else (out[b] == -7.0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_keys_of_the_rows_on_the_gpu(backend):
    """Within a graph, too: another row is read at each replay."""
    row, index = of_rows((5,))
    want, seeds = torch.full((5, 100), -7.0), torch.arange(5)
    got, at_row = want.cuda(), row.cuda()
    launch = resolve("noise", backend, NoiseArgs(got, seeds.cuda(), at_row, index.cuda()))
    launch(0, noise.LATENT)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        launch(0, noise.LATENT)
    for r in range(3):
        row[:3] = r
        at_row.copy_(row)
        recorded.replay()
        resolve("noise", "cpp", NoiseArgs(want, seeds, row, index))(0, noise.LATENT)
        assert torch.equal(got.cpu(), want)


def test_a_sample_is_independent_of_its_batch():
    whole = fill("cpp", (9, 3, 8, 8), list(range(9)))
    for low, high in ((0, 2), (2, 7), (7, 9)):
        part = fill("cpp", (high - low, 3, 8, 8), list(range(low, high)))
        assert torch.equal(part, whole[low:high])


def test_key_m_and_seed_all_count():
    made = [
        fill("cpp", (1, 64), [s], key, m) for s in (0, 1 << 32) for key in (0, 1) for m in (0, 1)
    ]
    assert len({tuple(z.flatten().tolist()) for z in made}) == len(made)


def test_distribution_of_2_24_draws():
    z = fill("cpp", (1, 1 << 24), [2024]).double().flatten()
    n = z.numel()
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    tail = math.erfc(4 / math.sqrt(2))
    assert abs((z.abs() > 4).double().mean() - tail) < 4 * math.sqrt(tail / n)
    assert abs((z[:-1] * z[1:]).mean()) < 4 / math.sqrt(n)


def test_error_against_float64():
    """Box-Muller of the same words in float64: a few units of float32."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**32, (2, 1 << 18))
    a[:6], b[:4] = [0, 1, ONES, ONES - 1, 1 << 31, 3 << 30], [0, 1 << 29, ONES, 1 << 31]
    got = noise.box_muller(torch.from_numpy(a), torch.from_numpy(b))
    radius = np.sqrt(-2 * np.log((a + 0.5) / 2.0**32))
    angle = 2 * np.pi * b / 2.0**32
    for z, want in zip(got, (radius * np.cos(angle), radius * np.sin(angle)), strict=True):
        assert np.abs(z.numpy() - want).max() < 1e-6
    x = torch.linspace(-20, 20, 100_001)
    assert ((noise.exp(x).double() / x.double().exp()) - 1).abs().max() < 1.2e-7


def test_wrong_arguments():
    with pytest.raises(TypeError, match="writes float32 from int64 seeds"):
        NoiseArgs(torch.zeros(1, 2).double(), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="one seed a sample"):
        NoiseArgs(torch.zeros(2, 2), torch.zeros(1, dtype=torch.int64))
    out, seed, (row, index) = torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), of_rows((2,))
    with pytest.raises(ValueError, match="row and index come together"):
        NoiseArgs(out, seed, row)
    with pytest.raises(TypeError, match="row and index are int32"):
        NoiseArgs(out, seed, row.long(), index)
    with pytest.raises(ValueError, match="one row a sample"):
        NoiseArgs(out, seed, row[:1], index)
