"""What the networks of GENIE are called with: the base's own input and label, whatever it predicts."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork, with_classifier
from diffusion_engine.genie import Head, attach, exact_derivative
from diffusion_engine.processes import EDM, VE, VP, Discrete
from diffusion_engine.testing import labelled_mixture as mixture

NAMES = {"feature": "up", "embedding": "time"}


class Base(nn.Module):
    """It remembers what it was called with."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.time, self.up = nn.Linear(1, 4), nn.Conv2d(3, 3, 1)
        self.seen = []

    def forward(self, x, label):
        self.seen.append((x, label))
        return self.up(x) + self.time(label[:, None].to(x.dtype))[:, :3, None, None]


class Listening(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, eps, features, embedding):
        self.seen.append((x, eps, features, embedding))
        return torch.cat((x, 2.0 * x, 3.0 * x), dim=1)


@pytest.mark.parametrize(
    "process, prediction, options",
    [
        (EDM(), "F", {"label": "log_sigma/4"}),
        (EDM(), "x0", {"label": "sigma", "scale": "F"}),
        (VE(), "score", {"label": "log_sigma", "scale": lambda at: 1.0 / (at.sigma + 1.0)}),
        (VP(), "v", {"label": "999t"}),
        (VP(), "x0", {"label": "lam", "scale": "sigma"}),
        (VP(), "eps", {"label": "t"}),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, (VP, VE, EDM)) else None,
)  # fmt: skip
def test_base_and_head_are_given_what_the_base_was_trained_on(process, prediction, options):
    """c_in x and the label of the time; the head what the base is given, and eps = (x - alpha x0) / sigma."""
    module, head = Base().eval(), Listening()
    base = ScoreNetwork(module, process, (3, 4, 4), prediction=prediction, **options)
    attached = attach(base, head, **NAMES)
    times = torch.tensor([0.3, 0.8], dtype=torch.float64) * process.t_max
    x = torch.randn(2, 3, 4, 4)
    out, slopes = attached.module(x, times if prediction != "eps" else times.float())
    (given, label), (seen, eps, features, embedding) = module.seen[-1], head.seen[-1]
    for i, t in enumerate(times.tolist()):
        at = process.at(t)
        assert torch.allclose(given[i], base.parameterisation.c_in(at) * x[i], rtol=1e-5)
        assert label[i].item() == pytest.approx(base.parameterisation.label_of(at), rel=1e-5)
        (p,), q = base.parameterisation.weights(at)
        x0 = p * x[i].double() + q * out[i].double()
        want = (x[i] - at.alpha * x0) / at.sigma
        assert torch.allclose(eps[i].double(), want, rtol=1e-3, atol=1e-4)
    assert torch.equal(seen, given) and torch.equal(slopes[:, 6:], 3.0 * given)
    assert torch.equal(features, module.up(given)) and torch.equal(
        embedding, module.time(label[:, None])
    )


def test_whole_labels_between_timesteps_are_the_nearest():
    module = Base().eval()
    base = ScoreNetwork(
        module, Discrete.linear(), (3, 4, 4), prediction="v", label_dtype=torch.int64
    )
    attached = attach(base, Listening(), **NAMES)
    times = [3.7, 499.4, 499.6, 998.8]
    attached.module(torch.zeros(4, 3, 4, 4), torch.tensor(times, dtype=torch.float64))
    label = module.seen[-1][1]
    assert label.dtype == torch.int64 and label.tolist() == [4, 499, 500, 999]
    assert label.tolist() == [base.parameterisation.label_of(base.process.at(t)) for t in times]


def test_a_latent_or_a_second_block_is_no_place_for_a_head():
    module = Base().eval()
    latent = ScoreNetwork(module, VP(), (3, 4, 4), latent=4)
    with pytest.raises(ValueError, match="reads a latent: a generator has no ODE"):
        attach(latent, Listening(), **NAMES)
    learned = ScoreNetwork(module, VP(), (3, 4, 4), variance="learned")
    with pytest.raises(ValueError, match="this network has its learned variance"):
        attach(learned, Listening(), **NAMES)
    with pytest.raises(ValueError, match=r"function is no torch\.nn\.Module"):
        attach(ScoreNetwork(lambda x, t: x, VP(), (3, 4, 4)), Listening(), **NAMES)
    with pytest.raises(
        ValueError, match="feature='down' is no module of the network, which has time, up"
    ):
        attach(ScoreNetwork(module, VP(), (3, 4, 4)), Listening(), feature="down", embedding="time")


