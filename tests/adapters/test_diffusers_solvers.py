"""Every solver against the step of the scheduler class that has its formula, on that scheduler's own levels.

The network is smooth and knows its time. diffusers' tables are made float64, so that what is left is the
formulas' difference; where a step itself rounds to float32, that is.
"""

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from optional import diffusers

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP, Discrete, FlowMatching, Point

X = torch.linspace(-1.7, 1.9, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
ENDS_LOW = {"final_sigmas_type": "sigma_min"}
ENDS = [  # lower_order_final, euler_at_final, final_sigmas_type
    (True, False, "zero"),
    (True, False, "sigma_min"),
    (False, False, "sigma_min"),
    (False, True, "sigma_min"),
]


def network(x, t):
    """A prediction: x's, of another channel and of the time."""
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1)) / 1000.0
    return 0.8 * torch.tanh(0.9 * x + 0.3 * x.roll(1, 1) + 0.4 * torch.cos(3.0 * t)) + 0.1 * t * x


def noise_of(call):
    generator = torch.Generator().manual_seed(100 + call)
    return torch.randn(X.shape, generator=generator, dtype=torch.float32).double()


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def widened(scheduler):
    """float64 copies of the tables that a step reads."""
    for name, value in list(vars(scheduler).items()):
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            setattr(scheduler, name, value.double())


def theirs(scheduler, x, begin, monkeypatch, **step):
    """Their loop: network, then step, with normals that belong to the call."""
    module, call = sys.modules[type(scheduler).__module__], 0
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise_of(call))
    if begin:
        scheduler.set_begin_index(begin)
    for call, t in enumerate(scheduler.timesteps[begin:]):  # noqa: B007
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(scaled, t), t, x, return_dict=False, **step)[0]
    return x


def ours(process, points, prediction, solver, x, **options):
    label = "1000t" if isinstance(process, FlowMatching) else "t"
    made = ScoreNetwork(
        network, process, tuple(X.shape[1:]), prediction, label, label_dtype=torch.float64
    )
    sampler = Sampler(
        made, solver, times=points, dtype=torch.float64, backend="torch", **options
    )  # fmt: skip
    return sampler.sample(x=x, noised=True, noise=lambda i, m, seeds: noise_of(i - 1)).samples


def levels(scheduler):
    """The points of a run, a level of sigma / alpha once, with the timestep that the network is told."""
    sigmas, times = scheduler.sigmas.tolist(), scheduler.timesteps.tolist()
    keep = [i for i in range(len(sigmas)) if i == 0 or sigmas[i] != sigmas[i - 1]]
    if "KDPM2" in type(scheduler).__name__:  # every other one lies between two levels
        told = times[::2]
    else:
        told = [times[0], *(t for a, t in pairwise(times) if t != a)]
    flow = scheduler.config.get("use_flow_sigmas") or "FlowMatch" in type(scheduler).__name__
    made = []
    for i, t in zip(keep, [*told, 0.0], strict=True):
        g = sigmas[i]
        alpha = 1.0 - g if flow else 1.0 / math.sqrt(1.0 + g * g)
        made.append(Point(t / 1000.0 if flow else float(t), alpha, g if flow else alpha * g))
    return made


def off(a, b):
    return float((a - b).abs().max() / b.abs().max())


def agree(scheduler, solver, options, n, monkeypatch, begin=0, tolerance=1e-10, **step):
    scheduler.set_timesteps(n)
    widened(scheduler)
    points = levels(scheduler)[begin:]
    flow = scheduler.config.get("use_flow_sigmas") or "FlowMatch" in type(scheduler).__name__
    bar = getattr(scheduler, "alphas_cumprod", None)
    process = FlowMatching() if flow else Discrete(alpha_bar=tuple(bar.double().tolist()))
    kind = KINDS[scheduler.config.get("prediction_type", "flow_prediction")]
    ratio = not flow and scheduler.init_noise_sigma > 1.5  # a state of x / alpha
    given = X / points[0].alpha if ratio else X
    wanted = theirs(scheduler, given, begin, monkeypatch, **step)
    if ratio:
        wanted = wanted * points[-1].alpha
    made = ours(process, points, kind, solver, X, **options)
    assert off(made, wanted) < tolerance, (type(scheduler).__name__, dict(scheduler.config))


