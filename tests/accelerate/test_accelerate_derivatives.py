"""Derivatives of an accelerated network: the original's wherever anything wants one."""

import copy

import accelerate_cases as cases
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from diffusion_engine.accelerate import accelerate, accelerated
from diffusion_engine.accelerate.attention import FusedMultiheadAttention
from diffusion_engine.accelerate.group_norm import FusedGroupNorm

choose_fused, net, example = cases.choose_fused, cases.net, cases.example


def gradients(net, *given, wanted=lambda name: True):
    """By name; None of a parameter that got none."""
    for name, p in net.named_parameters():
        p.requires_grad_(wanted(name))
        p.grad = None
    net(*given).square().mean().backward()
    return {name: p.grad for name, p in net.named_parameters()}


def same(got, want):
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        if gradient is None:
            assert got[name] is None, name
        else:
            torch.testing.assert_close(got[name], gradient, msg=name)


WANTED = {
    "all": lambda name: True,
    "norms": lambda name: "norm" in name or name.startswith("head.0"),
    "one bias": lambda name: name == "block.norm2.bias",
    "tokens": lambda name: name.startswith("tokens"),
    "stem": lambda name: name.startswith("stem"),
}


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_parameters_that_want_gradients(net, example, wanted):
    want = gradients(net, *example, wanted=wanted)
    accelerate(net, *example)
    same(gradients(net, *example, wanted=wanted), want)


class Output(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *given):
        return self.module(*given).sample


def test_diffusers(example):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    torch.manual_seed(0)
    net = Output(
        diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ).eval()
    ).eval()  # fmt: skip
    given = torch.randn(2, 3, 8, 8), torch.tensor(7)
    want = gradients(net, *given)
    accelerate(net, *given)
    got = gradients(net, *given)
    same(got, want)
    assert all(gradient is not None for gradient in got.values())


def test_inputs_that_want_gradients():
    """Of any tensor of a place, not of the first alone."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 2, batch_first=True).eval().requires_grad_(False)
    replacement = FusedMultiheadAttention("attention", layer)
    q, k, v = (torch.randn(2, 5, 16) for _ in range(3))
    for wanting in (q, k, v):
        wanting.requires_grad_(True)
        out, _ = replacement.forward(q, k, v, need_weights=False)
        assert out.requires_grad
        wanting.requires_grad_(False)
    assert not replacement.forward(q, k, v, need_weights=False)[0].requires_grad


def test_frozen_networks_stay_fused(net, example, monkeypatch):
    net.requires_grad_(False)
    done = accelerate(net, *example)
    for one in done.replacements:
        monkeypatch.setattr(one, "original", lambda *_, **__: pytest.fail("not fused"))
    head = next(one for one in done.replacements if one.name == "head.0")
    head.forward(torch.randn(2, 16, 4, 4))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(net, example, reentrant):
    x, t = example

    def gradient(net):
        given = x.clone().requires_grad_(True)
        checkpoint(net, given, t, use_reentrant=reentrant).square().mean().backward()
        return {"x": given.grad} | {name: p.grad for name, p in net.named_parameters()}

    want = gradient(copy.deepcopy(net))
    accelerate(net, x, t)
    same(gradient(net), want)


def test_transforms(net, example):
    x, t = example
    plain = copy.deepcopy(net)
    accelerate(net, x, t)
    weights = {name: 1.1 * p.detach() for name, p in net.named_parameters()}

    def loss(module):
        def of(weights, x):
            out = torch.func.functional_call(module, weights, (x[None], t[:1]))
            return out.square().mean()

        return of

    each = [
        torch.func.vmap(torch.func.grad(loss(module)), in_dims=(None, 0))(weights, x)
        for module in (net, plain)
    ]
    same(*each)
    assert accelerated(net) is not None


def test_dual_numbers():
    """Forward derivatives outside of torch.func, where no gradient is asked for."""
    replacement = FusedGroupNorm("norm", nn.GroupNorm(2, 4).eval())
    x, tangent = torch.randn(2, 2, 4, 3, 3)
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        got, want = (
            forward_ad.unpack_dual(f(dual)).tangent
            for f in (replacement.forward, replacement.original)
        )
    assert torch.equal(got, want)