def test_modes_and_names_of_an_attached_network():
    """It trains and evaluates as its base did, keeps its name, and a second call sees no first one's maps."""
    for training in (True, False):
        base = ScoreNetwork(Base().train(training), VP(), (3, 4, 4), name="mine")
        attached = attach(base, Head(3, 3, 4), **NAMES)
        assert attached.module.training is training and attached.name == "mine"
        assert (
            attached.parameterisation.derivative == "heads"
            and base.parameterisation.derivative is None
        )
        assert exact_derivative(base).module.training is training
    base = ScoreNetwork(Base().eval(), VP(), (3, 4, 4))
    attached = attach(base, Listening(), **NAMES)
    x, t = torch.randn(2, 3, 4, 4), torch.rand(2)
    attached.module(x, t)
    base.module.forward = lambda x, label: x  # reaches neither of the two modules
    with pytest.raises(ValueError, match="module 'up' gave NoneType in this call"):
        attached.module(x, t)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_head_is_its_equation(normalise):
    """Of trained weights, by torch's functions: whoever trained them did so with this one."""
    torch.manual_seed(0)
    head = Head(3, 16, 8, width=12, normalise=normalise, fold=2).eval()
    for p in head.parameters():
        nn.init.normal_(p, std=0.3)
    x, eps = torch.randn(2, 2, 3, 8, 6)
    features, embedding = torch.randn(2, 16, 4, 3), torch.randn(2, 8)

    def normed(h, layer):
        return F.group_norm(h, layer.num_groups, layer.weight, layer.bias, 1e-6)

    def conv(h, layer):
        return F.conv2d(h, layer.weight, layer.bias, padding=1)

    folded = F.pixel_unshuffle(x, 2), F.pixel_unshuffle(eps, 2)
    seen = normed(features, head.norm_in) if normalise else features
    start = conv(torch.cat((*folded, seen), dim=1), head.conv_in)
    block = head.block
    h = conv(F.silu(normed(start, block.norm1)), block.conv1)
    h = h + F.linear(F.silu(embedding), block.time.weight, block.time.bias)[:, :, None, None]
    h = (start + conv(F.silu(normed(h, block.norm2)), block.conv2)) / 2.0**0.5
    want = F.pixel_shuffle(conv(F.silu(normed(h, head.norm)), head.conv_out), 2)
    with torch.no_grad():
        got = head(x, eps, features, embedding)
    assert got.shape == (2, 9, 8, 6) and torch.allclose(got, want, rtol=1e-4, atol=1e-5)
    if normalise:  # 4 groups of 4
        assert (head.norm_in.num_groups, head.norm.num_groups) == (4, 3)
    new = Head(3, 16, 8, fold=2).eval()
    assert not new(x, eps, features, embedding).any()


def test_what_exact_networks_offer():
    base = mixture(null=3, classes=3)
    plain, guided = exact_derivative(base), exact_derivative(base, guidance=2.0)
    assert (plain.null, guided.null) == (3, None) and not plain.module.guided
    assert (
        plain.parameterisation.derivative,
        plain.parameterisation.prediction,
        plain.parameterisation.label,
        plain.parameterisation.scale,
    ) == (
        "exact",
        "eps",
        "t",
        "one",
    )
    assert plain.label_dtype == torch.float64 and base.parameterisation.derivative is None
    classified = with_classifier(base, base.module.classifier)
    inside = exact_derivative(classified)
    assert inside.module.guided and inside.parameterisation.gradient is None and inside.null is None
    assert not exact_derivative(classified, classifier_scale=0.0).module.guided


def test_samples_of_a_base_in_every_scale_are_those_of_its_own():
    """With a head that says nothing, 'genie' is 'ddim' on the base itself."""
    for process, prediction in ((EDM(), "F"), (VP(), "v")):
        base = ScoreNetwork(Base().eval(), process, (3, 4, 4), prediction=prediction)
        attached = attach(base, Head(3, 3, 4).eval(), **NAMES)
        a, b = (
            Sampler(n, s, 5).sample(2).samples for n, s in ((attached, "genie"), (base, "ddim"))
        )
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
