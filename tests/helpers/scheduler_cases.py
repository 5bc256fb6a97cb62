"""diffusers' schedulers and `like`: one run of both, of the same network, first x and noise."""

import contextlib
import importlib
import math
import sys
import types
import warnings
from unittest import mock

import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.adapters.diffusers import like

N, SHAPE, CALLS = 3, (2, 4, 4), 100
SEEDED = torch.Generator().manual_seed(7)
FIRST = torch.randn(N, *SHAPE, generator=SEEDED)
NOISE = torch.randn(2, CALLS, N, *SHAPE, generator=SEEDED)


class Net(torch.nn.Module):
    """A smooth function of x and of the label, of a size that a trained network's output has.

    prediction  diffusers' word for it
    count       the label of the noisiest time
    """

    def __init__(self, prediction, count):
        super().__init__()
        self.prediction, self.count = prediction, count

    def forward(self, x, label):
        label = torch.as_tensor(label, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        u = torch.sigmoid(label) if self.count is None else label / self.count
        alpha, sigma = torch.cos(1.5 * u), 0.1 + 0.9 * torch.sin(1.5 * u)
        x0 = 0.8 * torch.tanh(alpha * x) + 0.1 * torch.sin(2.0 * x + u)
        eps = (x - alpha * x0) / sigma
        return {
            "epsilon": eps,
            "sample": x0,
            "v_prediction": alpha * eps - sigma * x0,
            "flow_prediction": eps - x0,
            "trigflow": alpha * eps - sigma * x0,
        }[self.prediction]


def class_of(name):
    """A scheduler class of diffusers."""
    import diffusers

    if name == "DPMSolverSDEScheduler":  # its times need no torchsde, which its module imports
        sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
        module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
        return getattr(module, name)
    return getattr(diffusers, name)


def made(name, config):
    """A scheduler, without what diffusers says about it."""
    from diffusers.utils import logging

    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return class_of(name)(**config)


KINDS = {"IPNDMScheduler": "v_prediction", "CMStochasticIterativeScheduler": "sample"}


def net_of(scheduler):
    """The network that a scheduler is run with."""
    config, name = scheduler.config, type(scheduler).__name__
    kind = KINDS.get(
        name, "flow_prediction" if "FlowMatch" in name else config.get("prediction_type")
    )
    if "sigma_data" in config or config.get("timestep_type") == "continuous":
        return Net(kind, None)
    return Net(kind, 1.0 if name == "IPNDMScheduler" else float(config["num_train_timesteps"]))


@contextlib.contextmanager
def wide(scheduler):
    """Within it a scheduler whose times are set computes in float64."""
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            setattr(scheduler, name, value.double())
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(torch, "float32", torch.float64):
            yield
    finally:
        torch.set_default_dtype(usual)


def theirs(scheduler, steps, strength=None, step=None, dtype=torch.float32, **asked):
    """The first and the last x of diffusers' own loop."""
    short = {} if "timesteps" in asked or "sigmas" in asked else {"num_inference_steps": steps}
    scheduler.set_timesteps(**short, **asked)
    net, times = net_of(scheduler), scheduler.timesteps
    # What SANA-Sprint's pipeline does around the scheduler: its list holds the end, and x is x / sigma_data.
    data = scheduler.config.sigma_data if net.prediction == "trigflow" else 1.0
    times = times[:-1] if net.prediction == "trigflow" else times
    if strength:
        times = times[(steps - int(steps * strength)) * scheduler.order :]
    calls = iter(NOISE[0].to(dtype))
    drawn = None

    def noise(*args, **kwargs):
        return drawn.clone()

    def path(sigma, sigma_next):
        """The noise of a half step and of the whole step, of one path over e^(2 lam)."""
        nonlocal half
        if scheduler.state_in_first_order:
            half = drawn
            return half
        share = 1.0 / (1.0 + sigma / sigma_next)
        return share**0.5 * half + (1.0 - share) ** 0.5 * drawn

    half = None
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = path
    first = FIRST.to(dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0)) * data
    if strength:
        with contextlib.suppress(AttributeError):
            scheduler.set_begin_index((steps - int(steps * strength)) * scheduler.order)
    x = first
    module = sys.modules[type(scheduler).__module__]
    drawing = mock.patch.object(module, "randn_tensor", noise, create=True)
    width = contextlib.nullcontext() if dtype == torch.float32 else wide(scheduler)
    with torch.no_grad(), drawing, width:
        for t in times:
            drawn = next(calls)
            read = (
                scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            )
            x = scheduler.step(data * net(read / data, t), t, x, **(step or {})).prev_sample
    return first, x


def ours(same, net, first, **how):
    """The last x of what `like` says, in the scheduler's coordinates."""
    network = ScoreNetwork(net, same.process, SHAPE, same.prediction, same.label)
    begin, end = same.points[0], same.points[-1]
    x = first * begin.alpha if same.scaled else first
    made = same.sampler(network, **how).sample(
        x=x, noised=True, noise=lambda row, m, seeds: NOISE[m, row - 1].to(first.dtype)
    )
    return made.samples / end.alpha if same.scaled else made.samples


F64 = {"dtype": torch.float64, "backend": "torch"}


def difference(name, config, steps, dtype=torch.float32, **asked):
    """Of the two, relative to the largest number, with what `like` says."""
    scheduler = made(name, config)
    step = asked.pop("step", {})
    own = {k: v for k, v in asked.items() if k != "published"}
    length = None if "timesteps" in asked or "sigmas" in asked else steps
    same = like(scheduler, length, **asked, **step)
    first, want = theirs(scheduler, steps, step=step, dtype=dtype, **own)
    if not want.isfinite().all():
        return math.nan, same
    got = ours(same, net_of(scheduler), first, **(F64 if dtype == torch.float64 else {}))
    return float((got - want).abs().max() / want.abs().max()), same
