"""Networks of score_sde (Song et al. 2021, github.com/yang-song/score_sde_pytorch).

Its sampler's words here: predictors `euler_maruyama`, `reverse_diffusion` and `ancestral` are solvers of
these names (step="1/N" steps as published), a corrector is the driver `predictor_corrector` (rule="batch" as
published), and `noise_removal` is their `denoise`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from ..networks.wrapper import Wrapper
from ..processes import VE, VP, Discrete, Point, SubVP
from .checkpoint import Fields, read
from .ncsnpp.network import Architecture, sigma_row
from .ncsnpp.reader import (
    COUNT,
    SIDE,
    WIDTH,
    built,
    config_of,
    filled,
    nonlinearity,
    shared,
    trained,
)

SDES = ("vpsde", "subvpsde", "vesde")


@dataclass(frozen=True)
class Scaled:
    """What a network on [0, 1] says of x = 2 y - 1: sigma of y is half as large, the score twice."""

    def label(self, at: Any) -> Any:
        return 0.5 * at.ratio

    def __call__(self, at: Any) -> tuple[Any, Any]:
        """(p, q) with x0 = p x + q score_y."""
        return 1.0 / at.alpha, 0.5 * at.sigma**2 / at.alpha


@dataclass(frozen=True)
class FromLargest:
    """The label of a level of VE's table of `count`: 0 is the largest."""

    count: int

    def __call__(self, at: Point) -> float:
        return (self.count - 1) * (1.0 - at.t)


class Uncentered(Wrapper):
    """A module that reads images in [0, 1], called with images in [-1, 1]."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.training = getattr(module, "training", False)

    def forward(self, x: Tensor, label: Tensor) -> Any:
        return self.module(0.5 * x + 0.5, label)


def score_sde_network(
    module: Callable[..., Any],
    shape: tuple[int, ...],
    sde: str = "vpsde",
    *,
    continuous: bool = True,
    centered: bool = True,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    sigma_min: float = 0.01,
    sigma_max: float = 50.0,
    num_scales: int = 1000,
    **options: Any,
) -> ScoreNetwork:
    """A module of yours that is called as score_sde calls its own: model(x, labels).

    module      "vpsde" and "subvpsde": eps at 999 t (Song et al. 2021, eq. 33 and 29), or, not continuous, at
                the timesteps 0 ... num_scales - 1 of "vpsde"; "vesde": the score at sigma, or at whole labels
                of which 0 is the largest sigma
    shape       of an image, (channels, height, width)
    sde         "vpsde", "subvpsde" or "vesde"
    continuous  it was trained on times, not on a table
    centered    it reads images in [-1, 1]; False is [0, 1], as with "vesde" there. Samples are in [-1, 1]
                either way
    beta_min, beta_max, sigma_min, sigma_max  of the SDE, in the range that the module reads
    num_scales  levels of the table
    options     of ScoreNetwork

    Raises ValueError where the SDE is unknown, or data in [0, 1] follow another one than "vesde".
    """
    if sde not in SDES:
        raise ValueError(f"sde={sde!r}: choose {', '.join(SDES)}")
    if sde != "vesde" and not centered:
        raise ValueError(
            f"centered=False of {sde!r}: images in [0, 1] shrink to 0 there and not to their middle, which "
            "no published network does; make a ScoreNetwork of it, whose samples are then in [0, 1]"
        )
    if sde == "vesde":
        law = _ve(sigma_min, sigma_max, num_scales, continuous, centered)
        module = module if centered else Uncentered(module)
    elif sde == "subvpsde":
        law = {"process": SubVP(beta_min=beta_min, beta_max=beta_max), "label": "999t"}
    elif continuous:
        law = {"process": VP(beta_min=beta_min, beta_max=beta_max), "label": "999t"}
    else:
        betas = np.linspace(beta_min / num_scales, beta_max / num_scales, num_scales)
        law = {"process": Discrete.from_betas(betas), "label": "t"}
    return ScoreNetwork(module, shape=shape, **({"name": "score_sde"} | law | options))


def _ve(low: float, high: float, count: int, continuous: bool, centered: bool) -> dict[str, Any]:
    """VE, in [-1, 1] at twice the levels of [0, 1]."""
    size = 1.0 if centered else 2.0
    law: dict[str, Any] = {
        "process": VE(sigma_min=size * low, sigma_max=size * high),
        "prediction": "score" if centered else Scaled(),
        "label": "sigma" if centered else Scaled().label,
    }
    if not continuous:
        law |= {"label": FromLargest(count), "label_dtype": torch.int64}
    return law


def from_score_sde(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """The network of a checkpoint of score_sde: `ncsnpp` (NCSN++, DDPM++) or `ddpm`, of any of its SDEs.

    path     a folder of config.json and model.safetensors, as `diffusion-engine convert` makes it. Its config
             has the fields `model`, `data` and `training` of the repository's own
    options  of ScoreNetwork

    Its samples are in [-1, 1], whatever `data.centered` is. Raises ValueError where the config has what no
    network of that repository runs, or the weights are of another network.
    """
    checkpoint = read(path, "score_sde")
    where = config_of(checkpoint)
    architecture, law = _read(checkpoint.config, where)
    _check_sigmas(architecture, checkpoint.tensors, where)
    module = filled(built(architecture, where), checkpoint, ("sigmas",))
    shape = (architecture.num_channels, architecture.image_size, architecture.image_size)
    return score_sde_network(module, shape, **law, **({"name": checkpoint.name} | options))


def parameter_names(config: Mapping[str, Any]) -> list[str]:
    """The names of a checkpoint's averages: the frequencies of "fourier" are not trained, and have none."""
    where = "the config"
    return trained(built(_read(config, where)[0], where))


