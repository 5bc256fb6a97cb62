"""Networks that are told where a step starts and where it ends, and the solver that jumps by them."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tape import TapeRecorder, taped
from torch import nn

from diffusion_engine import Engine, Sampler, ScoreNetwork
from diffusion_engine.executors import Graph, stages
from diffusion_engine.genie import exact_derivative
from diffusion_engine.networks.classifier import with_classifier
from diffusion_engine.networks.parameterisation import END_LABELS, Parameterisation
from diffusion_engine.plan import Plan
from diffusion_engine.processes import CLD, EDM, VE, VP, FlowMatching
from diffusion_engine.rollouts import log_prob
from diffusion_engine.solvers import Update, denoised
from diffusion_engine.testing import Mixture, MixtureFlowMap

DOUBLE = {"dtype": torch.float64, "backend": "torch"}
MEAN, STD = 0.3, 0.5  # of Gaussian data
PROCESSES = [VP(), EDM(t_max=20.0), FlowMatching(), VE(sigma_max=10.0)]


def moved(x, a, s, b, t):
    """The ODE of Gaussian data from (alpha, sigma) = (a, s) to (b, t)."""
    shrink = (b**2 * STD**2 + t**2) / (a**2 * STD**2 + s**2)
    return b * MEAN + (x - a * MEAN) * shrink**0.5


def of(labels, x):
    return labels.double().view(-1, *[1] * (x.ndim - 1))


ENDS = {
    "t": lambda t, end: end,
    "dt": lambda t, end: t - end,
    "log2": lambda t, end: t - 2.0**-end,
}


class MeanFlow(nn.Module):
    """u(x, t, end) = (x_t - x_r) / (t - r) on flow matching; told r, t - r, or log2(1 / (t - r))."""

    def __init__(self, end="t", scaled=1.0):
        super().__init__()
        self.end, self.scaled, self.calls = ENDS[end], scaled, []

    def forward(self, x, t, end, *condition, **named):
        self.calls.append((t.clone(), end.clone()))
        t, x0 = of(t, x) / self.scaled, x.double()
        r = self.end(t, of(end, x) / self.scaled)
        return ((x0 - moved(x0, 1.0 - t, t, 1.0 - r, r)) / (t - r)).to(x.dtype)


def ctm_rule(at):
    """EDM's D from g: the network returns g itself, c_skip = 0."""
    return 0.0, 1.0


class CTM(nn.Module):
    """g(x, t, s) with G = s / t x + (1 - s / t) g, told log(t) / 4 and log(s + 1e-44) / 4 as by EDM."""

    def forward(self, x, t, end):
        t, s = (4.0 * of(t, x)).exp(), (4.0 * of(end, x)).exp()
        state = x.double()
        jump = moved(state, 1.0, t, 1.0, s)
        return ((jump - s / t * state) / (1.0 - s / t)).to(x.dtype)


