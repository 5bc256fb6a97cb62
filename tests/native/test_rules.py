"""Rules: what ATen operations become computes the same, without torch; what cannot be repeated is refused."""

import pytest
import torch
from small_networks.fate import assert_near
from torch import nn
from torch.nn import functional as F

from diffusion_engine import _cpu
from diffusion_engine.native import reference
from diffusion_engine.native.lower import Refused
from diffusion_engine.native.program import Program
from diffusion_engine.native.record import Graph
from diffusion_engine.native.weights import Weights


class Function(nn.Module):
    """A function of x and weights as a module that is called with a list."""

    def __init__(self, function, **tensors):
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, tensors):
        made = self.function(self, *tensors)
        return made if isinstance(made, tuple) else (made,)


def weights(*shapes):
    torch.manual_seed(1)
    return {f"w{i}": torch.randn(shape) for i, shape in enumerate(shapes)}


def x_of(batch, shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def turned(t, x, w):
    return torch.view_as_real(
        torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.view_as_complex(w)
    )


def interleaved(t, x):
    """As rotary embeddings write their result."""
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 1::2] * 2.0
    out[..., 1::2] = x[..., 0::2].cos()
    return out


def overwritten(t, x):
    y = x * 2.0
    y[:, 1:3] = x[:, :2]
    y[:, 0] = x[:, 3]
    return y.add_(1.0).mul_(x)


def attended(t, x):
    mask = x[:, :, 0] > 0
    mask = mask | torch.eye(5, dtype=torch.bool)[0]
    q = x.unsqueeze(1)
    return F.scaled_dot_product_attention(q, q, q, mask[:, None, None])


