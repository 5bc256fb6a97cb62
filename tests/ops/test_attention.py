"""Attention on every backend against its definition in float64, on random sizes and layouts."""

import attention_cases as cases
import pytest
import torch
from dispatched import Operations
from memory import before_a_wall
from torch.nn.attention import SDPBackend

from diffusion_engine.ops.attention import AttentionArgs
from diffusion_engine.ops.functional import attention
from diffusion_engine.ops.registry import objection, resolve
from diffusion_engine.ops.table import PREFERENCE


def inputs(batch, heads, queries, keys, dim, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, heads, n, dim, generator=generator).to(dtype)
        for n in (queries, keys, keys)
    ]


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_cpp_is_accurate(isa, first):
    for seed in range(first, first + 25):
        cases.check("cpp", cases.make(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_cpp_is_accurate_on_many_cases(isa, first):
    for seed in range(first, first + 100):
        cases.check("cpp", cases.make(seed))


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_triton_is_accurate(first):
    for seed in range(first, first + 10):
        cases.check("triton", cases.make(seed, small=True))


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_sdpa_is_accurate(first):
    """Torch's own kernels for the CPU, on those cases that they take."""
    taken = 0
    for seed in range(first, first + 20):
        case = cases.make(seed, small=True)
        if objection("attention", "sdpa", cases.args_of(case)[0]) is None:
            cases.check("sdpa", case)
            taken += 1
    assert taken > 5


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton", "sdpa"])
@pytest.mark.parametrize("first", range(0, 400, 50))
def test_gpu_is_accurate(backend, first):
    """On those cases that the backend takes."""
    taken = 0
    for seed in range(first, first + 50):
        case = cases.make(seed, device="cuda")
        if objection("attention", backend, cases.args_of(case)[0]) is None:
            cases.check(backend, case)
            taken += 1
    assert taken > 5


@pytest.mark.parametrize("keys", [1, 63, 64, 65, 128, 129, 1031, 5000])
def test_blocks_of_keys(isa, keys):
    q, k, v = inputs(1, 1, 35, keys, 24, seed=keys)
    cases.check("cpp", cases.Case(q, k, v, None, True, 0))


@pytest.mark.parametrize("queries", [1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 515])
def test_panels_of_queries(isa, queries):
    q, k, v = inputs(1, 2, queries, 50, 13, seed=queries)
    cases.check("cpp", cases.Case(q, k, v, None, False, 0))


@pytest.mark.parametrize("dim", [8, 13, 40])
def test_rising_maxima(isa, dim):
    """Every block's scores exceed the last one's: all sums so far are scaled down."""
    q, k, v = inputs(1, 2, 20, 700, dim, seed=dim)
    k += torch.linspace(0, 6, 700)[:, None] * q.mean(-2, keepdim=True)
    cases.check("cpp", cases.Case(q, k, v, 0.5, True, 0))


def test_large_scores_do_not_overflow(isa):
    q, k, v = inputs(1, 2, 33, 300, 40)
    got = attention(q * 60, k * 60, v, backend="cpp")
    scores = 3600 * q.double() @ k.double().mT / 40**0.5
    assert scores.abs().max() > 1e4
    # So far apart, the largest score takes all where the next one is 20 away.
    best = scores.topk(2).values
    clear = best[..., 0] - best[..., 1] > 20
    want = v.gather(2, scores.argmax(-1, keepdim=True).expand(-1, -1, -1, 40))
    assert clear.float().mean() > 0.5
    assert torch.allclose(got[clear], want[clear], rtol=1e-6, atol=1e-6)
    assert got.isfinite().all()


@pytest.mark.parametrize("payload", [0x7FC00000, 0x7FC00001, 0x7FFFFFFF, -1])
def test_nan_stays_in_its_row(isa, payload):
    q, k, v = inputs(2, 2, 37, 150, 16)
    clean = attention(q, k, v, backend="cpp")
    q.view(torch.int32)[1, 0, 5, 3] = payload
    got = attention(q, k, v, backend="cpp")
    assert got[1, 0, 5].isnan().all()
    got[1, 0, 5] = clean[1, 0, 5]
    assert torch.equal(got, clean)


def test_nan_of_a_key_stays_in_its_head(isa):
    q, k, v = inputs(2, 2, 37, 150, 16)
    clean = attention(q, k, v, backend="cpp")
    k[1, 0, 149, 3] = torch.nan
    got = attention(q, k, v, backend="cpp")
    assert got[1, 0].isnan().all()
    got[1, 0] = clean[1, 0]
    assert torch.equal(got, clean)


SIZES = [(5, 3, 129, 300, 40), (3, 1, 256, 256, 256), (4, 2, 67, 77, 13), (2, 4, 1, 64, 8)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_alone_and_on_any_threads(sizes, dtype):
    q, k, v = inputs(*sizes, dtype)
    want = attention(q, k, v, backend="cpp")
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        assert torch.equal(attention(q, k, v, backend="cpp"), want)
        for b in range(sizes[0]):
            alone = attention(q[b : b + 1], k[b : b + 1], v[b : b + 1], backend="cpp")
            assert torch.equal(alone[0], want[b])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [8, 13, 24])
@pytest.mark.parametrize("queries", [1, 7, 15, 23])
def test_nothing_is_read_beyond_the_tensors(isa, dtype, dim, queries):
    """An error here ends the process."""
    tensors = inputs(1, 1, queries, 5, dim, dtype)
    q, k, v = (before_a_wall(t) for t in tensors)
    out = before_a_wall(torch.empty_like(q))
    resolve("attention", "cpp", args := AttentionArgs(q, k, v, out))(args.tensors())
    assert torch.equal(out, attention(*tensors, backend="cpp"))


def test_scratch_grows_and_stays_right():
    """It is kept between calls, which may need more than the last one."""
    for dim in (8, 256, 9, 200):
        cases.check("cpp", cases.Case(*inputs(1, 2, 40, 60, dim), None, True, 0))


def test_the_result_lies_as_the_next_layer_reads_it():
    q, k, v = inputs(2, 3, 5, 7, 8)
    out = attention(q, k, v, backend="cpp")
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("heads_first", [False, True])
def test_the_result_of_sdpa_is_not_copied(heads_first):
    """It lies as ours does. Only where torch leaves it otherwise is there a copy."""
    q, k, v = inputs(2, 3, 21, 7, 16)
    if not heads_first:
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    with Operations() as seen:
        out = attention(q, k, v, backend="sdpa")
    assert out.transpose(1, 2).is_contiguous()
    assert ("clone" in seen.names) == heads_first and "copy_" not in seen.names
    torch.testing.assert_close(out, attention(q, k, v, backend="torch"))


def test_sdpa_has_no_derivative_either():
    q, k, v = (t.requires_grad_() for t in inputs(1, 2, 5, 7, 16))
    assert not attention(q, k, v, backend="sdpa").requires_grad


@pytest.mark.parametrize("kind", ["MATH", "EFFICIENT_ATTENTION"])
def test_ours_serve_where_no_fused_kernel_of_torch_does(monkeypatch, kind):
    """As on a GPU, whose list begins with sdpa."""
    monkeypatch.setitem(PREFERENCE, ("attention", "cpu"), ("sdpa", "cpp", "torch"))
    q, k, v = inputs(1, 2, 22, 9, 24)
    assert torch.equal(attention(q, k, v), attention(q, k, v, backend="sdpa"))
    q, k, v = inputs(1, 2, 23, 9, 24)
    chosen = getattr(SDPBackend, kind).value
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *given, scale: chosen)
    assert torch.equal(attention(q, k, v), attention(q, k, v, backend="cpp"))
    with pytest.raises(ValueError, match=r"sdpa: neither cuDNN nor FlashAttention.*heads of 24"):
        attention(*inputs(1, 2, 25, 9, 24), backend="sdpa")


def test_objections_of_sdpa(monkeypatch):
    q = torch.zeros(1, 1, 2, 8)
    args = AttentionArgs(q, q, q, torch.empty_like(q), -0.1)
    assert "the scale is negative, -0.1" in objection("attention", "sdpa", args)

    def refuse(*given, scale):
        raise RuntimeError("No viable backend for scaled_dot_product_attention was found.\nmore")

    monkeypatch.setattr(torch, "_fused_sdp_choice", refuse)
    args = AttentionArgs(q, q, q, torch.empty_like(q))
    reason = objection("attention", "sdpa", args)
    assert reason.startswith("torch's attention is disabled (No viable backend")


def test_definition_by_hand():
    """ops/attention.py written out for one query."""
    q, k, v = (t.double() for t in inputs(1, 1, 1, 3, 8))
    s = [0.3 * sum(q[0, 0, 0, d] * k[0, 0, j, d] for d in range(8)) for j in range(3)]
    weights = torch.exp(torch.stack(s) - max(s))
    want = sum(w * v[0, 0, j] for j, w in enumerate(weights)) / weights.sum()
    got = cases.definition(cases.Case(q, k, v, 0.3, True, 0))
    assert torch.allclose(got[0, 0, 0], want, rtol=1e-14)


@pytest.mark.parametrize(
    ("shapes", "error", "sentence"),
    [
        (((1, 1, 2, 4),) * 3, ValueError, "head dim 4 is not between 8 and 256"),
        (((1, 1, 2, 300),) * 3, ValueError, "head dim 300 is not between 8 and 256"),
        (((1, 1, 2, 8), (1, 2, 2, 8), (1, 2, 2, 8)), ValueError, "differ in batch, heads or head"),
        (((1, 1, 2, 8), (1, 1, 2, 9), (1, 1, 2, 9)), ValueError, "differ in batch, heads or head"),
        (((1, 1, 2, 8), (1, 1, 2, 8), (1, 1, 3, 8)), ValueError, "attention needs q"),
        (((1, 1, 2, 8), (1, 1, 0, 8), (1, 1, 0, 8)), ValueError, "no elements"),
    ],
)
def test_shapes_that_do_not_go_together(shapes, error, sentence):
    with pytest.raises(error, match=sentence):
        attention(*(torch.zeros(shape) for shape in shapes))


def test_dtypes_that_do_not_go_together():
    q = torch.zeros(1, 1, 2, 8)
    with pytest.raises(TypeError, match=r"all float32, bfloat16 or float16, got torch\.int32"):
        attention(*[q.int()] * 3)
    with pytest.raises(TypeError, match="cast them to one"):
        attention(q, q.half(), q.half())


def test_objections_of_the_kernel():
    q = torch.zeros(1, 2, 16, 16)
    across = q.mT
    args = AttentionArgs(q, across, q, torch.empty_like(q))
    reason = objection("attention", "cpp", args)
    assert reason == "the head dim of k has stride 16; kernels need 1: make it contiguous"
    with pytest.raises(ValueError, match=r"backend='cpp' cannot run attention.*stride 16"):
        resolve("attention", "cpp", args)
    with pytest.raises(ValueError, match=r"cpp: the kernels of _cpu take float32.*torch\.float64"):
        attention(*[q.double()] * 3, backend="cpp")
    # Without a name the definition serves.
    assert torch.equal(attention(q, across, q), attention(q, across, q, backend="torch"))


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("name", ["q", "k", "v", "out"])
def test_every_tensor_of_a_kernel_has_its_head_dim_together(name, backend):
    given = dict.fromkeys(("q", "k", "v"), torch.zeros(1, 2, 16, 16)) | {
        "out": torch.ones(1, 2, 16, 16)
    }
    given[name] = given[name].mT
    reason = objection("attention", backend, AttentionArgs(**given))
    assert reason is not None and reason.startswith(f"the head dim of {name} has stride 16")


def test_many_keys_weigh_alike(isa):
    """16,384 keys, 256 blocks: were exp(0) not exactly 1, early blocks would weigh less than late ones."""
    q, k, v = torch.zeros(1, 1, 32, 40), torch.ones(1, 1, 16384, 40), torch.ones(1, 1, 16384, 40)
    v[:, :, 8192:] = -1.0
    assert (attention(q, k, v, backend="cpp") == 0.0).all()
