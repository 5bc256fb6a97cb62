"""Stochastic solvers in the forms whose laws are tested: the engine's networks, and the independent loops."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from analytic import BY_SCHEDULE
from cld_cases import law
from oracles import common
from oracles.correlated import Correlated, VelocityScore
from oracles.problems import SCHEDULES
from oracles.solvers import oracle, sample

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork
from diffusion_engine.networks.prediction import Velocity
from diffusion_engine.processes import CLD
from diffusion_engine.solvers import Solver
from diffusion_engine.solvers.ald import PRESETS
from diffusion_engine.testing.exact import angle, unit

GAUSSIAN = Correlated([1.0], [[0.3]], [[[0.25]]])
MIXTURE = Correlated(
    [0.3, 0.45, 0.25],
    [[-0.9, 0.4, 0.2], [0.3, -0.3, 0.5], [0.8, 0.6, -0.7]],
    [
        [[0.06, 0.03, -0.02], [0.03, 0.05, 0.01], [-0.02, 0.01, 0.04]],
        [[0.04, -0.02, 0.01], [-0.02, 0.08, 0.03], [0.01, 0.03, 0.05]],
        [[0.05, 0.02, 0.02], [0.02, 0.03, -0.01], [0.02, -0.01, 0.06]],
    ],
)
POWERS = 2  # of the derivative that sscs_exact is given
CHURN = {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003, "churn_limit": 0.2}
# Forms beside the plain one; together they vary every option of the solver.
FORMS: dict[str, list[dict]] = {
    "euler": [CHURN, {"s_churn": 3.0, "call_before_noise": True}],
    "euler_ancestral": [{"eta": 0.5, "s_noise": 1.1}],
    "dpm_2_ancestral": [{"eta": 0.5, "s_noise": 1.1}],
    "dpm_fast": [{"eta": 1.0, "s_noise": 1.1}, {"eta": 0.5, "rest": 0}],
    "heun": [CHURN],
    "dpm_2": [CHURN],
    "ddim": [{"eta": 0.5}, {"eta": 1.0, "clipped_eps": False}],
    "ddpm": [
        *({"variance": v} for v in ("fixed_large", "learned", "learned_range")),
        {"variance": "fixed_large", "last_noise": True},
    ],
    "dpmpp_sde": [{"eta": 0.5, "s_noise": 0.9}, {"r": 0.4}, {"one_path": False}],
    "dpmpp_2m_sde": [{"eta": 0.5, "s_noise": 0.9, "variant": "heun"}, {"lower_order_final": True}],
    "dpmpp_3m_sde": [
        {"eta": 0.5, "s_noise": 0.9},
        {"kappa": 2.0},
        {"flipped": True},
        {"variant": "midpoint", "lower_order_final": True},
        {"euler_at_final": True},
    ],
    "euler_overshoot": [{"eta": 2.0}, {"eta": 0.5, "s_noise": 1.1, "relative": True}],
    "dpmpp_2s_ancestral": [{"eta": 0.5, "s_noise": 1.1}, {"coordinates": "flow"}],
    "res_multistep": [
        {"eta": 1.0},
        {"eta": 0.5, "s_noise": 0.9, "coordinates": "flow"},
    ],
    "heunpp2": [CHURN, CHURN | {"coordinates": "flow"}],
    "dpm_solver_sde": [
        {"eta": 0.5, "s_noise": 0.9, "variant": "heun"},
        {"max_order": 1},
        {"lower_order_final": True},
    ],
    "er_sde": [
        {"noise_scaler": "sde", "eta": 0.5, "s_noise": 0.9},
        {"max_order": 2, "variant": "newton", "terms": 200},
    ],
    "seeds_2": [{"eta": 0.5, "s_noise": 0.9, "variant": "heun", "r": 1.0}],
    "seeds_3": [{"eta": 0.5, "s_noise": 0.9, "r_1": 0.4, "r_2": 0.9}],
    "sa_solver": [
        {"predictor_order": 2, "corrector_order": 2, "eta": 0.5, "s_noise": 0.9, "simple": True},
        {"s_tmin": 0.1, "s_tmax": 3.0, "tau_at": "start", "lower_order_final": False}
        | {"pece": True, "final_corrector": 0},
    ],
    "dpmpp_singlestep": [
        {"eta": 1.0},
        {"eta": 0.5, "s_noise": 0.9, "max_order": 3, "lower_order_final": False},
        {"eta": 1.0, "fresh": True},
        {"eta": 1.0, "max_order": 3, "variant": "heun", "begin": 2},
        {"eta": 1.0, "max_order": 3, "variant": "heun", "flipped": True},
    ],
    "euler_maruyama": [{"step": "1/N"}, {"denoise": False}, {"noise": False}],
    "reverse_diffusion": [{"step": "1/N"}, {"denoise": False}, {"noise": False}],
    "ancestral": [{"step": "1/N"}, {"denoise": False}],
    "dpdm_sde": [{"denoise": False, "step": "1/N"}, {"noise": False}],
    "ald": [{"preset": "ncsnv2"}, {"n_steps": 2, "snr": 0.3, "denoise": False}],
    "flow_sde": [{"noise_level": 0.4}, {"denoise": False}],
    "cps": [{"noise_level": 0.4}],
    "consistency": [{"indices": (0, 9, 12, 20), "scales": 21}],
    "lcm": [{"scaling": 0.1, "original": 40}],
    "flow_map": [{"gamma": 1.0}],
    "scm": [{"intermediate": 1.1}],
    "tcd": [{"eta": 1.0, "original": 40}],
    "sscs": [{"merged": False}, {"published": True}],
    "sscs_mid": [{"merged": False}],
    "sscs_mixed": [{"merged": False}],
    "sscs2": [{"merged": False}],
    "sscs_exact": [{"merged": False}],
}


def noisy(kind: type[Solver]) -> dict | None:
    """{} of a stochastic solver, an option that makes another one stochastic, or None."""
    if kind().stochastic:
        return {}
    for field in dataclasses.fields(kind):
        for value in {float: (0.5, 1.0), bool: (not field.default,)}.get(type(field.default), ()):
            try:
                if kind(**{field.name: value}).stochastic:
                    return {field.name: value}
            except ValueError:
                continue
    return None


STOCHASTIC = [name for name, kind in SOLVERS.items() if noisy(kind) is not None]


class Form(NamedTuple):
    """A solver with its options."""

    name: str
    options: dict

    def __str__(self):
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])

    @property
    def kind(self) -> type[Solver]:
        return SOLVERS[self.name]


def forms(name: str) -> list[Form]:
    """The plain stochastic form, then the others."""
    others = FORMS.get(name, [])
    plain = [] if others and not SOLVERS[name]().stochastic else [noisy(SOLVERS[name])]
    return [Form(name, options) for options in plain + others]


PLAIN = [forms(name)[0] for name in STOCHASTIC]
ALL = [form for name in STOCHASTIC for form in forms(name)]


# --- networks --------------------------------------------------------------------------------


class Estimate(torch.nn.Module):
    """E[x0 | x] of x / sqrt(alpha^2 + sigma^2), told arctan(sigma / alpha); where it is `learned`, with a log
    variance, or a place between two, in a second block of channels."""

    def __init__(self, data, learned):
        super().__init__()
        self.data, self.learned = data, learned

    def forward(self, x, label, end=None):
        out = torch.empty(len(x), (1 + self.learned) * x.shape[1], dtype=x.dtype)
        for told in label.unique().tolist():  # samples of one batch may be at different times
            here = label == told
            made = self.data.denoised(x[here].double().numpy(), math.cos(told), math.sin(told))
            if self.learned:
                made = np.concatenate([made, np.full_like(made, log_variance(told))], -1)
            out[here] = torch.from_numpy(made).to(x.dtype)
        return out


class Posterior(torch.nn.Module):
    """A generator G(x, i, z) that draws from p(x0 | x)."""

    def __init__(self, data, process):
        super().__init__()
        self.data, self.process = data, process

    def forward(self, x, label, z):
        out = torch.empty_like(x)
        for t in label.unique().tolist():
            here, at = label == t, self.process.at(t)
            given = (part[here].double().numpy() for part in (x, z[:, 0], z[:, 1:]))
            state, chosen, normals = given
            made = self.data.drawn(state, at.alpha, at.sigma, chosen, normals)
            out[here] = torch.from_numpy(made).to(x.dtype)
        return out


class Velocities(torch.nn.Module):
    """The output o of CLD's networks, and D v, D o, D^2 v, ... with D = do/dv."""

    def __init__(self, data, process, prediction):
        super().__init__()
        self.score = VelocityScore(data, law(process))
        self.process, self.prediction = process, prediction

    def forward(self, u, label):
        out = torch.empty(len(u), u.shape[1] // 2 * self.prediction.outputs, dtype=u.dtype)
        for t in label.unique().tolist():
            here = label == t
            x, v = np.split(u[here].double().numpy(), 2, axis=-1)
            out[here] = torch.from_numpy(np.concatenate(self.blocks(x, v, t), -1)).to(u.dtype)
        return out

    def blocks(self, x, v, t):
        on_v, on_output = self.prediction.score(self.process, t)
        o = (self.score(x, v, t) - on_v * v) / on_output
        blocks, pair = [o], [v, o]
        if self.prediction.powers:
            d = (self.score.slope(x, v, t) - on_v * np.eye(v.shape[-1])) / on_output
        for _ in range(self.prediction.powers):
            pair = [np.einsum("...ij,...j->...i", d, part) for part in pair]
            blocks += pair
        return blocks


def log_variance(told: float) -> float:
    """Of the angle: a log variance, and between -1 and 1 a place between the two of a step."""
    return -0.3 - 0.5 * math.cos(told)


def network(form: Form, data: Correlated, process) -> ScoreNetwork:
    """The exact network of data, in the form that the solver takes."""
    shape = (data.size,)
    told = {"label_dtype": torch.float64}
    if isinstance(process, CLD):
        prediction = Velocity(mixed=True, powers=POWERS if form.name == "sscs_exact" else 0)
        return ScoreNetwork(
            Velocities(data, process, prediction), process, shape, prediction, **told
        )
    if form.name == "ddgan":
        made = Posterior(data, process)
        return ScoreNetwork(made, process, shape, "x0", latent=1 + data.size, **told)
    learned = form.options.get("variance", "").startswith("learned")
    if learned:
        told["variance"] = form.options["variance"]
    if form.name == "flow_map":  # a step is the solver's own, whatever it is told of its end
        told["end_label"] = lambda at, end: angle(end)
    return ScoreNetwork(
        Estimate(data, learned), process, shape, "x0", label=angle, scale=unit, **told
    )


# --- loops -----------------------------------------------------------------------------------


def to_loop(form: Form) -> dict:
    """The options as the loops have them."""
    options = dict(form.options)
    for own in ("merged", "clipped_eps", "indices", "scales", "intermediate"):
        options.pop(own, None)  # the same law, or times of the run
    if not options.pop("noise", True):
        options["ode"] = True
    if form.name == "sscs_exact":
        options["powers"] = POWERS
    if form.name == "ald":
        preset = PRESETS[options.pop("preset", "ncsn")]
        options = dict(zip(("n_steps", "snr"), preset, strict=True)) | options
    rule = options.get("variance")
    if rule == "learned":
        options["variance"] = lambda s, small, large: math.exp(log_variance(math.atan(s.ratio)))
    elif rule == "learned_range":

        def between(s, small, large):
            place = 0.5 * (log_variance(math.atan(s.ratio)) + 1.0)
            return large**place * max(small, 1e-20) ** (1.0 - place)

        options["variance"] = between
    return options


def by_loop(form: Form, sampler: Sampler, data: Correlated, draw) -> tuple[list, list]:
    """(what the network read in its calls, the end), by the oracle, on the sampler's times.

    draw  () -> standard normals [..., d]
    """
    rule = of_cld if isinstance(sampler.network.process, CLD) else of_x
    return rule(form, sampler, data, draw)


def of_cld(form: Form, sampler: Sampler, data: Correlated, draw) -> tuple[list, list]:
    process, reads = sampler.network.process, []
    times = [p.t for p in sampler.points if p.sigma > 0.0]
    score, denoise = VelocityScore(data, law(process)), len(times) < len(sampler.points)

    def watched(x, v, t):
        reads.extend([x, v])
        return score(x, v, t)

    watched.slope = score.slope
    x, v = draw(), math.sqrt(process.mass) * draw()
    run = law(process), watched, times, x, v, lambda *_: draw()
    ends = oracle(form.name)(*run, denoise=denoise, **to_loop(form))
    return reads, list(ends[:1] if denoise else ends)


def of_x(form: Form, sampler: Sampler, data: Correlated, draw) -> tuple[list, list]:
    process, reads = sampler.network.process, []

    def denoiser(x, at):
        reads.append(x / math.hypot(at.alpha, at.sigma))
        if form.name == "ddgan":
            return data.drawn(x, at.alpha, at.sigma, draw()[..., 0], draw())
        return data.denoiser(x, at)

    schedule = next((SCHEDULES[k] for k, known in BY_SCHEDULE.items() if known is process), None)
    points = [common.Point(p.t, p.alpha, p.sigma, p.lam) for p in sampler.points]
    x = process.prior_std(sampler.points[0]) * draw()
    return reads, [
        sample(form.name, denoiser, schedule, points, x, lambda *_: draw(), **to_loop(form))
    ]
