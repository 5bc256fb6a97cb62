"""GENIE's heads on a U-Net: one forward, its launches, threads, and networks that do not fit."""

import copy
import math
import threading

import pytest
import torch
from columns import F64
from genie_cases import EXACT, NAMES, UNet, trained_head, unet
from optional import diffusers
from tape import TapeRecorder, taped
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, from_diffusers, with_classifier
from diffusion_engine.executors import Graph, stages
from diffusion_engine.genie import Head, attach, exact_derivative
from diffusion_engine.processes import VP, Discrete
from diffusion_engine.processes.levels import levels
from diffusion_engine.testing import labelled_mixture as mixture


def by_hand(module, head, x, label):
    kept = {}
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda m, a, out, k=kind: kept.update({k: out})
        )
        for kind, name in NAMES.items()
    ]
    eps = module(x, label)
    for hook in hooks:
        hook.remove()
    return eps, head(x, eps, kept["feature"], kept["embedding"])


def test_an_attached_head_takes_the_same_forward():
    network = unet()
    head = trained_head(network)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8])
    want = by_hand(network.module, head, x, t)
    attached = attach(network, head, **NAMES)
    calls = network.module.calls
    found = attached.module(x, t)
    assert network.module.calls == calls + 1
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    assert found[1].shape == (2, 9, 8, 8)
    # A call of the user's own keeps nothing.
    network.module(x, t)
    assert all(getattr(tap.local, "kept", None) is None for tap in attached.module.taps)
    made = Sampler(attached, "genie", 4).sample(2)
    assert made.finite == [True] * 2 and made.nfe == 4
    assert list(attached.module.unet.state_dict()) == list(unet().module.state_dict())


def test_a_head_costs_no_launch(monkeypatch):
    """One call of the U-Net and one launch of the step a step, guided or not."""
    network = unet()
    attached = attach(network, trained_head(network), **NAMES)
    launches = []

    def resolve(op, backend, args):
        step = RESOLVE(op, backend, args)
        return lambda outs=(): (launches.append(len(outs)), step(outs))[1]

    RESOLVE = stages.resolve
    monkeypatch.setattr(stages, "resolve", resolve)
    for afs, denoise in ((False, False), (True, True)):
        before = network.module.calls
        launches.clear()
        options = {"end": "t_min", "afs": afs, "denoise": denoise, "backend": "cpp"}
        made = Sampler(attached, "genie", 5, **options).sample(2)
        nfe = 5 - afs + denoise
        assert made.nfe == network.module.calls - before == nfe
        assert launches == [0] + [2] * nfe  # eps, and k1 to k3; row 0 alone reads none


@pytest.mark.parametrize("label_dtype", [torch.float32, torch.int64])
def test_heads_on_a_discrete_table(label_dtype):
    base = unet()
    network = ScoreNetwork(base.module, Discrete.linear(), base.shape, label_dtype=label_dtype)
    head = trained_head(network)
    sampler = Sampler(attach(network, head, **NAMES), "genie", 4, end="t_min", **F64)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    made = sampler.sample(x=x, noised=True).samples
    module = copy.deepcopy(network.module).double()
    for s, t in zip(sampler.points, sampler.points[1:], strict=False):
        g, h = s.ratio, t.ratio - s.ratio
        label = torch.tensor([s.t]).to(label_dtype)
        with torch.no_grad():
            eps, heads = by_hand(module, copy.deepcopy(head).double(), x, label)
        k1, k2, k3 = heads.chunk(3, dim=1)
        slope = -k1 / g + g / (1 + g * g) * k2 + k3 / (g * (1 + g * g))
        x = t.alpha * (x / s.alpha + h * eps + 0.5 * h * h * slope)
    assert (made - x).abs().max() < 1e-9 * float(x.abs().max())


def test_an_untrained_head_is_ddim():
    network = unet()
    attached = attach(network, Head(3, 16, 8, fold=2).eval(), **NAMES)
    genie, ddim = (Sampler(attached, solver, 5).sample(3).samples for solver in ("genie", "ddim"))
    assert torch.equal(genie, ddim)


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_a_head_is_given_eps_whatever_the_base_predicts(prediction):
    seen = []

    class Spy(nn.Module):
        def forward(self, x, eps, features, embedding):
            seen.append(eps)
            return torch.zeros_like(x).repeat(1, 3, 1, 1)

    base = unet()
    network = ScoreNetwork(base.module, VP(), base.shape, prediction=prediction, label="999t")
    attached = attach(network, Spy(), **NAMES)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8], dtype=torch.float64)
    out = network.module(x, (999.0 * t).float())
    prediction_, zeros = attached.module(x, t)
    assert torch.allclose(prediction_, out) and not zeros.any()
    alpha, sigma = (value.float().view(-1, 1, 1, 1) for value in levels(VP(), t))
    want = alpha * out + sigma * x if prediction == "v" else (x - alpha * out) / sigma
    assert torch.allclose(seen[0], want, atol=1e-5)
    a, b = (Sampler(n, "ddim", 4).sample(2).samples for n in (attached, network))
    assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()))