CONVENTIONS = {
    "MeanFlow, t and r": lambda: ScoreNetwork(
        MeanFlow(), FlowMatching(), (5,), "flow", end_label="t", label_dtype=torch.float64
    ),
    "MeanFlow, t and t - r": lambda: ScoreNetwork(
        MeanFlow("dt"), FlowMatching(), (5,), "flow", end_label="dt", label_dtype=torch.float64
    ),
    "shortcut": lambda: ScoreNetwork(
        MeanFlow("log2"), FlowMatching(), (5,), "flow", label_dtype=torch.float64,
        end_label=lambda at, end: -math.log2(at.t - end.t),
    ),
    "1000 t": lambda: ScoreNetwork(
        MeanFlow(scaled=1000.0), FlowMatching(), (5,), "flow", label="1000t", end_label="1000t",
        label_dtype=torch.float64,
    ),
    "CTM": lambda: ScoreNetwork(
        CTM(), EDM(), (5,), ctm_rule, label="log_sigma/4", label_dtype=torch.float64,
        end_label=lambda at, end: math.log(end.ratio + 1e-44) / 4.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_any_number_of_steps_ends_where_the_ode_does(convention, n):
    network = CONVENTIONS[convention]()
    sampler = Sampler(network, "flow_map", n, **DOUBLE)
    x = torch.randn(3, 5, dtype=torch.float64)
    first, last = sampler.points[0], sampler.points[-1]
    wanted = moved(x, first.alpha, first.sigma, last.alpha, last.sigma)
    made = sampler.sample(x=x, noised=True).samples
    assert sampler.plan().nfe == n
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12 * first.sigma)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_a_mixture_in_one_step_and_in_many(process):
    network = MixtureFlowMap().network(process, (4,))
    one, many = (Sampler(network, "flow_map", n, **DOUBLE).sample(2).samples for n in (1, 3))
    torch.testing.assert_close(one, many, rtol=0, atol=1e-13)


def test_a_mixture_ends_where_its_ode_does():
    made = Sampler(MixtureFlowMap().network(FlowMatching(), (4,)), "flow_map", 1, **DOUBLE)
    fine = Sampler(Mixture().network(FlowMatching(), (4,)), "heun", 150, **DOUBLE)
    torch.testing.assert_close(made.sample(3).samples, fine.sample(3).samples, rtol=0, atol=2e-3)


@pytest.mark.parametrize("solver", ["ddim", "euler"])
def test_solvers_of_one_jump_a_step_are_the_same(solver):
    network = MixtureFlowMap().network(VP(), (4,))
    plain = Sampler(network, "flow_map", 3, **DOUBLE).sample(3).samples
    same = Sampler(network, solver, 3, **DOUBLE).sample(3).samples
    torch.testing.assert_close(plain, same, rtol=0, atol=1e-13)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("options", [{"gamma": 0.6}, {"eta": 0.7}], ids=str)
def test_a_jump_below_the_level_is_told_where_it_ends(process, options):
    """With noise that leads up again the state keeps the law of the exact one at every level."""
    solver = "ddim" if "eta" in options else "flow_map"
    network = MixtureFlowMap().network(process, (1,))
    sampler = Sampler(network, solver, 2, end="t_min", batch_size=3000, **options)
    for row in sampler.plan().rows[1:-1]:
        assert row.call.until.ratio < row.state.ratio
        assert row.call.end_label == pytest.approx(math.atan(row.call.until.ratio), abs=1e-12)
    made = sampler.sample(3000).samples.double().flatten()
    mixture, last = Mixture(), sampler.points[-1]
    mean = sum(w * m for w, m in zip(mixture.weights, mixture.means, strict=True))
    square = sum(
        w * (m * m + s * s)
        for w, m, s in zip(mixture.weights, mixture.means, mixture.stds, strict=True)
    )
    spread = last.alpha**2 * (square - mean**2) + last.sigma**2
    assert abs(float(made.mean()) - last.alpha * mean) < 5.0 * math.sqrt(spread / 3000)
    assert abs(float(made.var()) / spread - 1.0) < 5.0 * math.sqrt(2.0 / 3000)


def test_ctm_sampling_is_that_of_the_paper():
    """Algorithm 3: s~ = sqrt(1 - gamma^2) s, x = G(x, t, s~) + gamma s z."""
    network, gamma, noise = CONVENTIONS["CTM"](), 0.6, torch.randn(4, 1, 2, 5).double()
    sampler = Sampler(network, "flow_map", sigmas=[80.0, 5.0, 0.5, 0.0], gamma=gamma, **DOUBLE)
    made = sampler.sample(2, noise=noise).samples
    x, sigmas = 80.0 * noise[0, 0], [80.0, 5.0, 0.5, 0.0]
    for i, (t, s) in enumerate(pairwise(sigmas), 1):
        low = math.sqrt(1.0 - gamma**2) * s
        x = moved(x, 1.0, t, 1.0, low) + gamma * s * noise[i, 0]
    torch.testing.assert_close(made, x, rtol=0, atol=1e-12)


class Told(nn.Module):
    """A network whose bits say what it was told, in any order of entries."""

    def forward(self, x, label, end, *rest, **named):
        shift = 0.25 * label.to(x.dtype) + end.to(x.dtype)
        for more in (*rest, *named.values()):
            shift = shift + more.to(x.dtype).flatten(1).sum(1) if more.ndim > 1 else shift + more
        return 0.5 * x + shift.view(-1, 1, 1, 1)


def told(**options):
    return ScoreNetwork(Told(), VP(), (1, 3, 3), "x0", **{"end_label": "t", **options})


EXECUTORS = {
    "torch": {"backend": "torch"},
    "cpp": {"backend": "cpp"},
    "native": {"executor": "native"},
    "graph": {"executor": Graph(recorder=TapeRecorder())},
}


@pytest.mark.parametrize(
    "dtype, guided", [(torch.float32, True), (torch.float64, False), (torch.int64, True)], ids=str
)
def test_the_same_bits_on_every_backend_and_executor(dtype, guided, monkeypatch):
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    how = {"label": "1000t", "end_label": "1000t", "label_dtype": dtype}
    how |= {"null": torch.zeros(2), "latent": 3} if guided else {}
    asked = {"guidance": 2.0, "interval": (0.3, 0.8)} if guided else {}
    given = {"condition": torch.ones(2, 2)} if guided else {}
    first, *others = (
        Sampler(told(**how), "flow_map", 4, gamma=0.3, **where, **asked)
        .sample(seeds=[5, 9], **given)
        .samples
        for where in EXECUTORS.values()
    )
    assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(first[0], first[1])


def test_samples_of_other_steps_share_calls():
    network = told()
    alone = [Sampler(network, "flow_map", n).sample(1, seed=n).samples for n in (2, 3, 5)]
    with Engine(network) as engine:
        asked = [{"solver": "flow_map", "steps": n} for n in (2, 3, 5)]
        handles = [engine.submit(spec, seeds=[spec["steps"]]) for spec in asked]
        made = [handle.result(60).samples for handle in handles]
    assert all(torch.equal(a, b) for a, b in zip(alone, made, strict=True))


def test_a_guidance_scale_stands_beside_both_labels():
    network = told(scale_input=lambda w: {"w": w[:, None]})
    one, two = (Sampler(network, "flow_map", 2, guidance=w).sample(1).samples for w in (1.0, 3.0))
    plan = Sampler(network, "flow_map", 2).plan()
    assert plan.evaluations == 2 and not torch.equal(one, two)


def test_a_rollout_calls_the_network_again():
    sampler = Sampler(told(), "flow_map", 3, gamma=0.5, **DOUBLE)
    made = sampler.sample(2, record=("trajectory", "log_prob")).rollout
    torch.testing.assert_close(log_prob(made, sampler.network), made.log_prob, rtol=1e-6, atol=1e-6)


def test_encoding_goes_up_by_jumps():
    network = MixtureFlowMap().network(VP(), (4,))
    sampler = Sampler(network, "flow_map", 2, end="t_min", **DOUBLE)
    result = sampler.sample(3)
    up = sampler.encode(result.samples, start=sampler.points[-1].t).samples
    down = sampler.sample(x=up, noised=True).samples
    torch.testing.assert_close(down, result.samples, rtol=0, atol=1e-9)


def test_plans_are_saved_with_both_labels():
    plan = Sampler(told(), "flow_map", 3, gamma=0.5).plan()
    assert "end_label=" in str(plan)
    again = Plan.from_json(plan.to_json())
    assert again == plan and again.rows[1].call.until == plan.rows[1].call.until
    made = Sampler.from_plan(told(), again).sample(1).samples
    assert torch.equal(made, Sampler(told(), "flow_map", 3, gamma=0.5).sample(1).samples)
    body = json.loads(plan.to_json())
    for row in body["rows"][1:]:
        del row["call"]["end_label"], row["call"]["until"]
    old = Plan.from_json(json.dumps(body))  # as files were before
    assert old.rows[1].call.end_label is None
    plain = json.loads(Sampler(Mixture().network(VP()), "ddim", 2).plan().to_json())
    assert set(plain["rows"][1]["call"]) == {"at", "label", "read", "c_in"}


@pytest.mark.parametrize("name", END_LABELS)
def test_names_of_end_labels(name):
    about = Parameterisation(EDM(), (1,), end_label=name)
    s, t = about.process.at(9.0), about.process.at(4.0)
    wanted = {"dt": 5.0, "t": 4.0, "sigma": 4.0, "999t": 3996.0, "1000t": 4000.0}
    log = {"log_sigma": 1.0, "log_sigma/4": 0.25, "lam": -1.0, "gamma": 2.0}
    wanted |= {key: k * math.log(4.0) for key, k in log.items()}
    assert about.end_label_of(s, t) == pytest.approx(wanted[name], rel=1e-12)
    assert replace(about, whole_label=True).end_label_of(s, t) == round(wanted[name])
    assert Parameterisation(EDM(), (1,)).end_label_of(s, t) is None


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Sampler(told(), "heun", 3), "no single end; use 'flow_map', 'ddim' or 'euler'"),
        (lambda: Sampler(told(), "dpmpp_2m", 3), "no single end"),
        (lambda: Sampler(told(), "euler", 3, s_churn=9.0, call_before_noise=True), "no single end"),
        (lambda: Sampler(Mixture().network(VP()), "flow_map", 3), "say ScoreNetwork(end_label=...)"),
        (lambda: Sampler(told(), "flow_map", 3, gamma=1.5), "gamma=1.5: CTM's gamma lies between"),
        (lambda: told(end_label="when"), "unknown end_label 'when'; choose dt, t,"),
        (lambda: told(end_label=3), "end_label=3"),
        (lambda: Sampler(told(end_label=lambda at, end: "x"), "flow_map", 2), "end_label"),
        (
            lambda: Sampler(told(end_label="log_sigma"), "flow_map", 2),
            "end_label='log_sigma' of a step from t=0.001",
        ),
        (lambda: Update(VP().at(0.5), {0: denoised}, None, until=0.3), "Update(until=0.3)"),
        (lambda: told()(torch.zeros(1, 1, 3, 3), torch.zeros(1), None), "called without"),
        (
            lambda: Mixture().network(VP())(torch.zeros(1, 1), torch.zeros(1), None, None, torch.ones(1)),
            "has no end_label",
        ),
        (lambda: exact_derivative(told()), "told where its step ends"),
        (lambda: with_classifier(told(), nn.Identity()), "told where its step ends"),
        (
            lambda: Sampler.from_plan(told(), Sampler(told(end_label=None), "ddim", 2).plan()),
            "tells it no end of its step",
        ),
        (
            lambda: Sampler.from_plan(told(end_label="dt"), Sampler(told(), "ddim", 2).plan()),
            "has the end label",
        ),
        (lambda: Sampler(told(), "sscs", 2), "moves [x, v]"),
    ],
)  # fmt: skip
def test_errors(make, text):
    with pytest.raises(ValueError) as caught:
        make()
    assert text in str(caught.value)


def test_cld_is_refused():
    with pytest.raises(ValueError, match=r"moves x alone and CLD has"):
        Sampler(ScoreNetwork(Told(), CLD(), (1,), "velocity", end_label="t"), "flow_map", 2)