MULTISTEP = [
    ("dpmsolver++", 1, "ddim", {}),
    ("dpmsolver++", 2, "dpmpp_2m", {}),
    ("dpmsolver++", 3, "dpmpp_3m", {"kappa": 1.0}),
    ("dpmsolver", 1, "ddim", {}),
    ("dpmsolver", 2, "dpm_solver_2m", {}),
    ("dpmsolver", 3, "dpm_solver_3m", {"kappa": 1.0}),
    ("sde-dpmsolver++", 1, "ddim", {"eta": 1.0}),
    ("sde-dpmsolver++", 2, "dpmpp_2m_sde", {}),
    ("sde-dpmsolver++", 3, "dpmpp_3m_sde", {"flipped": True}),
    ("sde-dpmsolver", 1, "dpm_solver_sde", {"max_order": 1}),
    ("sde-dpmsolver", 2, "dpm_solver_sde", {}),
]


@pytest.mark.parametrize("n", [7, 20])
@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize("lower, euler, end", ENDS)
@pytest.mark.parametrize("algorithm, order, solver, options", MULTISTEP)
def test_dpm_solver_multistep(
    algorithm, order, solver, options, lower, euler, end, kind, n, monkeypatch
):
    if end == "zero" and not algorithm.endswith("++"):
        pytest.skip("diffusers refuses it")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        solver_order=order, algorithm_type=algorithm, solver_type=kind, lower_order_final=lower,
        euler_at_final=euler, final_sigmas_type=end,
    )  # fmt: skip
    lower = lower and n < 15
    if order == 2:
        options = {"variant": kind, "lower_order_final": lower or euler} | options
    elif order == 3:
        ends = {"lower_order_final": lower, "euler_at_final": euler}
        options = {"kappa": 1.0, "variant": kind} | ends | options
    # Its step rounds the state to float32.
    agree(scheduler, solver, options, n, monkeypatch, tolerance=2e-6)


@pytest.mark.parametrize("n, begin", [(6, 0), (7, 0), (8, 0), (7, 1), (8, 2)])
@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize("end, lower", [("zero", True), ("sigma_min", True), ("sigma_min", False)])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "dpmsolver", "sde-dpmsolver++"])
def test_dpm_solver_singlestep(algorithm, order, end, lower, kind, n, begin, monkeypatch, doubles):
    if end == "zero" and algorithm == "dpmsolver":
        pytest.skip("diffusers refuses it")
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        solver_order=order, algorithm_type=algorithm, solver_type=kind, lower_order_final=lower,
        final_sigmas_type=end,
    )  # fmt: skip
    options = {"max_order": order, "variant": kind, "lower_order_final": lower, "begin": begin}
    if algorithm == "sde-dpmsolver++":
        options |= {"eta": 1.0, "fresh": True, "flipped": True}
    solver = "dpm_solver_singlestep" if algorithm == "dpmsolver" else "dpmpp_singlestep"
    agree(scheduler, solver, options, n, monkeypatch, begin, tolerance=1e-9)


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_predictions(predicts, monkeypatch, doubles):
    flow = predicts == "flow_prediction"
    how = {"prediction_type": predicts, "use_flow_sigmas": flow}
    scheduler = diffusers.DPMSolverSinglestepScheduler(solver_order=3, **how)
    agree(scheduler, "dpmpp_singlestep", {"max_order": 3}, 7, monkeypatch, tolerance=1e-9)
    scheduler = diffusers.UniPCMultistepScheduler(**how)
    agree(scheduler, "unipc", {"max_order": 2}, 7, monkeypatch, tolerance=1e-9)


