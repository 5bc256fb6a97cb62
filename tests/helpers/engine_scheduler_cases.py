"""Loops that pipelines make of a scheduler, with a network in closed form."""

import inspect

import torch

SHAPE = (2, 4, 8, 8)
NOISE = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def net(x, t):
    """Smooth in x, of about the size of eps; t is a timestep of 1000."""
    u = torch.as_tensor(t, dtype=torch.float32).reshape(-1, 1, 1, 1) / 1000.0
    return ((x - 0.5 * torch.tanh(2.0 * x)) * (0.6 + 0.3 * u)).to(x.dtype)


def scheduler_of(source, **how):
    """EngineScheduler from another scheduler's configuration, with its class by name."""
    from diffusion_engine.adapters.diffusers import EngineScheduler

    return EngineScheduler.from_config(source.config, like=type(source).__name__, **how)


def loop(scheduler, steps=None, x=NOISE, first=0, generator=None, seen=None, network=net, **step):
    """The last x of a pipeline's loop.

    steps  begins a run of so many; None goes on with the one there is
    first  the call that it begins with, with x as it is
    seen   a list to which every output of a step is put
    """
    if steps is not None:
        scheduler.set_timesteps(steps)
    if first:
        scheduler.set_begin_index(first)
    else:
        x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    if "generator" in inspect.signature(scheduler.step).parameters:
        step["generator"] = generator
    for t in scheduler.timesteps[first:]:
        read = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        out = scheduler.step(network(read, t), t, x, **step)
        x = out.prev_sample
        if seen is not None:
            seen.append(out)
    return x


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)
