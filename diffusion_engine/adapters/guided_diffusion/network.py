"""A module with guided-diffusion's calling convention as a `ScoreNetwork`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ... import checks
from ...networks.network import OPTIONS, ScoreNetwork
from .noising import SCHEDULES, convention


def guided_diffusion_network(
    model: Callable[..., Any],
    *,
    noise_schedule: str = "linear",
    diffusion_steps: int = 1000,
    timestep_respacing: str = "",
    predict_xstart: bool = False,
    rescale_timesteps: bool = False,
    learn_sigma: bool | None = None,
    **options: Any,
) -> ScoreNetwork:
    """A network of guided-diffusion: model(x, timesteps, y) that returns eps, or [eps | variance].

    model  its in_channels, out_channels, image_size and num_classes are read where it has them
    noise_schedule, diffusion_steps, timestep_respacing, predict_xstart, rescale_timesteps, learn_sigma
           as it was trained; learn_sigma is whether out_channels are twice in_channels, if None
    options  of ScoreNetwork, such as shape

    `denoised` is clipped to (-1, 1), as in its sampler; clip=None does not. Raises ValueError where the shape
    is not known.
    """
    checks.function("model", model, "give guided-diffusion's network, model(x, timesteps, y)")
    checks.names("guided_diffusion_network", options, OPTIONS - {"process"})
    checks.one_of("noise_schedule", noise_schedule, SCHEDULES)
    if learn_sigma is None:
        channels = getattr(model, "in_channels", None)
        learn_sigma = channels is not None and getattr(model, "out_channels", None) == 2 * channels
    said = convention(
        noise_schedule, diffusion_steps, timestep_respacing, predict_xstart, rescale_timesteps,
        learn_sigma,
    )  # fmt: skip
    return ScoreNetwork(model, **(said | read_of(model, options) | options))


def read_of(model: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a UNetModel says of itself: its classes, name and shape.

    options  of ScoreNetwork, which have the shape where the module does not say it; else ValueError
    """
    said = {"classes": getattr(model, "num_classes", None), "name": type(model).__name__}
    channels, side = (getattr(model, name, None) for name in ("in_channels", "image_size"))
    if channels is not None and side is not None:
        return said | {"shape": (channels, side, side)}
    if "shape" not in options:
        raise ValueError(
            f"{type(model).__name__} has no in_channels and image_size: give shape=(channels, height, width)"
        )
    return said
