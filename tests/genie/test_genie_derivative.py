"""The derivative of the prediction along the ODE, of closed forms and of torch modules."""

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE
from columns import column
from genie_cases import EXACT, denoised
from oracles.genie import slope
from oracles.problems import TM
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.genie import exact_derivative
from diffusion_engine.genie.exact import rates
from diffusion_engine.processes import EDM, VE, VP, Discrete, FlowMatching, GaussianProcess, SubVP
from diffusion_engine.processes.levels import Levels, levels
from diffusion_engine.testing import Mixture
from diffusion_engine.testing import labelled_mixture as mixture


@pytest.mark.parametrize(
    "t, x, g, eps, d_eps, dx, dt",
    [
        (0.5, 0.4, 3.41291831, 0.41962464, 0.0044298, 0.0100559, 0.0536992),
        (0.1, -0.2, 0.34017653, -0.53764508, 2.7250400, -0.4480215, 0.2917647),
        (0.02, 0.25, 0.07744621, 0.70040564, 4.8672107, 0.6790684, 0.3091746),
    ],
)
def test_derivative(t, x, g, eps, d_eps, dx, dt):
    found, slope = EXACT.module(column(x), torch.tensor([t], dtype=torch.float64))
    assert float(found) == pytest.approx(eps, abs=1e-8)
    assert float(slope) == pytest.approx(d_eps, abs=1e-7)
    at, per_g, growth = rates(VP(), torch.tensor([t], dtype=torch.float64))
    assert float(at.ratio) == pytest.approx(g, abs=1e-8)
    assert float(per_g) == pytest.approx(dt, abs=1e-7)
    assert float(growth * x + at.alpha * found) == pytest.approx(dx, abs=1e-7)


@pytest.mark.parametrize("schedule", list(BY_SCHEDULE))
def test_derivative_of_every_process(schedule):
    """The law in torch is the process's own, and the total derivative that of the closed form."""
    process = BY_SCHEDULE[schedule]
    t = np.linspace(0.05, 0.9, 7) * process.t_max
    t = np.round(t) if isinstance(process, Discrete) else t
    alpha, sigma = levels(process, torch.from_numpy(t))
    assert np.abs(alpha.numpy() - process.alpha(t)).max() < 1e-13
    assert np.abs(sigma.numpy() / process.sigma(t) - 1).max() < 1e-11
    x_bar = np.linspace(-1.5, 1.5, 7) * (1 + process.sigma(t) / process.alpha(t))
    network = exact_derivative(mixture(process))
    eps, d_eps = network.module(
        torch.from_numpy(process.alpha(t) * x_bar)[:, None], torch.from_numpy(t)
    )
    want = np.array(
        [
            slope(TM, x, s / a)
            for x, s, a in zip(x_bar, process.sigma(t), process.alpha(t), strict=True)
        ]
    ).T
    assert np.abs(eps[:, 0].numpy() - want[0]).max() < 1e-9
    assert np.abs(d_eps[:, 0].numpy() - want[1]).max() < 1e-6 * max(1.0, np.abs(want[1]).max())


def predicting(prediction, process):
    """A network of the exact prediction that is told t."""

    def module(x, t):
        at = Levels.of(process, t)
        wide = Levels(*(value[:, None] for value in (at.t, at.alpha, at.sigma)))
        state = x.double() / network.parameterisation.c_in(wide)
        (p,), q = network.parameterisation.weights(wide)
        return ((denoised(state / wide.alpha, at.ratio) - p * state) / q).to(x.dtype)

    network = ScoreNetwork(module, process, (1,), prediction=prediction, label_dtype=torch.float64)
    return network


