"""diffusers' networks: what a module and the configuration of its scheduler say. diffusers itself is not
imported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from .. import grids
from ..condition import ScaleEmbedding
from ..decoder import Decoder
from ..network import ScoreNetwork
from ..processes import Discrete, FlowMatching, GaussianProcess

PREDICTIONS = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
}
# Flags of a scheduler that choose its noise levels, and our name for them.
SIGMAS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_lu_lambdas": "lambda",
}
OTHERS = (
    "use_beta_sigmas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "thresholding",
    "shift_terminal",
)
# Keywords of UNet2DConditionModel.forward; other tensors of a condition are added_cond_kwargs (SDXL).
OWN = ("encoder_hidden_states", "class_labels", "timestep_cond")

SOUGHT = {
    "module": "a network of diffusers",
    "scheduler": "a scheduler, or its config",
    "vae": "an autoencoder of diffusers",
}


class Model(nn.Module):
    """A module of diffusers, called as module(x, label, condition).

    condition  the keyword by which a condition that is one tensor is passed
    """

    def __init__(self, module: nn.Module, condition: str) -> None:
        super().__init__()
        self.module, self.condition = module, condition

    def forward(
        self, x: Tensor, label: Tensor, condition: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        given: dict[str, Any] = {name: t for name, t in named.items() if name in OWN}
        if condition is not None:
            given[self.condition] = condition
        if added := {name: t for name, t in named.items() if name not in OWN}:
            given["added_cond_kwargs"] = added
        return self.module(x, label, **given, return_dict=False)[0]


def score_network(module: nn.Module, scheduler: Any, **options: Any) -> ScoreNetwork:
    """What `ScoreNetwork.from_diffusers` returns; it explains the arguments."""
    config = _config("scheduler", scheduler)
    about = _config("module", module)
    channels, size = about.get("in_channels"), about.get("sample_size")
    outputs = about.get("out_channels") or channels
    if not isinstance(channels, int) or (size is None and "shape" not in options):
        raise ValueError(
            f"the configuration of {type(module).__name__} has in_channels={channels} and "
            f"sample_size={size}: give shape=(channels, height, width)"
        )
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"{type(module).__name__} takes {channels} channels and returns {outputs}; a network returns "
            "as many as its state has, or twice as many with a learned variance. Wrap one that also reads a "
            "mask or another image in a module that adds those channels"
        )
    if unknown := [flag for flag in OTHERS if config.get(flag)]:
        raise ValueError(
            f"the scheduler's configuration asks for {unknown[0]}={config[unknown[0]]!r}, which is not taken "
            "over: give a configuration without it, and the times you want as the sampler's times= or sigmas="
        )
    process, label = _process(config)
    kind = config.get("prediction_type", "flow_prediction" if label != "t" else "epsilon")
    if kind not in PREDICTIONS:
        raise ValueError(f"prediction_type={kind!r} is none of {', '.join(PREDICTIONS)}")
    pixel = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    classes = about.get("num_embeds_ada_norm") or about.get("num_class_embeds")
    text = about.get("cross_attention_dim") is not None and "encoder_hid_dim" in about
    found: dict[str, Any] = {
        "shape": (channels, *pixel),
        "prediction": PREDICTIONS[kind],
        "label": label,
        "classes": classes,
        # DiT's table of classes has one more entry, for none.
        "null": classes if about.get("num_embeds_ada_norm") else None,
        "clip": _clip(config),
        "grid": _grid(config, label),
        "name": type(module).__name__,
        "variance": _variance(config, about) if outputs != channels else None,
        # Students of guidance distillation, such as LCM's, read the scale.
        "scale_input": ScaleEmbedding(dim) if (dim := about.get("time_cond_proj_dim")) else None,
    }
    model = Model(module, "encoder_hidden_states" if text else "class_labels")
    model.train(module.training)
    return ScoreNetwork(model, process, **{**found, **options})


def _config(name: str, given: Any) -> Mapping[str, Any]:
    config = getattr(given, "config", given)
    if not isinstance(config, Mapping):
        raise ValueError(
            f"{name}={type(given).__name__} has no configuration: give " + SOUGHT[name]
        )
    return config


def _process(config: Mapping[str, Any]) -> tuple[GaussianProcess, str]:
    """The noise a scheduler's configuration describes, and what its networks are told for the time."""
    kind = config.get("_class_name", "")
    if "beta_schedule" not in config:
        if "shift" in config or "FlowMatch" in kind:
            return FlowMatching(), f"{config.get('num_train_timesteps', 1000)}t"
        raise ValueError(
            f"the scheduler configuration {kind!r} has neither beta_schedule nor shift: give that of "
            "a DDPM, DDIM, DPM-Solver, Euler or FlowMatchEuler scheduler, or make the ScoreNetwork yourself"
        )
    n = config["num_train_timesteps"]
    low, high, name = config["beta_start"], config["beta_end"], config["beta_schedule"]
    if config.get("trained_betas") is not None:
        process = Discrete.from_betas(np.asarray(config["trained_betas"]))
    elif name == "linear":
        process = Discrete.linear(n, low, high)
    elif name == "scaled_linear":
        process = Discrete.scaled_linear(n, low, high)
    elif name == "squaredcos_cap_v2":
        process = Discrete.cosine(n)
    elif name == "sigmoid":
        x = np.linspace(-6.0, 6.0, n)
        process = Discrete.from_betas(low + (high - low) / (1.0 + np.exp(-x)))
    else:
        raise ValueError(
            f"beta_schedule={name!r} is not known; give trained_betas in the configuration"
        )
    return (process.zero_terminal_snr() if config.get("rescale_betas_zero_snr") else process), "t"


