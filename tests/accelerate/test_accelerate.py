"""accelerate(): what it finds, that results agree, what it refuses, and that restore() undoes it."""

import copy

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import choose_form, close
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate, accelerated, network
from diffusion_engine.processes import VP
from diffusion_engine.zoo import load_network

choose_fused, net, example = cases.choose_fused, cases.net, cases.example


def test_finds_every_kind_of_module(net, example):
    with torch.no_grad():
        want = net(*example)
    done = accelerate(net, *example)
    kinds = {one.name: one.kind for one in done.replacements}
    assert kinds == {
        "stem": "winograd conv2d",
        "block.norm1": "group_norm",
        "block.norm2": "group_norm",
        "block.conv1": "winograd conv2d",
        "block.conv2": "winograd conv2d",
        "block.qkv": "packed conv2d",
        "tokens": "attention",
        "head.0": "group_norm + SiLU",
        "head.2": "winograd conv2d",
    }
    assert set(done.errors) == set(kinds) and not done.refused
    with torch.no_grad():
        close(net(*example), want)
        x, t = torch.randn(5, 3, 4, 4), torch.rand(5)
        close(net(x, t), restored(net)(x, t))
    table = str(done)
    assert "block.conv1" in table and "4 packed conv2d" not in table and "ms" in table


def restored(net):
    made = copy.deepcopy(net)
    accelerated(made).restore()
    return made


def test_restore_leaves_nothing(net, example):
    before = {name: (id(p), p.stride()) for name, p in net.named_parameters()}
    keys, types = list(net.state_dict()), [type(m) for m in net.modules()]
    with torch.no_grad():
        want = net(*example)
    done = accelerate(net, *example)
    assert list(net.state_dict()) == keys and [type(m) for m in net.modules()] == types
    done.restore()
    assert {name: (id(p), p.stride()) for name, p in net.named_parameters()} == before
    assert not any("forward" in vars(m) for m in net.modules()) and accelerated(net) is None
    with torch.no_grad():
        assert torch.equal(net(*example), want)
    accelerate(net, *example).restore()


def test_channels_last_is_a_candidate_and_is_undone(net, example, monkeypatch):
    monkeypatch.setattr(network, "min", lambda *_, **__: "fused, channels_last", raising=False)
    with torch.no_grad():
        want = net(*example)
        done = accelerate(net, *example)
        close(net(*example), want)
        assert net.stem(example[0].contiguous(memory_format=torch.channels_last)).stride(1) == 1
    done.restore()
    assert all(p.is_contiguous() for p in net.parameters())


def test_a_network_that_is_faster_as_it_was_is_left(net, example, monkeypatch):
    monkeypatch.setattr(network, "min", lambda *_, **__: "original", raising=False)
    done = accelerate(net, *example)
    assert not done.replacements and len(done.refused) == 9 and "faster without" in str(done)
    with torch.no_grad():
        net(*example)


def test_a_wrong_replacement_is_left_alone(net, example, monkeypatch):
    """A fused form that computes something else does not get in."""
    monkeypatch.setattr(
        "diffusion_engine.accelerate.conv3x3.FusedConv3x3.forward",
        lambda self, x: self.original(x) * (1.001 if self.name == "block.conv1" else 1.0),
    )
    done = accelerate(net, *example)
    assert "differs from the original" in done.refused["block.conv1"][1]
    assert "block.conv2" in done.errors


