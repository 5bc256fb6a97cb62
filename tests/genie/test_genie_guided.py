"""GENIE on guided networks: heads of both branches, and the exact derivative of the guided ODE."""

import numpy as np
import pytest
import torch
from columns import F64, column
from genie_cases import EXACT
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, with_classifier
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import VP
from diffusion_engine.processes.levels import Levels, levels
from diffusion_engine.testing import labelled_mixture as mixture


def test_guided_heads_are_eight_outputs():
    conditional = mixture()

    def module(x, t, y):
        eps = conditional.module(x, t, y)
        return torch.cat((eps, 0.1 * eps, 0.2 * eps, 0.3 * eps), dim=1)

    network = ScoreNetwork(
        module, VP(), (1,), label_dtype=torch.float64, derivative="heads", null=3, classes=3
    )
    sampler = Sampler(network, "genie", 5, guidance=3.0, end="t_min")
    plan = sampler.plan()
    row = plan.rows[1]
    assert (
        plan.outputs == 8
        and row.branches == (0,) * 4 + (1,) * 4
        and row.channel_blocks == (0, 1, 2, 3) * 2
    )
    assert row.e[5:] == pytest.approx([-2.0 / 3.0 * e for e in row.e[1:4]])
    made = {
        b: Sampler(network, "genie", 5, guidance=3.0, end="t_min", backend=b)
        for b in ("cpp", "torch")
    }
    a, b = (s.sample(4, condition=[0, 1, 2, 0]).samples for s in made.values())
    assert torch.equal(a, b)


def along_the_ode(network, x, t, y, d):
    """d eps / dg by a central difference of two states of the ODE."""
    eps, g, alpha = network.module(x, t, y)[0], Levels.of(VP(), t).ratio, VP().alpha(t.numpy())
    ends = []
    for sign in (1.0, -1.0):
        later = VP().t_of_lam(-np.log(g.numpy() + sign * d))
        there = torch.from_numpy(VP().alpha(later) / alpha)[:, None]
        beside = there * (x + sign * d * torch.from_numpy(alpha)[:, None] * eps)
        ends.append(network.module(beside, torch.from_numpy(later), y)[0])
    return (ends[0] - ends[1]) / (2.0 * d)


GUIDED = {
    "free": lambda: exact_derivative(mixture(), guidance=2.5),
    "classifier": lambda: exact_derivative(
        with_classifier(mixture(), mixture().module.classifier, conditional=False),
        classifier_scale=2.5,
    ),
}


@pytest.mark.parametrize("kind", list(GUIDED))
def test_the_exact_derivative_of_a_guided_ode(kind):
    network = GUIDED[kind]()
    x, y = column(0.7, -0.3, 0.1), torch.tensor([0, 2, 1])
    t = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    found = network.module(x, t, y)[1]
    assert (found - along_the_ode(network, x, t, y, 1e-5)).abs().max() < 1e-6
    # Guiding the derivatives of the branches is something else.
    c, u = EXACT.module(x, t, y)[1], EXACT.module(x, t)[1]
    assert (found - (2.5 * c - 1.5 * u)).abs().max() > 0.1
    with pytest.raises(ValueError, match=r"to a class|needs a condition"):
        Sampler(network, "genie", 2).sample(2)


def test_a_classifier_that_sees_x_over_alpha():
    """Its gradient is that of what it sees, a multiple of x."""
    own = mixture().module

    def natural(x_bar, t):
        return x_bar * levels(VP(), t)[0][:, None]

    network = ScoreNetwork(
        lambda x_bar, t: own(natural(x_bar, t), t), VP(), (1,), scale="sigma", null=3, classes=3,
        label_dtype=torch.float64,
    )  # fmt: skip
    classified = with_classifier(
        network, lambda x_bar, t: own.classifier(natural(x_bar, t), t), conditional=False
    )
    x, y = column(0.7, -0.3), torch.tensor([0, 2])
    t = torch.tensor([0.1, 0.4], dtype=torch.float64)
    scaled, plain = (make.module(x, t, y) for make in (
        exact_derivative(classified, classifier_scale=2.5), GUIDED["classifier"](),
    ))  # fmt: skip
    for a, b in zip(scaled, plain, strict=True):
        assert (a - b).abs().max() < 1e-9


def test_named_conditions_of_an_exactly_guided_network():
    own = mixture().module
    named = ScoreNetwork(
        lambda x, t, *, y: own(x, t, y),
        VP(),
        (1,),
        null={"y": torch.tensor(3)},
        label_dtype=torch.float64,
    )
    x, y = column(0.7, -0.3), torch.tensor([0, 2])
    t = torch.tensor([0.1, 0.4], dtype=torch.float64)
    found = exact_derivative(named, guidance=2.5).module(x, t, y=y)
    for a, b in zip(found, GUIDED["free"]().module(x, t, y), strict=True):
        assert torch.equal(a, b)


def test_the_exact_derivative_under_autocast():
    """A tangent in half precision has no digits: the module runs in its own dtype."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 4)

        def forward(self, x, t):
            return torch.sin(self.layer(x)) * (1.0 + t.to(x.dtype))[:, None]

    exact = exact_derivative(ScoreNetwork(Linear().eval(), VP(), (4,)))
    x, t = torch.randn(3, 4), torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    want = exact.module(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        got = exact.module(x, t)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def test_both_guidances_follow_one_ode():
    """log p(y | x) is log p(x | y) - log p(x): the same scale is the same score."""
    x, y = column(0.7, -0.3), [0, 2]
    a, b = (
        Sampler(make(), "genie", 12, end="t_min", **F64)
        .sample(x=x, noised=True, condition=y)
        .samples
        for make in GUIDED.values()
    )
    assert (a - b).abs().max() < 1e-9


@pytest.mark.parametrize(
    "options, request_, message",
    [
        ({"interval": (0.1, 2.0)}, {}, "this network follows one guided ODE for all times"),
        ({"classifier_scale": 3.0}, {}, r"is guided within; say exact_derivative\("),
        ({"guidance": 3.0}, {"condition": 1}, "needs an unconditional branch"),
        (
            {},
            {"compose": [(0, 1.0), (1, 1.0)]},
            "that of one guided ODE, which no composition follows",
        ),
    ],
)
def test_what_an_exactly_guided_network_would_not_follow(options, request_, message):
    with pytest.raises(ValueError, match=message):
        Sampler(GUIDED["free"](), "genie", 3, **options).sample(**request_)