def _clip(config: Mapping[str, Any]) -> tuple[float, float] | None:
    if not config.get("clip_sample"):
        return None
    size = float(config.get("clip_sample_range", 1.0))
    return -size, size


def _variance(config: Mapping[str, Any], about: Mapping[str, Any]) -> str | None:
    """What the second half of the channels is; DiT's is a range, whatever its scheduler says."""
    kind = config.get("variance_type")
    if kind in ("learned", "learned_range"):
        return kind
    return "learned_range" if about.get("num_embeds_ada_norm") else None


def _grid(config: Mapping[str, Any], label: str) -> grids.Grid | str | None:
    """The times a scheduler would visit."""
    if label != "t":
        shift = float(config.get("shift", 1.0))
        return None if shift == 1.0 else partial(grids.shifted, shift=shift)
    for flag, grid in SIGMAS.items():
        if config.get(flag):
            return grid
    kind = str(config.get("_class_name", ""))
    usual = "leading" if not kind or kind[:4] in ("DDIM", "DDPM", "PNDM") else "linspace"
    spacing = config.get("timestep_spacing", usual)
    if spacing == "leading":
        return partial(grids.leading, offset=int(config.get("steps_offset", 0)))
    return spacing


class VAE(nn.Module):
    """The decoder of an autoencoder of diffusers, called as module(z)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        return self.module.decode(z, return_dict=False)[0]  # type: ignore[operator]


def decoder(vae: nn.Module, **options: Any) -> Decoder:
    """What `Decoder.from_diffusers` returns."""
    about = _config("vae", vae)
    if not hasattr(vae, "decode") or "latent_channels" not in about:
        raise ValueError(
            f"{type(vae).__name__} is no autoencoder of diffusers: give an AutoencoderKL"
        )
    if about.get("latents_mean") is not None or about.get("latents_std") is not None:
        raise ValueError(
            f"{type(vae).__name__} scales each channel of its latents on its own (latents_mean, latents_std) "
            "and a Decoder all alike: give Decoder a module that undoes it"
        )
    found: dict[str, Any] = {
        "scale_factor": about.get("scaling_factor") or 1.0,
        "shift": about.get("shift_factor") or 0.0,
        "channels": about["latent_channels"],
    }
    model = VAE(vae)
    model.train(vae.training)
    return Decoder(model, **{**found, **options})