def test_a_norm_that_two_activations_read(example):
    """Its SiLU is not its alone: the norm is fused without."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.one, self.other = nn.GroupNorm(1, 3), nn.SiLU(), nn.SiLU()

        def forward(self, x):
            return self.one(self.norm(x)) + self.other(self.norm(2 * x + 1))

    net = Twice().eval()
    with torch.no_grad():
        want = net(example[0])
        done = accelerate(net, example[0])
        close(net(example[0]), want)
    assert {one.name: one.kind for one in done.replacements} == {"norm": "group_norm"}


def test_derivatives_come_from_the_original(net, example):
    x, t = example

    def derivatives():
        gradient = torch.autograd.grad(net(x.requires_grad_(), t).square().sum(), x)[0]
        # torch's own fused attention has no forward mode.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            given = (x.detach(),), (torch.ones_like(x),)
            return gradient, torch.func.jvp(lambda x: net(x, t), *given)[1]

    want = derivatives()
    accelerate(net, x.detach(), t)
    for got, expected in zip(derivatives(), want, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_copy_works_on_its_own_weights(net, example):
    accelerate(net, *example)
    other = copy.deepcopy(net)
    with torch.no_grad():
        want = net(*example)
        for p in other.parameters():
            p.mul_(0.5)
        accelerated(other).refresh()
        assert torch.equal(net(*example), want)
        close(other(*example), restored(other)(*example))


def test_traced_by_torch_compile(net, example):
    accelerate(net, *example)
    with torch.no_grad():
        want = net(*example)
        got = torch.compile(net, fullgraph=True, backend="aot_eager")(*example)
    close(got, want)


# Refusals


def test_training_mode(net, example):
    with pytest.raises(ValueError, match=r"training mode; call eval\(\)"):
        accelerate(net.train(), *example)
    accelerate(net.eval(), *example)
    with pytest.raises(RuntimeError, match=r"training mode: call eval\(\), or restore\(\)"):
        net.train()(*example)


def test_accelerated_already(net, example):
    accelerate(net, *example)
    with pytest.raises(ValueError, match=r"accelerated already; restore\(\)"):
        accelerate(net, *example)
    with pytest.raises(ValueError, match="'0' inside the network is accelerated already"):
        accelerate(nn.Sequential(net).eval(), *example)


def test_a_network_that_is_called_by_names(net, example):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, *, x, t):
            return {"sample": self.net(x, t)}

    made, (x, t) = Named().eval(), example
    with torch.no_grad():
        want = made(x=x, t=t)["sample"]
        done = accelerate(made, x=x, t=t)
        close(made(x=x, t=t)["sample"], want)
    assert done.batch == 2 and "net.block.conv1" in done.errors


def test_no_example(net):
    with pytest.raises(ValueError, match=r"accelerate\(module, x, label\)"):
        accelerate(net)
    with pytest.raises(ValueError, match=r"torch\.nn\.Module, got function"):
        accelerate(lambda x: x, torch.zeros(1))


def test_a_failing_example_leaves_the_network_as_it_was(net):
    with pytest.raises(RuntimeError):
        accelerate(net, torch.zeros(2, 5, 8, 8), torch.zeros(2))
    assert not any("forward" in vars(m) for m in net.modules())


@pytest.mark.parametrize("form", [0, 2])
def test_changed_weights(net, example, form, monkeypatch):
    choose_form(monkeypatch, lambda forms: form)
    done = accelerate(net, *example)
    with torch.no_grad():
        net.block.conv1.weight.mul_(2.0)
        with pytest.raises(
            RuntimeError, match=r"'block.conv1' changed after accelerate\(\).*refresh"
        ):
            net(*example)
        done.refresh()
        close(net(*example), restored(net)(*example))


@pytest.mark.parametrize(
    "kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]
)
def test_hooks(net, example, kind):
    register = getattr(net.head[1], f"register_{kind}")
    handle = register(lambda *_: None)
    done = accelerate(net, *example)
    assert {one.name: one.kind for one in done.replacements}["head.0"] == "group_norm"
    done.restore()
    handle.remove()
    accelerate(net, *example)
    register(lambda *_: None)
    with pytest.raises(RuntimeError, match=r"a hook was put on a SiLU of 'head.0'"):
        net(*example)


def test_parametrizations_and_replaced_forwards(net, example):
    nn.utils.parametrizations.weight_norm(net.stem)
    net.tokens.forward = net.tokens.forward
    done = accelerate(net, *example)
    assert "it is parametrized" in done.refused["stem"][1]
    assert "its forward was replaced" in done.refused["tokens"][1]


# Sampler


def test_sampler_accelerates_a_copy():
    own = load_network("digits")
    plain, fast = Sampler(own, steps=4), Sampler(own, steps=4, accelerate=True)
    want, got = (s.sample(2, condition=[3, 8], guidance=2.0).samples for s in (plain, fast))
    close(got, want)
    assert accelerated(own.module) is None and plain.accelerated is None
    assert len(fast.accelerated.replacements) > 20
    assert {id(p) for p in fast.network.module.parameters()} == {
        id(p) for p in own.module.parameters()
    }


def test_sampler_follows_the_users_weights(net):
    own = ScoreNetwork(net, VP(), (3, 8, 8))
    fast = Sampler(own, steps=2, accelerate=True)
    first = fast.sample(1).samples
    with torch.no_grad():
        net.stem.weight.mul_(0.5)
    close(fast.sample(1).samples, Sampler(own, steps=2).sample(1).samples)
    assert not torch.equal(fast.sample(1).samples, first)


def test_sampler_needs_a_module():
    with pytest.raises(ValueError, match=r"function is no torch\.nn\.Module"):
        Sampler(ScoreNetwork(lambda x, t: x, VP(), (3, 8, 8)), accelerate=True)


# diffusers


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason="diffusers is not installed")


def unet(diffusers, **options):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
              "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}  # fmt: skip
    return diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        **(blocks | options),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [{}, {"resnet_time_scale_shift": "scale_shift", "attention_head_dim": 16},
     {"downsample_type": "resnet", "upsample_type": "resnet"}],
    ids=["default", "scale_shift", "resampling"],
)  # fmt: skip
def test_diffusers_unet(diffusers, options):
    made = unet(diffusers, **options)
    x, t = torch.randn(3, 3, 8, 8), torch.tensor(7)
    with torch.no_grad():
        want = made(x, t).sample
        done = accelerate(made, x, t)
        close(made(x, t).sample, want)
    kinds = [one.kind for one in done.replacements]
    fused = {"resnet block", "attention", "winograd conv2d", "packed conv2d", "group_norm + SiLU"}
    assert fused == set(kinds)
    assert kinds.count("resnet block") >= 7 and not done.refused


def test_diffusers_with_another_activation(diffusers):
    done = accelerate(unet(diffusers, act_fn="mish"), torch.randn(1, 3, 8, 8), torch.tensor(7))
    kind, reason = done.refused["mid_block.resnets.0"]
    assert kind == "resnet block" and reason == "its activation is Mish, not SiLU"


def test_diffusers_cross_attention(diffusers):
    torch.manual_seed(0)
    made = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=24, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    given = torch.randn(2, 4, 8, 8), torch.tensor(7), torch.randn(2, 5, 24)
    with torch.no_grad():
        want = made(*given).sample
        done = accelerate(made, *given)
        close(made(*given).sample, want)
    assert [one.kind for one in done.replacements].count("attention") == 8
