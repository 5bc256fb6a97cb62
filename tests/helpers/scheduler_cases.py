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
        label = torch.as_tensor(label, dtype=torch.float32).reshape(-1, *[1] * (x.ndim - 1))
        u = torch.sigmoid(label) if self.count is None else label / self.count
        alpha, sigma = torch.cos(1.5 * u), 0.1 + 0.9 * torch.sin(1.5 * u)
        x0 = 0.8 * torch.tanh(alpha * x) + 0.1 * torch.sin(2.0 * x + u)
        eps = (x - alpha * x0) / sigma
        return {
            "epsilon": eps,
            "sample": x0,
            "v_prediction": alpha * eps - sigma * x0,
            "flow_prediction": eps - x0,
        }[self.prediction]


def class_of(name):
    """A scheduler class of diffusers."""
    if name == "DPMSolverSDEScheduler":  # its times need no torchsde, which its module imports
        sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
        module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
        return getattr(module, name)
    import diffusers

    return getattr(diffusers, name)


def made(name, config):
    """A scheduler, without what diffusers says about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return class_of(name)(**config)


def net_of(scheduler):
    config = scheduler.config
    flow = "FlowMatch" in type(scheduler).__name__
    edm = "sigma_data" in config or config.get("timestep_type") == "continuous"
    kind = config.get("prediction_type", "flow_prediction") if not flow else "flow_prediction"
    return Net(kind, None if edm else float(config["num_train_timesteps"]))


def theirs(scheduler, steps, strength=None, step=None, **asked):
    """The last x of diffusers' own loop."""
    given = {k: v for k, v in asked.items() if k != "published"}
    short = {} if "timesteps" in given or "sigmas" in given else {"num_inference_steps": steps}
    scheduler.set_timesteps(**short, **given)
    net, times = net_of(scheduler), scheduler.timesteps
    if strength:
        times = times[(steps - int(steps * strength)) * scheduler.order :]
    call = 0

    def noise(*args, **kwargs):
        return NOISE[0, call].clone()

    first = FIRST * scheduler.init_noise_sigma
    if strength:
        with contextlib.suppress(AttributeError):
            scheduler.set_begin_index((steps - int(steps * strength)) * scheduler.order)
    x = first
    module = sys.modules[type(scheduler).__module__]
    with torch.no_grad(), mock.patch.object(module, "randn_tensor", noise, create=True):
        for call, t in enumerate(times):
            read = (
                scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            )
            x = scheduler.step(net(read, t), t, x, **(step or {})).prev_sample
    return first, x


def ours(same, net, first, **how):
    """The last x of what `like` says, in the scheduler's coordinates."""
    network = ScoreNetwork(net, same.process, SHAPE, same.prediction, same.label)
    begin, end = same.points[0], same.points[-1]
    x = first * begin.alpha if same.scaled else first
    made = same.sampler(network, **how).sample(
        x=x, noised=True, noise=lambda row, m, seeds: NOISE[m, row - 1]
    )
    return made.samples / end.alpha if same.scaled else made.samples


def difference(name, config, steps, **asked):
    """Of the two, relative to the largest number."""
    scheduler = made(name, config)
    step = asked.pop("step", None) or {}
    given = {
        k: v
        for k, v in asked.items()
        if k in ("strength", "timesteps", "sigmas", "mu", "published")
    }
    length = None if "timesteps" in given or "sigmas" in given else steps
    same = like(scheduler, length, **given, **step)
    first, want = theirs(scheduler, steps, step=step, **asked)
    got = ours(same, net_of(scheduler), first)
    error = float((got - want).abs().max() / want.abs().max())
    return math.inf if math.isnan(error) else error, same
