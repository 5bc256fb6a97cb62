"""The CUDA attention: its code run on the CPU, threads as fibers, and on a GPU with `-m gpu`."""

import mmap

import attention_cases as cases
import on_host
import pytest
import torch

from diffusion_engine.backends import attention
from diffusion_engine.ops import table
from diffusion_engine.ops.attention import AttentionArgs

HALVES = (torch.bfloat16, torch.float16)


ON_HOST = on_host.emulated(attention.bind)


@pytest.fixture
def emulated(cuda, monkeypatch):
    """A backend that runs the kernel's code on the CPU."""
    monkeypatch.setitem(table.IMPLEMENTATIONS, ("attention", "emulated"), f"{__name__}:ON_HOST")
    return "emulated"


def halves(seed, sizes, dtype, size=1.0):
    """q [batch, heads, queries, dim], k and v of a projection that made both."""
    batch, heads, queries, keys, dim = sizes
    made = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, heads, queries, dim, generator=made) * size
    kv = torch.randn(batch, keys, 2, heads, dim, generator=made) * size
    return (q.to(dtype), *(t.transpose(1, 2) for t in kv.to(dtype).unbind(2)))


def takes(case):
    """Whether rows of the case are 16-bit and start at multiples of 16 bytes."""
    return case.q.dtype in HALVES and case.q.shape[3] % 8 == 0 and case.gap % 8 == 0


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("dim", range(8, 257, 8))
def test_head_dims(emulated, dim, dtype):
    for keys in (5, 77):
        cases.check(emulated, cases.Case(*halves(dim, (1, 2, 37, keys, dim), dtype), None, True, 8))


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200])
@pytest.mark.parametrize("dim", [24, 136])
def test_tiles(emulated, tokens, dim):
    """Around the tiles of keys and the rows of warps and blocks, for small and large head dims."""
    for sizes in ((1, 1, tokens, 7, dim), (1, 1, 3, tokens, dim)):
        cases.check(
            emulated, cases.Case(*halves(tokens, sizes, HALVES[tokens % 2]), None, False, 0)
        )


def test_random_cases(emulated):
    taken = 0
    for seed in range(150):
        case = cases.make(seed, small=True)
        if takes(case):
            cases.check(emulated, case)
            taken += 1
    assert taken > 10


def test_blocks_of_eight_warps(emulated):
    cases.check(emulated, cases.Case(*halves(0, (1, 1, 1030, 70, 40), HALVES[0]), None, False, 0))


@pytest.mark.parametrize("scale", [-0.3, 0.0, 3.0])
def test_scales(emulated, scale):
    """Weights of equal keys at 0; the largest score is that of the smallest product below it."""
    for dim in (16, 200):
        case = cases.Case(*halves(1, (1, 2, 20, 70, dim), HALVES[1], 0.5), scale, False, 0)
        cases.check(emulated, case)


def test_rising_maxima(emulated):
    q, k, v = halves(2, (1, 1, 20, 300, 40), HALVES[0])
    k = k + (torch.linspace(0, 6, 300)[:, None] * q.float().mean(-2, keepdim=True)).to(k.dtype)
    cases.check(emulated, cases.Case(q, k, v, 0.5, False, 0))


def result(backend, q, k, v):
    return cases.run(backend, cases.Case(q, k, v, None, False, 0))


@pytest.mark.parametrize("dim", [40, 160])
def test_a_sample_alone_has_the_same_bits(emulated, dim):
    q, k, v = halves(3, (3, 2, 70, 67, dim), HALVES[0])
    want = result(emulated, q, k, v)
    assert torch.equal(result(emulated, q, k, v), want)
    for b in range(3):
        one = slice(b, b + 1)
        assert torch.equal(result(emulated, q[one], k[one], v[one]), want[one])


def test_nan_stays_in_its_row(emulated):
    q, k, v = halves(4, (1, 2, 37, 70, 40), HALVES[0])
    clean = result(emulated, q, k, v)
    q[0, 1, 5, 3] = torch.nan
    got = result(emulated, q, k, v)
    assert got[0, 1, 5].isnan().all()
    got[0, 1, 5] = clean[0, 1, 5]
    assert torch.equal(got, clean)


@pytest.fixture
def guarded():
    """Copies of tensors that end where a page that cannot be read begins."""
    import ctypes

    protect, kept = ctypes.CDLL(None, use_errno=True).mprotect, []

    def guard(tensor):
        page = mmap.PAGESIZE
        size = -(-tensor.nbytes // page) * page
        memory = mmap.mmap(-1, size + page)
        whole = torch.frombuffer(memory, dtype=tensor.dtype)
        kept.append(whole)
        end = ctypes.c_void_p(whole.data_ptr() + size)
        assert protect(end, ctypes.c_size_t(page), 0) == 0  # PROT_NONE
        first = (size - tensor.nbytes) // tensor.itemsize
        return whole[first : first + tensor.numel()].view(tensor.shape).copy_(tensor)

    return guard


@pytest.mark.parametrize("dim", [24, 64, 200])
def test_reads_nothing_past_the_end(emulated, guarded, dim):
    q, k, v = (guarded(t.contiguous()) for t in halves(5, (1, 1, 35, 67, dim), HALVES[1]))
    out = guarded(torch.empty_like(q))
    ON_HOST.bind(AttentionArgs(q, k, v, out))((q, k, v, out))
    assert torch.equal(out, result(emulated, q.clone(), k.clone(), v.clone()))


def test_refusals(cuda):
    p = cuda.AttentionParams()
    p.batch = p.heads = p.queries = p.keys = 1
    p.dim, p.dtype, p.scale = 12, 1, 1.0
    with pytest.raises(ValueError, match="a multiple of 8 up to 256, got 12"):
        cuda.attention_on_host(p, [0] * 4)
    p.dim, p.dtype = 16, 0
    with pytest.raises(ValueError, match="takes bfloat16 and float16; cast"):
        cuda.attention_on_host(p, [0] * 4)
    p.dtype = 1
    memory = torch.zeros(64, dtype=torch.bfloat16)
    p.at([(16, 16, 16)] * 4)
    with pytest.raises(ValueError, match="rows that start at multiples of 16 bytes"):
        cuda.attention_on_host(p, [memory.data_ptr() + 2] * 4)
    addresses = [memory.data_ptr()] * 4
    assert cuda.attention_workspace(p, addresses) == 0
    if not torch.cuda.is_available():
        with pytest.raises(
            RuntimeError, match=r"attention: CUDA refused the launch: .* nvidia-smi"
        ):
            cuda.attention(p, addresses, 0, 0, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("dim", range(8, 257, 8))
def test_head_dims_on_the_gpu(dim, dtype):
    for sizes in ((2, 3, 37, 77, dim), (1, 2, 1100, 1030, dim)):
        q, k, v = (t.cuda() for t in halves(dim, sizes, dtype))
        cases.check("cuda", cases.Case(q, k, v, None, True, 8))
        assert torch.equal(result("cuda", q, k, v)[:1], result("cuda", q[:1], k[:1], v[:1]))
