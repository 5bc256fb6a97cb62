"""On a GPU: captures that fail, other streams, threads, accelerated networks, torch's own attention."""

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate
from diffusion_engine.executors import GraphError
from diffusion_engine.ops.functional import attention, group_norm
from diffusion_engine.ops.registry import explain
from diffusion_engine.processes import VP
from diffusion_engine.zoo import load_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def digits():
    return load_network("digits", "cuda")


# Captures that fail


class Waits(nn.Module):
    """Waits for the device while it is captured, which no warm-up can see."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))
        self.waits = True

    def forward(self, x, label):
        if self.waits and torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return self.weight * x


def waiting(executor="graph"):
    module = Waits().cuda().eval()
    return module, Sampler(ScoreNetwork(module, VP(), (3, 8, 8)), "ddim", 3, executor=executor)


def test_a_spoilt_capture_leaves_torch_as_it_was(digits):
    other = Sampler(digits, "ddim", 3, executor="graph")
    want = other.sample(4, condition=1).samples
    module, made = waiting(other.executor)
    stream = torch.cuda.current_stream()
    for _ in range(2):
        with pytest.raises(GraphError, match="cannot be captured"):
            made.sample(2)
        torch.randn(4, device="cuda")
        torch.empty(8, pin_memory=True)
        assert torch.cuda.current_stream() == stream
        assert torch.equal(other.sample(4, condition=1).samples, want)
    module.waits = False
    assert made.sample(2).samples.isfinite().all()
    del made, other
    gc.collect()
    torch.cuda.empty_cache()
    torch.randn(4, device="cuda")


def test_graphs_of_others_draw_as_before_after_a_spoilt_capture():
    x, graph = torch.zeros(1000, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x.normal_()

    def drawn():
        torch.cuda.manual_seed(1)
        graph.replay()
        return x.clone(), torch.randn(1000, device="cuda")

    before = drawn()
    with pytest.raises(GraphError, match="cannot be captured"):
        waiting()[1].sample(2)
    assert all(map(torch.equal, drawn(), before))


OUT_OF_MEMORY = """
import gc
import torch
from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Graph, GraphError
from diffusion_engine.processes import VP

class Fills(torch.nn.Module):
    fills = True

    def forward(self, x, label):
        if self.fills and torch.cuda.is_current_stream_capturing():
            torch.empty(1 << 46, dtype=torch.uint8, device="cuda")
        return 0.5 * x

def sampler(executor):
    network = ScoreNetwork(Fills().eval(), VP(), (3, 8, 8))
    return Sampler(network, "ddim", 3, device="cuda", executor=executor)

for shared in (False, True):
    executor = Graph()
    kept = sampler(executor)
    kept.network.module.fills = False
    want = kept.sample(2).samples
    made = sampler(executor if shared else Graph())
    for _ in range(2):
        try:
            made.sample(2)
        except GraphError as error:
            assert "ran out of memory" in str(error), error
        else:
            raise AssertionError("it was captured")
    made.network.module.fills = False
    assert torch.equal(made.sample(2).samples, want)
    del made
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.equal(kept.sample(2).samples, want)
    torch.randn(2, device="cuda")
    del kept, executor
    gc.collect()
print("done")
"""


def test_out_of_memory_in_a_capture():
    """In a process of its own, which a wrong count of the pool would end."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.strip() == "done", done.stderr


# Streams


@pytest.mark.parametrize("executor", ["eager", "graph"])
def test_a_sampler_on_another_stream(digits, executor):
    made = Sampler(digits, "dpmpp_2m_sde", 4, executor=executor, guidance=2.0)
    want = made.sample(4, condition=[1, 2, 3, 4]).samples
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)
        got = made.sample(4, condition=[1, 2, 3, 4]).samples
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(got, want)


OPS = {
    "group_norm": lambda x, backend: group_norm(x, 8, silu=True, backend=backend),
    "attention": lambda x, backend: attention(
        *[x.flatten(2).view(2, 8, -1, 64)] * 3, backend=backend
    ),
}