def _read(config: Mapping[str, Any], where: str) -> tuple[Architecture, dict[str, Any]]:
    """The network, and the keywords of `score_sde_network`."""
    fields = Fields(config, where)
    model, data = fields.inner("model"), fields.inner("data")
    training = fields.inner("training")
    name = model.choice("name", ("ncsnpp", "ddpm"))
    law = {
        "sde": training.choice("sde", SDES),
        "continuous": training.flag("continuous", True),
        "beta_min": model.number("beta_min", 0.0, 1e4, 0.1),
        "beta_max": model.number("beta_max", 0.0, 1e4, 20.0),
        "sigma_min": model.number("sigma_min", 1e-9, 1e9, 0.01),
        "sigma_max": model.number("sigma_max", 1e-9, 1e9, 50.0),
        "num_scales": model.whole("num_scales", 2, 1 << 20, 1000),
    }
    channels = data.whole("num_channels", 1, WIDTH)
    own = {
        "image_size": data.whole("image_size", 1, SIDE),
        "num_channels": channels,
        "in_channels": channels,
        "nf": model.whole("nf", 4, WIDTH),
        "ch_mult": model.wholes("ch_mult", 1, WIDTH),
        "num_res_blocks": model.whole("num_res_blocks", 1, COUNT),
        "attn_resolutions": model.wholes("attn_resolutions", 1, SIDE),
        "conditional": model.flag("conditional", True),
        "nonlinearity": nonlinearity(model),
        "scale_by_sigma": model.flag("scale_by_sigma"),
        "sigmas": (law["sigma_min"], law["sigma_max"], law["num_scales"]),
        **(_ncsnpp(model) if name == "ncsnpp" else _ddpm(model)),
    }
    centered = data.flag("centered")
    _ignore(fields, model, data, training)
    for part in (fields, model, data, training):
        part.done()
    return Architecture(**own, centered=centered), law | {"centered": centered}


def _ncsnpp(model: Fields) -> dict[str, Any]:
    model.choice("resblock_type", ("biggan",), "biggan")
    model.ignore("fourier_scale")
    fir = model.flag("fir")
    return {"fir": fir, "fir_kernel": model.wholes("fir_kernel", 0, 1000, (1, 3, 3, 1))} | shared(
        model
    )


def _ddpm(model: Fields) -> dict[str, Any]:
    model.ignore("embedding_type")
    return {
        "resblock_type": "ddpm",
        "skip_rescale": False,
        "groups": 32,
        "resamp_with_conv": model.flag("resamp_with_conv", True),
    }


def _ignore(fields: Fields, model: Fields, data: Fields, training: Fields) -> None:
    """What says nothing of the network."""
    fields.ignore("sampling", "eval", "optim", "seed", "device")
    model.ignore(
        "ema_rate",
        "dropout",
        "init_scale",
        "normalization",
        "attention_type",
        "conv_size",
        "sigma_begin",
    )
    data.ignore(
        "dataset",
        "category",
        "random_flip",
        "uniform_dequantization",
        "tfrecords_path",
        "root_path",
    )
    training.ignore(
        "batch_size", "n_iters", "snapshot_freq", "log_freq", "eval_freq", "snapshot_freq_for_preemption",
        "snapshot_sampling", "likelihood_weighting", "reduce_mean", "n_jitted_steps",
    )  # fmt: skip


def _check_sigmas(a: Architecture, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises ValueError where a checkpoint's levels are not those of the config."""
    if (kept := tensors.get("sigmas")) is None or a.sigmas is None:
        return
    row = sigma_row(*a.sigmas)
    if kept.shape != row.shape or not torch.allclose(kept.double(), row, rtol=1e-4):
        raise ValueError(
            f"{where} says {a.sigmas[2]} levels from {a.sigmas[1]:g} to {a.sigmas[0]:g}, and its checkpoint "
            f"has {kept.numel()} others: give the config it was trained with"
        )
