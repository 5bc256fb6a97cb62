"""Networks of CLD-SGM (Dockhorn, Vahdat & Kreis 2022, github.com/nv-tlabs/CLD-SGM).

Its samplers' words here: `em`, `sscs` and `ode` are the solvers `cld_em`, `sscs` (published=True and
merged=False as published) and `cld_ode`; striding `quadratic` is the grid `quadratic_striding`; `denoising`
is how runs end here, and n_discrete_steps counts it, as `steps` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..networks.network import ScoreNetwork
from ..networks.prediction import Velocity
from ..processes import CLD, VP
from .checkpoint import Checkpoint, Fields, read
from .ncsnpp.network import Architecture
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


@dataclass(frozen=True)
class MixedNoise:
    """score = -x - o / sigma of CLD-SGM's VP networks: x0 = alpha x - sigma / alpha o."""

    def __call__(self, at: Any) -> tuple[Any, Any]:
        return (1.0 - at.sigma**2) / at.alpha, -at.sigma / at.alpha


def cld_sgm_network(
    module: Callable[..., Any],
    shape: tuple[int, ...],
    sde: str = "cld",
    *,
    mixed_score: bool = True,
    m_inv: float = 4.0,
    gamma: float = 0.04,
    beta0: float = 4.0,
    beta1: float = 0.0,
    numerical_eps: float = 1e-9,
    sampling_eps: float = 1e-3,
    **options: Any,
) -> ScoreNetwork:
    """A module of yours that is called as CLD-SGM calls its own: model([x, v], t).

    module       reads x and v on the channel axis and the time t itself, and returns o, of x's shape alone:
                 s_v = -ell(t) o, or -v / Svv(t) - ell(t) o (section 3.2). Of "vpsde" it reads x, and
                 score = -o / sigma, or -x - o / sigma
    shape        of x, (channels, height, width)
    sde          "cld" or "vpsde"
    mixed_score  whether the second form is meant, as of all released networks
    m_inv        1 / M
    gamma        variance of the first v in units of M
    beta0, beta1  beta(t) = beta0 + beta1 t
    numerical_eps  added to the variances of x and v, with which the network was trained
    sampling_eps   the last time before the final denoising
    options      of ScoreNetwork
    """
    law: dict[str, Any] = {"name": "cld_sgm", "label": "t"}
    if sde == "vpsde":
        process = VP(beta_min=beta0, beta_max=beta0 + beta1, t_min=sampling_eps)
        law |= {"process": process, "prediction": MixedNoise() if mixed_score else "eps"}
    elif sde == "cld":
        law |= {
            "process": CLD(
                t_min=sampling_eps, mass=1.0 / m_inv, gamma=gamma, beta0=beta0, beta1=beta1,
                numerical_eps=numerical_eps,
            ),
            "prediction": Velocity(mixed=mixed_score),
        }  # fmt: skip
    else:
        raise ValueError(f"sde={sde!r}: choose cld, vpsde")
    return ScoreNetwork(module, shape=shape, **(law | options))


def from_cld_sgm(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """The network of a checkpoint of CLD-SGM: NCSN++ on [x, v], or on x with its "vpsde".

    path     a folder of config.json and model.safetensors, as `diffusion-engine convert` makes it. Its config
             has the names of the repository's own config files, which are flat; lists may be texts, "1,2,2,2"
    options  of ScoreNetwork

    Raises ValueError where the config has what no network of that repository runs, or the weights are of
    another network.
    """
    checkpoint: Checkpoint = read(path, "cld_sgm")
    where = config_of(checkpoint)
    architecture, law = _read(checkpoint.config, where)
    module = filled(built(architecture, where), checkpoint)
    shape = (architecture.num_channels, architecture.image_size, architecture.image_size)
    return cld_sgm_network(module, shape, **law, **({"name": checkpoint.name} | options))


def parameter_names(config: Mapping[str, Any]) -> list[str]:
    """The names of a checkpoint's averages: the frequencies of "fourier" are not trained, and have none."""
    where = "the config"
    return trained(built(_read(config, where)[0], where))


def _read(config: Mapping[str, Any], where: str) -> tuple[Architecture, dict[str, Any]]:
    """The network, and the keywords of `cld_sgm_network`."""
    fields = Fields({name: _listed(name, value) for name, value in config.items()}, where)
    law = {
        "sde": fields.choice("sde", ("cld", "vpsde"), "cld"),
        "mixed_score": fields.flag("mixed_score", True),
        "m_inv": fields.number("m_inv", 1e-6, 1e6, 4.0),
        "gamma": fields.number("gamma", 0.0, 2.0, 0.04),
        "beta0": fields.number("beta0", 0.0, 1e4, 4.0),
        "beta1": fields.number("beta1", -1e4, 1e4, 0.0),
        "numerical_eps": fields.number("numerical_eps", 0.0, 1.0, 1e-9),
        "sampling_eps": fields.number("sampling_eps", 1e-9, 0.5, 1e-3),
    }
    fields.choice("name", ("ncsnpp",), "ncsnpp")
    fields.choice("resblock_type", ("biggan",), "biggan")
    fields.choice("beta_type", ("linear",), "linear")
    fields.choice("is_image", (True,), True)
    fields.choice("center_image", (True,), True)  # else its samples would lie in [0, 1]
    fields.choice(
        "cld_objective", ("hsm",), "hsm"
    )  # whose variances mix with those of "dsm" otherwise
    channels = fields.whole("image_channels", 1, WIDTH)
    architecture = Architecture(
        image_size=fields.whole("image_size", 1, SIDE),
        num_channels=channels,
        in_channels=channels * (2 if law["sde"] == "cld" else 1),
        nf=fields.whole("n_channels", 4, WIDTH),
        ch_mult=fields.wholes("ch_mult", 1, WIDTH),
        num_res_blocks=fields.whole("n_resblocks", 1, COUNT),
        attn_resolutions=fields.wholes("attn_resolutions", 1, SIDE),
        nonlinearity=nonlinearity(fields),
        fir=fields.flag("use_fir"),
        fir_kernel=fields.wholes("fir_kernel", 0, 1000, (1, 3, 3, 1)),
        **shared(fields),
    )
    fields.ignore(*UNREAD)
    fields.done()
    return architecture, law


# How a network was trained and how it is run, which says nothing of it.
UNREAD = (
    "normalization", "attention_type", "init_scale", "fourier_scale", "conv_size", "dropout", "ema_rate",
    "optimizer", "learning_rate", "grad_clip", "weight_decay", "loss_eps", "weighting", "dataset",
    "data_location", "snapshot_freq", "snapshot_threshold", "log_freq", "eval_freq", "likelihood_threshold",
    "likelihood_freq", "fid_freq", "fid_threshold", "fid_samples_training", "n_eval_batches",
    "n_likelihood_batches", "n_warmup_iters", "n_train_iters", "save_freq", "save_threshold",
    "training_batch_size", "testing_batch_size", "sampling_batch_size", "autocast_train", "autocast_eval",
    "sampling_method", "sampling_solver", "sampling_solver_options", "sampling_rtol", "sampling_atol",
    "denoising", "n_discrete_steps", "striding", "sscs_num_stab", "seed",
)  # fmt: skip


def _listed(name: str, value: Any) -> Any:
    """A list of a config file, which is a text there: "1,2,2,2", or "16" of one."""
    lists = ("ch_mult", "attn_resolutions", "fir_kernel")
    if name not in lists or not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else value