@pytest.mark.parametrize(
    "prediction, process",
    [
        ("eps", VP()), ("x0", VP()), ("v", VP()), ("score", VE()), ("flow", FlowMatching()),
        ("F", EDM()), ("v", SubVP()), ("v", Discrete.linear()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_derivative_of_every_prediction(prediction, process, dtype, tolerance):
    t = torch.linspace(0.15, 0.8, 5, dtype=torch.float64) * process.t_max
    t = t.round() if isinstance(process, Discrete) else t
    at = Levels.of(process, t)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None] * (at.alpha + at.sigma)[:, None]
    found = exact_derivative(predicting(prediction, process)).module(x.to(dtype), t)
    for a, b in zip(found, exact_derivative(mixture(process)).module(x, t), strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).abs().max() <= tolerance * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize(
    "label, ratio",
    [
        ("sigma", lambda label: label),
        ("log_sigma", torch.exp),
        ("log_sigma/4", lambda label: torch.exp(4.0 * label)),
        ("lam", lambda label: torch.exp(-label)),
        (lambda at: 2.0 * at.lam, lambda label: torch.exp(-0.5 * label)),
    ],
)
def test_derivative_through_every_label(label, ratio):
    network = ScoreNetwork.from_denoiser(
        lambda x, told: denoised(x, ratio(told)), (1,), VP(), label=label, label_dtype=torch.float64
    )
    x, t = column(0.4, -0.2), torch.tensor([0.5, 0.1], dtype=torch.float64)
    for a, b in zip(exact_derivative(network).module(x, t), EXACT.module(x, t), strict=True):
        assert (a - b).abs().max() < 1e-8


def test_derivative_of_the_other_closed_forms():
    x, t = column(0.4, -0.2), torch.tensor([0.5, 0.1], dtype=torch.float64)
    for prediction in ("x0", "eps"):
        found = exact_derivative(Mixture().network(VP(), prediction=prediction)).module(x, t)
        for a, b in zip(found, EXACT.module(x, t), strict=True):
            assert (a - b).abs().max() < 1e-8


def test_derivative_of_a_network_with_attention_in_half_precision_regions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(4, 12)

        def forward(self, x, t):
            q, k, v = self.qkv(x.flatten(2).mT * t.view(-1, 1, 1)).chunk(3, dim=2)
            return F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape)

    torch.manual_seed(0)
    network = exact_derivative(
        ScoreNetwork(Net().double().eval(), VP(), (4, 3, 3), label_dtype=torch.float64)
    )
    x, t = torch.randn(2, 4, 3, 3, dtype=torch.float64), torch.tensor([0.3, 0.6]).double()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        eps, d_eps = network.module(x, t)
    d = 1e-4
    lam = VP().lam(t.numpy())
    near = []
    for sign in (1, -1):  # along the ODE, by a central difference in g
        g = torch.exp(torch.from_numpy(-lam)) + sign * d
        later = torch.from_numpy(VP().t_of_lam(-np.log(g.numpy())))
        a, b = (torch.from_numpy(VP().alpha(u.numpy())).view(-1, 1, 1, 1) for u in (t, later))
        near.append(network.module(b * (x / a + sign * d * eps), later)[0])
    assert ((near[0] - near[1]) / (2 * d) - d_eps).abs().max() < 1e-6


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x, t):
        wide = t.to(x.dtype).view(-1, 1, 1, 1).expand_as(x[:, :1])
        return self.out(self.norm(self.conv(torch.cat((x, wide), dim=1))))


@pytest.mark.parametrize(
    "images, weights, accelerate",
    [
        (torch.channels_last, torch.contiguous_format, False),
        (torch.contiguous_format, torch.channels_last, False),
        (torch.channels_last, torch.channels_last, False),
        (torch.contiguous_format, torch.contiguous_format, True),
    ],
)
def test_the_exact_derivative_in_channels_last(images, weights, accelerate):
    """Torch has no forward derivative of group norm in that format, which acceleration may choose too."""
    formats = ((torch.contiguous_format,) * 2, (images, weights))
    want, made = (
        Sampler(
            exact_derivative(
                ScoreNetwork(Normed().eval().to(memory_format=w), VP(), (3, 8, 8), memory_format=m)
            ),
            "genie",
            3,
            accelerate=fast,
        )
        .sample(2)
        .samples
        for (m, w), fast in zip(formats, (False, accelerate), strict=True)
    )
    assert (made - want).abs().max() < 1e-4 * want.abs().max()


def test_the_exact_derivative_leaves_a_learned_variance():
    network = exact_derivative(
        mixture(
            variance="learned_range",
        )
    )
    assert (
        network.parameterisation.variance is None and network.parameterisation.derivative == "exact"
    )


def test_a_network_without_a_derivative():
    with pytest.raises(
        ValueError, match=r"does not offer d eps / dg; wrap it with genie\.exact_deriv"
    ):
        Sampler(mixture(), "genie", 5)
    with pytest.raises(ValueError, match="derivative='head'"):
        mixture(derivative="head")


class OfItsOwn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 0.5 * x

    @staticmethod
    def backward(ctx, grad):
        return 0.5 * grad


@pytest.mark.parametrize(
    "module", [lambda x, t: OfItsOwn.apply(x), lambda x, t: torch.from_numpy(x.numpy())]
)
def test_modules_without_a_forward_derivative(module):
    network = exact_derivative(ScoreNetwork(module, VP(), (1,)))
    with pytest.raises(ValueError, match="the network has no forward derivative"):
        Sampler(network, "genie", 3).sample()


def test_a_process_that_torch_does_not_know():
    class Mine(VP):
        pass

    class Other(GaussianProcess):
        def alpha(self, t):
            return np.cos(np.asarray(t))

        def sigma(self, t):
            return np.sin(np.asarray(t))

    assert levels(Mine(), torch.tensor([0.5]))[0].shape == (1,)
    network = ScoreNetwork(lambda x, t: x, Other(t_min=0.01, t_max=1.5), (1,))
    with pytest.raises(
        ValueError, match=r"with @diffusion_engine\.processes\.levels\.levels\.register"
    ):
        exact_derivative(network)
