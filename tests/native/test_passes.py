"""Passes over operations: fewer of them, the same values."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion_engine.native import operations as ops
from diffusion_engine.native import reference
from diffusion_engine.native.arena import plan
from diffusion_engine.native.record import Graph

BATCH = 3


class Listed(nn.Module):
    """A function of tensors, as a module of a list of them."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleDict(parts)

    def forward(self, tensors):
        return self.function(self.parts, *tensors)


def recorded(function, *shapes, **parts):
    """The operations of a call, after a check that torch makes the same of them as the function."""
    torch.manual_seed(0)
    module = Listed(function, **parts).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    graph = Graph(module, [torch.randn(2, *shape) for shape in shapes])
    given = [torch.randn(BATCH, *shape) for shape in shapes]
    found = graph.at(BATCH, {}, {})
    (got,) = reference.run(found, given)
    with torch.no_grad():
        want = module(given)
    assert got.shape == want.shape
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)
    return found


def kinds(found):
    return [
        type(operation).__name__ for operation in found.operations if not _input(operation, found)
    ]


def _input(operation, found):
    """A picture comes with its pixels together, and is put channels last first."""
    inputs = {value.buffer for value in found.inputs}
    return isinstance(operation, ops.Copy) and operation.x.buffer in inputs


PICTURE = (8, 6, 4)


def test_what_follows_a_convolution_is_a_part_of_it():
    def function(m, x, emb, residual):
        y = m["conv"](x) + m["time"](emb)[:, :, None, None]
        return F.silu(y) + F.silu(m["skip"](residual))

    found = recorded(
        function, PICTURE, (5,), PICTURE,
        conv=nn.Conv2d(8, 8, 3, padding=1), time=nn.Linear(5, 8), skip=nn.Conv2d(8, 8, 1),
    )  # fmt: skip
    assert sorted(kinds(found)) == ["Conv", "Conv", "Linear"]
    last = found.operations[-1]
    assert isinstance(last, ops.Conv) and last.epilogue.activation == "silu"
    assert last.epilogue.residual is not None and last.epilogue.shift is None


def test_an_activation_after_a_residual_stays():
    """gate * activation(sum) + residual has no place for it."""
    found = recorded(lambda m, x: F.silu(m["a"](x) + x) * 2, (7, 8), a=nn.Linear(8, 8))
    assert kinds(found) == ["Linear", "Map"]


def test_adaptive_norms():
    def function(m, x, emb):
        shift, scale, gate = m["ada"](emb)[:, None].chunk(3, dim=-1)
        return x + gate * m["out"](F.layer_norm(x, (8,)) * (1 + scale) + shift)

    found = recorded(function, (7, 8), (5,), ada=nn.Linear(5, 24), out=nn.Linear(8, 8))
    assert kinds(found) == ["Linear", "Map", "LayerNorm", "Linear"]
    norm, out = found.operations[-2:]
    assert norm.factor is not None and norm.shift is not None
    assert out.epilogue.gate is not None and out.epilogue.residual is not None


def test_a_norm_of_a_picture_with_its_followers():
    def function(m, x, emb):
        scale, shift = m["film"](emb)[:, :, None, None].chunk(2, dim=1)
        return F.silu(torch.addcmul(shift, m["norm"](m["conv"](x)), 1 + scale))

    found = recorded(
        function, PICTURE, (5,),
        conv=nn.Conv2d(8, 8, 1), norm=nn.GroupNorm(2, 8), film=nn.Linear(5, 16),
    )  # fmt: skip
    assert sorted(kinds(found)) == ["Conv", "GroupNorm", "Linear", "Map"]
    assert found.operations[-1].activation == "silu"


@pytest.mark.parametrize("dim", [1, 2])
def test_parts_of_a_concatenation_are_made_in_place(dim):
    def function(m, x):
        a, b = m["a"](x), m["b"](x)
        return m["c"](torch.cat([a, b, a], dim)) if dim == 1 else torch.cat([a, b], dim) * 2

    found = recorded(
        function, PICTURE, a=nn.Conv2d(8, 8, 1), b=nn.Conv2d(8, 8, 1), c=nn.Conv2d(24, 4, 1)
    )
    # What comes twice is copied once.
    assert kinds(found) == (
        ["Conv", "Conv", "Copy", "Conv"] if dim == 1 else ["Conv", "Conv", "Map"]
    )


def test_a_part_that_an_output_shows_is_copied():
    found = recorded(
        lambda m, x: m["c"](torch.cat([x, m["a"](x)], 1)), PICTURE,
        a=nn.Conv2d(8, 8, 1), c=nn.Conv2d(16, 8, 1),
    )  # fmt: skip
    assert kinds(found).count("Conv") == 2


def test_padding_and_repeated_pixels_belong_to_the_convolution():
    def function(m, x):
        y = m["down"](F.pad(m["in"](x), (0, 1, 0, 1)))
        return m["up"](F.interpolate(y, scale_factor=2.0))

    found = recorded(
        function,
        PICTURE,
        down=nn.Conv2d(8, 8, 3, stride=2),
        up=nn.Conv2d(8, 8, 3, padding=1),
        **{"in": nn.Conv2d(8, 8, 1)},
    )
    assert kinds(found) == ["Conv", "Conv", "Conv"]
    assert [op.upsample for op in found.operations if isinstance(op, ops.Conv)] == [1, 1, 2]


def test_linear_layers_of_the_same_rows_are_one():
    def function(m, x):
        q, k, v = (m[name](x).unflatten(-1, (2, 4)).transpose(1, 2) for name in "qkv")
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    found = recorded(
        function, (7, 8),
        q=nn.Linear(8, 8, bias=False), k=nn.Linear(8, 8), v=nn.Linear(8, 8),
    )  # fmt: skip
    assert kinds(found) == ["Linear", "Attention"]
    assert found.operations[0].weight.shape == (24, 8)


def test_chains_of_functions_are_one():
    found = recorded(
        lambda m, x, y: torch.sin(x.exp() * y) + (x - 2) / (y.abs() + 1), (5, 4), (5, 4)
    )
    assert kinds(found) == ["Map"]


def test_what_is_made_once_and_what_nobody_reads():
    def function(m, x):
        m["a"](x)
        return F.silu(m["b"](x)) + F.silu(m["b"](x))

    found = recorded(function, (5, 4), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    assert kinds(found) == ["Linear", "Map"]


def test_buffers_that_live_at_different_times_share_memory():
    def function(m, x):
        for _ in range(6):
            x = torch.tanh(m["a"](x).flip(1))  # flip is torch's, and tanh no activation
        return x

    found = recorded(function, (16, 4), a=nn.Linear(4, 4))
    places, size = plan(found.operations, found.inputs, found.outputs)
    alone = sum(-(-buffer.bytes // 64) * 64 for buffer in places)
    assert size <= alone / 4
    assert all(place % 64 == 0 for place in places.values())