CASES = {
    "transposed": ((6, 5, 7), lambda t, x: (
        F.conv_transpose2d(x, t.w0, t.w1, stride=2, padding=1),
        F.conv_transpose2d(x, t.w0, stride=2),
        F.conv_transpose2d(x, t.w2, stride=(2, 1), padding=(1, 0), output_padding=(1, 0), groups=2),
        F.conv_transpose2d(x, t.w0, stride=3, padding=3),
        F.conv_transpose2d(x, t.w0, t.w1),
    ), ((6, 4, 4, 4), (4,), (6, 3, 3, 2))),
    "transposed 1-D": ((6, 9), lambda t, x: (
        F.conv_transpose1d(x, t.w0, t.w1, stride=2, padding=1),
        F.conv_transpose1d(x, t.w0, stride=4, padding=1, output_padding=2),
        F.conv_transpose1d(x, t.w0, stride=3, padding=3),
    ), ((6, 5, 4), (5,))),
    "volumes": ((4, 5, 6, 7), lambda t, x: (
        F.conv3d(x, t.w0, t.w1, padding=1),
        F.conv3d(x, t.w0, stride=2, padding=(1, 0, 1)),
        F.conv3d(x, t.w2, padding=(1, 0, 0)),
        F.conv3d(x, t.w3, stride=(1, 2, 2)),
        F.conv3d(x, t.w4, groups=2),
        F.conv3d(x, t.w2, dilation=(2, 1, 1)),
    ), ((3, 4, 3, 3, 3), (3,), (2, 4, 3, 1, 1), (5, 4, 1, 2, 2), (4, 2, 1, 3, 3))),
    "einsum": ((2, 3, 4, 5), lambda t, x: (
        torch.einsum("nhwpc->nchpw", x),
        torch.einsum("bhqd,bhkd->bhqk", x[:, 0], x[:, 1]),
        torch.einsum("bhqd,bhqe->bdhe", x[:, 0], x[:, 1]),
        torch.einsum("bct,bcs->bts", x[:, 0, 0], x[:, 1, 1]),
    ), ()),
    "sums": ((2, 3, 4, 5), lambda t, x: (
        x.mean(1), x.sum((1, 3)), x.mean(dim=(2, 3), keepdim=True), x.sum(-1), x.mean(2, keepdim=True),
        torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True), x.flatten(1).mean(1),
        x.transpose(0, 1).mean(0), x.mT.mean(1),
    ), ()),
    "pads": ((3, 6, 7), lambda t, x: (
        F.pad(x, (1, 2, 3, 0), mode="reflect"), F.pad(x[:, 0], (2, 1), mode="circular"),
        F.pad(x, (1, 1, 2, 2), mode="replicate"), F.pad(x, (0, 1, -1, 2), value=2.0),
    ), ()),
    "repeats": ((8, 4, 6), lambda t, x: (
        x.repeat_interleave(3, dim=0), x.repeat_interleave(2, dim=-1), F.pixel_shuffle(x, 2),
        F.pixel_unshuffle(x, 2), torch.concat([x, x * 2.0], dim=1), torch.stack([x, -x], dim=-1).flatten(-2),
    ), ()),
    "upsampling": ((3, 4, 6), lambda t, x: (
        F.interpolate(x, scale_factor=2.0), F.interpolate(x, scale_factor=(3.0, 1.0)),
        F.interpolate(x, size=(12, 6)), F.interpolate(x[:, 0], scale_factor=3.0),
    ), ()),
    "parts apart": ((5, 6), lambda t, x: (
        torch.stack([F.linear(x, t.w0), F.linear(x, t.w1)], dim=-1),
        torch.cat([F.linear(x, t.w0).unflatten(-1, (2, 4)), F.linear(x, t.w1).unflatten(-1, (2, 4))], dim=1),
    ), ((8, 6), (8, 6))),
    "complex numbers": ((3, 8), lambda t, x: turned(t, x, t.w0), ((3, 4, 2),)),
    "in place": ((4, 6), lambda t, x: (interleaved(t, x), overwritten(t, x)), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_rule_computes_the_same(name):
    shape, function, sizes = CASES[name]
    module, packed, kept = Function(function, **weights(*sizes)), Weights(), ({}, {})
    graph = Graph(module, [x_of(2, shape)])
    for batch in (1, 3):
        recorded, given = graph.at(batch, *kept), [x_of(batch, shape)]
        wanted = module(given)
        assert_near(reference.run(recorded, given), wanted)
        program = Program(recorded, _cpu.Pool(1), packed)
        assert not program.called
        assert_near(program(given), wanted)


RESIZED = {
    "one and a half": lambda x: F.interpolate(x, scale_factor=1.5),
    "a size": lambda x: F.interpolate(x, size=(5, 9)),
    "more than three times": lambda x: F.interpolate(
        x[..., :3], scale_factor=3.3
    ),  # 3 pixels are 9
    "more than twice": lambda x: F.interpolate(x.flatten(1, 2), scale_factor=2.1),  # 6 are 12
    "less": lambda x: F.interpolate(x, scale_factor=0.5),
    "another rule": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest-exact"),
}


@pytest.mark.parametrize("name", RESIZED)
def test_pictures_that_grow_by_no_whole_factor_are_made_by_torch(name):
    module, given = Function(lambda t, x: RESIZED[name](x)), [x_of(3, (2, 3, 6))]
    program = Program(Graph(module, [x_of(2, (2, 3, 6))]).at(3, {}, {}), _cpu.Pool(1), Weights())
    assert torch.equal(program(given)[0], module(given)[0])
    assert len(program.called) == 1


def test_a_mask_that_holds_or_not():
    module = Function(attended)
    graph = Graph(module, [x_of(2, (5, 4))])
    given = [x_of(3, (5, 4))]
    assert_near(reference.run(graph.at(3, {}, {}), given), module(given))


def counted(t, x):
    t.n.add_(1.0)
    return x * t.n


def decided(t, x):
    return x * 2.0 if x.sum() > 0 else x


REFUSED = {
    "draws": (lambda t, x: x + torch.randn_like(x), "it draws random numbers (randn_like)"),
    "draws a constant": (lambda t, x: x + torch.rand(4), "it draws random numbers (rand)"),
    "drops out": (lambda t, x: F.dropout(x, 0.5, True), "it draws random numbers (dropout)"),
    "counts": (counted, "its forward changes the buffer 'n'"),
    "changes its input": (lambda t, x: x.mul_(2.0), "its forward changes the input"),
    "decides": (decided, "what it calls depends on the numbers in a tensor"),
    "picks": (lambda t, x: x[x > 0].sum() + x, "what it calls depends on the numbers in a tensor"),
    "is stopped": (lambda t, x: x + eval("unknown"), "torch.export cannot take it: name 'unknown'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_repeated_is_refused(name):
    function, reason = REFUSED[name]
    with pytest.raises(Refused) as refused:
        Graph(Function(function, n=torch.zeros(())), [x_of(2, (4,))]).at(3, {}, {})
    assert reason in str(refused.value)


def test_a_size_of_the_batch_where_the_network_does_something_else_has_a_graph_of_its_own():
    module = Function(lambda t, x: x * 2.0 if x.shape[0] < 8 else x - 1.0)
    graph = Graph(module, [x_of(2, (4,))])
    for batch in (1, 3, 7, 8, 20, 3):
        given = [x_of(batch, (4,))]
        assert_near(reference.run(graph.at(batch, {}, {}), given), module(given))


def test_a_network_that_looks_at_its_batch_has_a_graph_of_each_size():
    module = Function(lambda t, x: x * sum(range(x.shape[0])))
    graph = Graph(module, [x_of(2, (4,))])
    for batch in (1, 2, 5, 12):
        given = [x_of(batch, (4,))]
        assert_near(reference.run(graph.at(batch, {}, {}), given), module(given))


def test_constants_are_made_once_for_all_sizes():
    module = Function(
        lambda t, x: F.conv_transpose1d(x, t.w0.cos(), stride=2), **weights((3, 3, 2))
    )
    graph, packed, kept = Graph(module, [x_of(2, (3, 4))]), Weights(), ({}, {})
    Program(graph.at(2, *kept), _cpu.Pool(1), packed)
    before = packed.bytes
    Program(graph.at(5, *kept), _cpu.Pool(1), packed)
    assert packed.bytes == before > 0


def test_constants_of_each_sample_have_the_bits_of_one():
    """Torch sums a product of few rows in another order than one of many."""

    def function(t, x):
        return x + F.linear(t.w0.cos().repeat(x.shape[0], 1), t.w1)

    graph = Graph(Function(function, **weights((1, 65), (33, 65))), [x_of(2, (33,))])
    alone, beside = (
        reference.run(graph.at(batch, {}, {}), [torch.zeros(batch, 33)])[0] for batch in (1, 19)
    )
    assert torch.equal(alone.expand(19, -1), beside)