def test_threads_share_an_attached_network():
    attached = attach(unet(), trained_head(None), **NAMES)
    inputs = [(torch.randn(4, 3, 8, 8), torch.rand(4)) for _ in range(4)]
    want = [attached.module(*pair) for pair in inputs]
    wrong = []

    def work(i):
        with torch.no_grad():
            for _ in range(30):
                found = attached.module(*inputs[i])
                if not all(torch.equal(a, b) for a, b in zip(found, want[i], strict=True)):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_attached_networks_compile_copy_and_are_captured(monkeypatch):
    attached = attach(unet(), trained_head(None), **NAMES)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8])
    want = attached.module(x, t)
    compiled = torch.compile(attached.module, backend="eager", fullgraph=True)
    for a, b in zip(compiled(x, t), want, strict=True):
        assert torch.equal(a, b)
    assert all(tap.traced is None for tap in attached.module.taps)
    for a, b in zip(copy.deepcopy(attached.module)(x, t), want, strict=True):
        assert torch.equal(a, b)
    half = Sampler(attached, "genie", 3, dtype=torch.bfloat16).sample(2)
    assert half.finite == [True, True]
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    eager = Sampler(attached, "genie", 4).sample(3)
    captured = Sampler(attached, "genie", 4, executor=Graph(recorder=TapeRecorder())).sample(3)
    assert torch.equal(eager.samples, captured.samples)


def test_heads_on_a_network_of_diffusers():
    """The names are those of its own modules, whatever the engine has put around it."""
    own = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    network = from_diffusers(own.eval(), diffusers.DDIMScheduler(clip_sample=False))
    names = {"feature": "up_blocks.0", "embedding": "time_embedding"}
    attached = attach(network, Head(3, 32, 128).eval(), **names)
    genie, ddim = (Sampler(n, s, 3) for n, s in ((attached, "genie"), (network, "ddim")))
    assert torch.allclose(genie.sample(1).samples, ddim.sample(1).samples, atol=1e-5)
    with pytest.raises(
        ValueError, match="feature='up_block' is no module of the network, which has"
    ):
        attach(network, Head(3, 32, 128), feature="up_block", embedding="time_embedding")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: exact_derivative(mixture(label_dtype=torch.int64)), "label that varies smoothly"),
        (lambda: exact_derivative(EXACT), "offers d eps / dg already"),
        (lambda: exact_derivative(mixture(null=None), guidance=2.0), "needs an unconditional branch"),
        (lambda: exact_derivative(mixture(label=lambda at: math.log(at.t))), "label= has to take tensors"),
        (lambda: exact_derivative(mixture(), guidance=[1.0, 2.0]), "the same for all samples"),
        (lambda: exact_derivative(mixture(), guidance=math.nan), "give a finite number"),
        (lambda: exact_derivative(mixture(), classifier_scale=3.0), "the network has no classifier"),
        (lambda: attach(mixture(), Head(1, 1, 1), **NAMES), "feature='inner.up' is no module"),
        (lambda: attach(EXACT, Head(1, 1, 1), **NAMES), "before anything is added"),
        (lambda: attach(unet(), Head(1, 1, 1), feature="out", embedding="tim"), "embedding='tim' is no"),
        (lambda: mixture(derivative="exact", variance="learned"), "both read from channel block 1"),
        (lambda: exact_derivative(mixture(latent=4)), "has no ODE to take a derivative along"),
        (lambda: with_classifier(mixture(latent=4), print), "none to guide"),
        (lambda: with_classifier(EXACT, print), "add the classifier first"),
    ],
)  # fmt: skip
def test_bad_networks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "blocks, derivative, needs", [(2, "heads", 4), (3, "heads", 4), (1, "exact", 2)]
)
def test_a_network_that_returns_less_than_it_said(blocks, derivative, needs):
    network = ScoreNetwork(lambda x, t: x.repeat(1, blocks), VP(), (1,), derivative=derivative)
    message = (
        f"returned {blocks} channels; with derivative='{derivative}' it returns {needs} or more"
    )
    with pytest.raises(ValueError, match=message):
        Sampler(network, "genie", 3).sample()


def test_a_module_that_is_not_called():
    class Skips(UNet):
        def forward(self, x, label):
            return x

    attached = attach(ScoreNetwork(Skips(), VP(), (3, 8, 8)), Head(3, 16, 8, fold=2), **NAMES)
    with pytest.raises(ValueError, match=r"module 'inner\.up' gave NoneType"):
        Sampler(attached, "genie", 2).sample()