@pytest.mark.parametrize(
    "op, backend",
    [(op, name) for op in OPS for name in ("cuda", "triton")] + [("attention", "sdpa")],
)
def test_ops_run_on_the_current_stream(op, backend):
    """Behind what the stream does first, which is to make their input."""
    ready = torch.randn(2, 64, 32, 32, device="cuda", dtype=torch.bfloat16)
    want, x = OPS[op](ready, backend), torch.zeros_like(ready)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        x.copy_(ready)
        got = OPS[op](x, backend)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(got, want)


# Threads


def in_threads(works, times):
    """Every work in a thread of its own, so many times; what differs from its first, serial result."""
    wanted, wrong = [work() for work in works], []

    def run(work, want):
        try:
            wrong.extend(i for i in range(times) if not torch.equal(work(), want))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(works, wanted, strict=True)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return wrong


@pytest.mark.parametrize("backend", ["cuda", "triton", "sdpa"])
def test_ops_in_four_threads(backend):
    def work(op, seed):
        made = torch.Generator("cuda").manual_seed(seed)
        x = torch.randn(2, 64, 32, 32, device="cuda", dtype=torch.bfloat16, generator=made)
        return lambda: OPS[op](x, backend)

    ops = ["attention"] if backend == "sdpa" else list(OPS)
    assert in_threads([work(ops[i % len(ops)], i) for i in range(4)], 500) == []


@pytest.mark.parametrize("executor", ["eager", "graph"])
def test_accelerated_samplers_in_four_threads(digits, executor):
    """Of one sampler, whose calls a graph executor takes in turn."""
    made = Sampler(digits, "dpmpp_2m_sde", 3, executor=executor, accelerate=True)

    def work(seed):
        return lambda: made.sample(4, seed=seed, condition=[1, 2, 3, 4]).samples

    assert in_threads([work(seed) for seed in range(4)], 25) == []


# Accelerated networks


def test_an_accelerated_network(digits):
    """Near the original, and captured with the bits that it has eagerly."""
    plain = Sampler(digits, "ddim", 4).sample(8, condition=list(range(8))).samples
    fused = Sampler(digits, "ddim", 4, accelerate=True)
    want = fused.sample(8, condition=list(range(8))).samples
    assert (want - plain).abs().max() < 2e-2 * plain.abs().max()
    graph = Sampler(fused.network, "ddim", 4, executor="graph")
    for _ in range(2):
        assert torch.equal(graph.sample(8, condition=list(range(8))).samples, want)


class Block(nn.Module):
    """Layers of every kind that has a fused form on a GPU."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
        self.norm, self.act = nn.GroupNorm(8, 64), nn.SiLU()
        self.qkv, self.out = nn.Linear(64, 192), nn.Conv2d(64, 3, 1)

    def forward(self, x, label):
        h = self.act(self.norm(self.conv(x)))
        q, k, v = self.qkv(h.flatten(2).mT).unflatten(2, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(h + y.transpose(1, 2).flatten(2).mT.view_as(h))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 16])
def test_places_of_a_network_agree(dtype, batch):
    """accelerate() holds each against the original and raises where they do not agree."""
    torch.manual_seed(0)
    module = Block().cuda().to(dtype).eval()
    x, label = torch.randn(batch, 3, 32, 32, device="cuda", dtype=dtype), torch.zeros(batch)
    with torch.no_grad():
        want = module(x, label)
        handle = accelerate(module, x, label)
        error = (module(x, label) - want).abs().max() / want.abs().max()
    assert (
        error <= 8 * torch.finfo(torch.bfloat16 if dtype == torch.bfloat16 else torch.float16).eps
    )
    refused = [reason for _, reason in handle.refused.values() if reason.startswith("differs")]
    assert not refused


# torch's attention


def test_attention_is_torchs_first():
    assert explain("attention", "cuda:0")[0] == ("sdpa", None)


@pytest.mark.parametrize("dim", [40, 64, 72, 128])
@pytest.mark.parametrize("tokens", [77, 1024])
def test_sdpa_gives_the_same_bits_twice(dim, tokens):
    q, k, v = torch.randn(3, 2, tokens, 8, dim, device="cuda", dtype=torch.bfloat16).transpose(2, 3)
    want = attention(q, k, v, backend="sdpa")
    assert want.transpose(1, 2).is_contiguous()
    assert all(torch.equal(attention(q, k, v), want) for _ in range(20))
    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        kept.append(attention(q, k, v))
    graph.replay()
    assert torch.equal(kept[0], want)
