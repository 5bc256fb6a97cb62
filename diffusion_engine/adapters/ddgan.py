"""Generators of denoising diffusion GANs (Xiao et al. 2022, github.com/NVlabs/denoising-diffusion-gan)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ..networks.network import ScoreNetwork
from ..processes import Discrete
from .checkpoint import Fields, read
from .ncsnpp.network import Architecture
from .ncsnpp.reader import COUNT, SIDE, WIDTH, built, config_of, filled, shared, trained


def chain(
    n: int, beta_min: float = 0.1, beta_max: float = 20.0, geometric: bool = False
) -> Discrete:
    """The chain of n large steps, which starts anew from the first time, 1e-3.

    geometric  its variances are beta_min (beta_max / beta_min)^t, which stays below 1 for betas below 1
    """
    if not geometric:
        return Discrete.few(n, beta_min, beta_max)
    t = 1e-3 + (1.0 - 1e-3) * np.arange(n + 1) / n
    bar = 1.0 - beta_min * (beta_max / beta_min) ** t
    return Discrete(alpha_bar=tuple((bar[1:] / bar[0]).tolist()))


def ddgan_network(
    module: Callable[..., Any],
    shape: tuple[int, ...],
    num_timesteps: int = 4,
    *,
    nz: int = 100,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    use_geometric: bool = False,
    **options: Any,
) -> ScoreNetwork:
    """A generator of yours that is called as that repository calls its own: netG(x, t, z) -> x0.

    module         t is the number of the step as int64, num_timesteps - 1 of pure noise, 0 of the last; z is
                   [N, nz], standard normal and new at every step
    shape          of an image, (channels, height, width)
    num_timesteps  steps of its chain: Sampler(network, "ddgan", num_timesteps)
    beta_min, beta_max, use_geometric  of the chain
    options        of ScoreNetwork
    """
    law: dict[str, Any] = {"process": chain(num_timesteps, beta_min, beta_max, use_geometric)}
    law |= {
        "prediction": "x0",
        "label": "t",
        "label_dtype": torch.int64,
        "latent": nz,
        "name": "ddgan",
    }
    return ScoreNetwork(module, shape=shape, **(law | options))


def from_ddgan(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """The generator of a checkpoint of denoising diffusion GANs, for the solver `ddgan`.

    path     a folder of config.json and model.safetensors, as `diffusion-engine convert` makes it of
             netG_1200.pth, which holds averaged weights already. Its config has the names of the options of
             that repository's test_ddgan.py, and their defaults
    options  of ScoreNetwork

    Raises ValueError where the config has what no network of that repository runs, or the weights are of
    another network.
    """
    checkpoint = read(path, "ddgan")
    where = config_of(checkpoint)
    architecture, law = _read(checkpoint.config, where)
    module = filled(built(architecture, where), checkpoint)
    shape = (architecture.num_channels, architecture.image_size, architecture.image_size)
    return ddgan_network(module, shape, **law, **({"name": checkpoint.name} | options))


def parameter_names(config: Mapping[str, Any]) -> list[str]:
    """The names of the generator's trained parameters in their order."""
    where = "the config"
    return trained(built(_read(config, where)[0], where))


def _read(config: Mapping[str, Any], where: str) -> tuple[Architecture, dict[str, Any]]:
    """The network, and the keywords of `ddgan_network`."""
    fields = Fields(config, where)
    law = {
        "num_timesteps": fields.whole("num_timesteps", 1, 1000, 4),
        "nz": fields.whole("nz", 1, WIDTH, 100),
        "beta_min": fields.number("beta_min", 0.0, 1e4, 0.1),
        "beta_max": fields.number("beta_max", 0.0, 1e4, 20.0),
        "use_geometric": fields.flag("use_geometric", False),
    }
    channels = fields.whole("num_channels", 1, WIDTH, 3)
    # The latent moves both norms of a block, or its first.
    blocks = fields.choice("resblock_type", ("biggan", "biggan_oneadagn"), "biggan")
    architecture = Architecture(
        image_size=fields.whole("image_size", 1, SIDE, 32),
        num_channels=channels,
        in_channels=channels,
        nf=fields.whole("num_channels_dae", 4, WIDTH, 128),
        ch_mult=fields.wholes("ch_mult", 1, WIDTH),
        num_res_blocks=fields.whole("num_res_blocks", 1, COUNT, 2),
        attn_resolutions=fields.wholes("attn_resolutions", 1, SIDE, (16,)),
        conditional=fields.flag("conditional", True),
        centered=fields.flag("centered", True),
        fir=fields.flag("fir", True),
        fir_kernel=fields.wholes("fir_kernel", 0, 1000, (1, 3, 3, 1)),
        nz=law["nz"],
        z_emb_dim=fields.whole("z_emb_dim", 1, WIDTH, 256),
        n_mlp=fields.whole("n_mlp", 0, COUNT, 3),
        adaptive=2 if blocks == "biggan" else 1,
        tanh=not fields.flag("not_use_tanh", False),
        **shared(fields, pyramid="residual"),
    )
    fields.ignore(*UNREAD)
    fields.done()
    return architecture, law


# How a network was trained and where its files are, which says nothing of it.
UNREAD = (
    "seed", "compute_fid", "epoch_id", "dropout", "fourier_scale", "exp", "real_img_dir", "dataset",
    "t_emb_dim", "batch_size", "resume", "num_epoch", "ngf", "lr_g", "lr_d", "beta1", "beta2", "no_lr_decay",
    "use_ema", "ema_decay", "r1_gamma", "lazy_reg", "save_content", "save_content_every", "save_ckpt_every",
    "num_proc_node", "num_process_per_node", "node_rank", "local_rank", "master_address",
)  # fmt: skip
