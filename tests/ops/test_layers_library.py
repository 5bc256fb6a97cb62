"""group_norm, attention and conv3x3 as torch operators: opcheck, torch.compile and torch.export."""

import pytest
import torch

from diffusion_engine.ops.conv3x3 import pack
from diffusion_engine.ops.functional import add_group_norm, attention, conv3x3, group_norm
from diffusion_engine.ops.library import register

register()
OPS = torch.ops.diffusion_engine


def images(last, dtype=torch.float32):
    torch.manual_seed(0)
    x, residual = torch.randn(2, 2, 6, 5, 3, dtype=dtype)
    if last:
        x, residual = (t.to(memory_format=torch.channels_last) for t in (x, residual))
    return x, residual


CALLS = {
    "plain": lambda x, r: (OPS.group_norm.default, (x, 3)),
    "affine": lambda x, r: (OPS.group_norm.default, (x, 2, torch.randn(6), torch.randn(6), 1e-3)),
    "full": lambda x, r: (
        OPS.group_norm.default,
        (x, 2),
        {"silu": True, "scale": torch.randn(2, 6), "shift": torch.randn(2, 6), "residual": r},
    ),
    "add": lambda x, r: (OPS.add_group_norm.default, (x, r, 3), {"silu": True}),
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("call", CALLS)
def test_opcheck_group_norm(call, last):
    op, args, *kwargs = CALLS[call](*images(last))
    torch.library.opcheck(op, args, *kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first", [False, True], ids=["tokens", "heads"])
def test_opcheck_attention(first, dtype):
    torch.manual_seed(0)
    q = torch.randn(2, 3, 7, 16, dtype=dtype)
    k, v = torch.randn(2, 2, 3, 5, 16, dtype=dtype)
    given = (
        (q, k, v)
        if first
        else tuple(t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    )
    torch.library.opcheck(OPS.attention.default, given)
    torch.library.opcheck(OPS.attention.default, (*given, 0.3))


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_opcheck_conv3x3(last):
    x, residual = images(last)
    weight, bias = torch.randn(6, 6, 3, 3), torch.randn(6)
    packed = pack(weight, 2)
    torch.library.opcheck(OPS.conv3x3.default, (x, weight, packed))
    torch.library.opcheck(OPS.conv3x3.default, (x, weight, packed, bias, residual))
    compiled = torch.compile(OPS.conv3x3, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, weight, packed, bias), conv3x3(x, weight, packed, bias))


class Layers(torch.nn.Module):
    def forward(self, x, r):
        y, total = OPS.add_group_norm(x, r, 3, silu=True)
        h = OPS.group_norm(y, 2, scale=total.mean((2, 3)), shift=total.amax((2, 3)))
        tokens = h.flatten(2).mT.unflatten(2, (1, 6)).transpose(1, 2).repeat(1, 1, 1, 2)
        return OPS.attention(tokens, tokens, tokens) + total.sum()


def by_hand(x, r):
    y, total = add_group_norm(x, r, 3, silu=True)
    h = group_norm(y, 2, scale=total.mean((2, 3)), shift=total.amax((2, 3)))
    tokens = h.flatten(2).mT.unflatten(2, (1, 6)).transpose(1, 2).repeat(1, 1, 1, 2)
    return attention(tokens, tokens, tokens) + total.sum()


def test_compiled_without_a_break():
    given = images(True)
    compiled = torch.compile(Layers(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), by_hand(*given))


def test_exported():
    given = images(False)
    program = torch.export.export(Layers(), given)
    named = {str(node.target) for node in program.graph.nodes}
    assert "diffusion_engine.attention.default" in named
    torch.testing.assert_close(program.module()(*given), by_hand(*given))


def test_a_wrong_call_fails_when_traced():
    """Shapes are checked by the fake as well: not first on a GPU hours later."""
    with pytest.raises(Exception, match="groups=4 does not divide the 6 channels"):
        torch.compile(lambda x: OPS.group_norm(x, 4), fullgraph=True, backend="aot_eager")(
            images(False)[0]
        )
