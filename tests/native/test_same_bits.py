"""What a recording must not do: find more to fuse in a call of one entry, or read what is not there."""

import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork, _cpu
from diffusion_engine.native import Native, NativeError, reference
from diffusion_engine.native.program import Program
from diffusion_engine.native.record import Graph
from diffusion_engine.native.weights import Weights
from diffusion_engine.processes import VP


class Module(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.parts = function, nn.ModuleDict(parts)

    def forward(self, x, t=None):
        return self.function(self.parts, x[0] if isinstance(x, list) else x, t)


def held(function, shape, **parts):
    """A module's outputs against those of its operations in torch and in C++, at three sizes."""
    module = Module(function, **parts).eval()
    graph, weights = Graph(module, [torch.randn(2, *shape)]), Weights()
    for batch in (1, 2, 3):
        x = torch.randn(batch, *shape)
        recorded = graph.at(batch, {}, {})
        made = Program(recorded, _cpu.Pool(1), weights)
        with torch.no_grad():
            want = module([x])
        for got in (reference.run(recorded, [x])[0], made([x])[0]):
            assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)


def conv(*given, **how):
    return nn.Conv2d(*given, **how)


CASES = {
    "padded above": lambda m, x, t: m["b"](F.pad(m["a"](x), (1, 0, 1, 0))),
    "padded below": lambda m, x, t: m["c"](F.pad(m["a"](x), (0, 1, 0, 1))),
    "part of what was padded": lambda m, x, t: m["c"](F.pad(m["a"](x), (1, 0, 1, 0))[:, :, :-2]),
    "other pixels of what was repeated": lambda m, x, t: m["c"](
        F.interpolate(m["a"](x), scale_factor=2.0).reshape(len(x), 8, 56, 14)
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_reads_what_it_says(case):
    parts = {"a": conv(8, 8, 1), "b": conv(8, 8, 3), "c": conv(8, 8, 3, padding=1)}
    held(CASES[case], (8, 14, 14), **parts)


@pytest.mark.parametrize("padding", [1, 3])
def test_transposed_convolutions_of_any_padding(padding):
    layer = nn.ConvTranspose2d(8, 8, 5, stride=2, padding=padding)
    held(lambda m, x, t: m["up"](m["a"](x)), (8, 6, 6), a=conv(8, 8, 1), up=layer)


def test_linear_layers_that_share_a_weight():
    def function(m, x, t):
        w = m["a"].weight
        one = F.linear(x, w, m["a"].bias) + F.linear(x, w, m["b"].bias)
        y = x * 2
        return one + F.linear(y, w) + y @ w + F.linear(y, w[:5]).sum(-1, keepdim=True)

    held(function, (4, 8), a=nn.Linear(8, 8), b=nn.Linear(8, 8))


def test_a_product_with_ones_may_be_wider():
    held(lambda m, x, t: x[:, :1] * torch.ones(3), (3,))


def frames(m, x, t):
    """A norm of B x T pictures, whose scale is one for each sample and channel."""
    b = x.shape[0] // 3
    y = m["norm"](m["a"](x.flatten(0, 1))).unflatten(0, (-1, 3))
    scale = m["film"](x.mean((1, 3, 4)))[:, None, :, None, None]
    return y * (1 + scale) + scale if b >= 0 else y


def sequence_first(m, x, t):
    y = m["lin"](x.movedim(1, 0))  # [N, B, C]
    return F.gelu(y + m["emb"](x.mean(1))).movedim(0, 1)


@pytest.mark.parametrize(
    ("function", "shape", "parts"),
    [
        (frames, (3, 8, 4, 4), {"a": conv(8, 8, 1), "norm": nn.GroupNorm(2, 8), "film": nn.Linear(8, 8)}),
        (sequence_first, (5, 8), {"lin": nn.Linear(8, 8), "emb": nn.Linear(8, 8)}),
    ],
    ids=["frames", "sequence first"],
)  # fmt: skip
def test_a_sample_is_the_same_alone_where_a_size_of_one_would_fuse_more(function, shape, parts):
    network = ScoreNetwork(Module(function, **parts).eval(), VP(), shape)
    sampler = Sampler(network, "ddim", 3, executor="native")
    alone = sampler.sample(seeds=[3]).samples
    assert torch.equal(alone, sampler.sample(seeds=[3, 4, 5, 6]).samples[:1])


def test_a_network_that_does_something_else_at_another_size_is_refused_there():
    module = Module(lambda m, x, t: x * 0.5 if x.shape[0] < 8 else x - 0.1)
    sampler = Sampler(ScoreNetwork(module, VP(), (1, 4, 4)), "ddim", 2, executor="native")
    sampler.sample(4)
    with pytest.raises(NativeError, match="something else in a call of 8 entries"):
        sampler.sample(8)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda m, x, t: m["a"](torch.cat([x, x[:, :0]], 1)), None),
        (lambda m, x, t: x + x[:, :0].sum(1, keepdim=True), "elements"),
        (lambda m, x, t: x.to(torch.bfloat16).float(), None),
        (lambda m, x, t: x.view(torch.int32).view(torch.float32), None),
    ],
)
def test_odd_tensors_are_recorded_or_refused(function, said):
    module = Module(function, a=nn.Linear(8, 8)).eval()
    sampler = Sampler(ScoreNetwork(module, VP(), (3, 8)), "ddim", 2, executor="native")
    if said is None:
        assert sampler.sample(2).samples.shape == (2, 3, 8)
        return
    with pytest.raises(NativeError, match=said):
        sampler.sample(2)


def test_a_program_with_a_call_of_torch_is_let_go_of():
    graph = Graph(Module(lambda m, x, t: x.cumsum(-1)), [torch.randn(2, 4)])
    program = Program(graph.at(2, {}, {}), _cpu.Pool(1), Weights())
    assert program.called
    gone = weakref.ref(program)
    del program
    gc.collect()
    assert gone() is None


def test_a_network_is_recorded_while_another_with_a_call_of_torch_runs():
    """The one has the threads and waits for the interpreter, which the other must not keep meanwhile."""
    shared = Native(threads=2)
    first = Module(lambda m, x, t: m["a"](x).cumsum(-1), a=nn.Linear(64, 64)).eval()
    runs = Sampler(ScoreNetwork(first, VP(), (64, 64)), "ddim", 60, executor=shared)
    runs.sample(2)
    going = threading.Thread(target=lambda: [runs.sample(2) for _ in range(5)], daemon=True)
    going.start()
    for size in (8, 16, 24):
        layer = nn.Conv2d(size, size, 3, padding=1)
        other = ScoreNetwork(
            Module(lambda m, x, t: m["a"](x), a=layer).eval(), VP(), (size, 32, 32)
        )
        Sampler(other, "ddim", 2, executor=shared).sample(1)
    going.join(60)
    assert not going.is_alive()