@pytest.mark.parametrize("n", [7, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("lower", [True, False])
def test_deis(order, lower, n, monkeypatch, doubles):
    scheduler = diffusers.DEISMultistepScheduler(solver_order=order, lower_order_final=lower)
    options = {"variant": "logrho", "max_order": order, "lower_order_final": lower and n < 15}
    agree(scheduler, "deis", options, n, monkeypatch)


@pytest.mark.parametrize("n", [7, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bh1", "bh2"])
@pytest.mark.parametrize(
    "own", [{}, {"predict_x0": False}, {"lower_order_final": False}, {"disable_corrector": (0, 3)}]
)
def test_unipc(own, kind, order, n, monkeypatch, doubles):
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order, solver_type=kind, **ENDS_LOW, **given
    )
    agree(scheduler, "unipc", {"max_order": order, "variant": kind, **own}, n, monkeypatch)


def test_unipc_bh1_at_clean_data_is_no_number_in_diffusers(monkeypatch, doubles):
    scheduler = diffusers.UniPCMultistepScheduler(solver_type="bh1")
    scheduler.set_timesteps(7)
    widened(scheduler)
    assert theirs(scheduler, X, 0, monkeypatch).isnan().all()
    process = Discrete(alpha_bar=tuple(scheduler.alphas_cumprod.tolist()))
    made = ours(process, levels(scheduler), "eps", "unipc", X, max_order=2, variant="bh1")
    assert made.isfinite().all()


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_ancestral_dpm_2(predicts, monkeypatch, doubles):
    scheduler = diffusers.KDPM2AncestralDiscreteScheduler(prediction_type=predicts)
    # It finds the midpoints' timesteps in float32.
    agree(scheduler, "dpm_2_ancestral", {}, 8, monkeypatch, tolerance=2e-6)


def test_heun_of_a_flow(monkeypatch, doubles):
    for shift in (1.0, 3.0):
        scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=shift)
        # Its states are float32.
        agree(scheduler, "flow_heun", {}, 8, monkeypatch, tolerance=1e-6)


def test_churned_euler(monkeypatch, doubles):
    churn = {"s_churn": 4.0, "s_tmin": 0.3, "s_tmax": 30.0, "s_noise": 1.01}
    scheduler = diffusers.EulerDiscreteScheduler()
    options = {"call_before_noise": True, **churn}
    agree(scheduler, "euler", options, 9, monkeypatch, tolerance=1e-6, **churn)


def table(scheduler, times, end):
    """A process with the scheduler's table, and points of its timesteps with alpha_bar's end."""
    process = Discrete(alpha_bar=tuple(scheduler.alphas_cumprod.tolist()))
    last = process.clean if end == 1.0 else process.at(0.0)
    return process, [*(process.at(float(t)) for t in times), last]


@pytest.mark.parametrize("n", [10, 20, 30])
@pytest.mark.parametrize("predicts, mixes", [("epsilon", "eps"), ("v_prediction", "v")])
@pytest.mark.parametrize("skips, solver", [(True, "plms"), (False, "pndm")])
def test_pndm(skips, solver, predicts, mixes, n, monkeypatch, doubles):
    scheduler = diffusers.PNDMScheduler(
        prediction_type=predicts, skip_prk_steps=skips, steps_offset=1, set_alpha_to_one=True
    )
    scheduler.set_timesteps(n)
    widened(scheduler)
    times = list(dict.fromkeys(sorted(scheduler._timesteps.tolist(), reverse=True)))
    process, points = table(scheduler, times, 1.0)
    how = {} if skips else {"published": True}
    made = ours(process, points, KINDS[predicts], solver, X, mixes=mixes, **how)
    assert off(made, theirs(scheduler, X, 0, monkeypatch)) < 1e-10
    if not skips and 1000 // n % 2 == 0:  # a half is a whole number of timesteps
        assert torch.allclose(
            made, ours(process, points, KINDS[predicts], solver, X, mixes=mixes), rtol=1e-9
        )


@pytest.mark.parametrize("n", [3, 9])
def test_ipndm_from_pure_noise(n, monkeypatch, doubles):
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(n)
    widened(scheduler)
    pairs = zip([*scheduler.timesteps, 0.0], scheduler.alphas, scheduler.betas, strict=True)
    points = [Point(*map(float, pair)) for pair in pairs]
    assert points[0].alpha == 0.0
    made = ours(VP(), points, "v", "ipndm", X, start="blind")
    assert off(made, theirs(scheduler, X, 0, monkeypatch)) < 1e-6  # its alphas are float32
    assert off(ours(VP(), points, "v", "ipndm", X), made) > 1e-2


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddpm_noise_in_the_last_step(variance, spacing, monkeypatch, doubles):
    scheduler = diffusers.DDPMScheduler(
        variance_type=variance, timestep_spacing=spacing, clip_sample=False
    )
    scheduler.set_timesteps(8)
    widened(scheduler)
    process, points = table(scheduler, scheduler.timesteps, 1.0)
    last = bool(scheduler.timesteps[-1] > 0)
    made = ours(process, points, "eps", "ddpm", X, variance=variance, last_noise=last)
    assert off(made, theirs(scheduler, X, 0, monkeypatch)) < 1e-9
    assert np.isclose(points[-1].sigma, 0.0)
