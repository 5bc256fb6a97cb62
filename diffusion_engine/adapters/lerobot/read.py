"""Checkpoints of lerobot's diffusion policy, as its `save_pretrained` and the hub have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...networks.network import ScoreNetwork
from ...processes import Discrete
from ...solvers import solver
from ..checkpoint import Checkpoint, Fields, fill, on_meta, read
from .network import ConditionalUnet1d
from .policy import MODES, Policy, scale_of
from .statistics import statistics_of

FORMAT = "lerobot_diffusion"
# As diffusers' schedulers step: an estimate that is clipped keeps the network's own eps in DDIM.
SOLVERS = {"DDPM": solver("ddpm"), "DDIM": solver("ddim", clipped_eps=False)}
PREDICTIONS = {"epsilon": "eps", "sample": "x0"}
SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")
KINDS = ("STATE", "VISUAL", "ENV", "ACTION")
UNET = "diffusion.unet."
# Its vision encoder, and statistics in releases up to 0.3.
BESIDES = (
    "diffusion.rgb_encoder.",
    "normalize_inputs.",
    "normalize_targets.",
    "unnormalize_outputs.",
)


def from_lerobot(path: str | os.PathLike[str], **options: Any) -> ScoreNetwork:
    """The network of lerobot's diffusion policy, whose samples are normalised actions [horizon, actions].

    path     a folder of config.json and model.safetensors, as lerobot saves it
    options  of ScoreNetwork

    It is told the observations as its condition: `policy_from_lerobot` makes that, and actions in their own
    units. Its vision encoder is not read. Raises ValueError where config or tensors are not such a policy's.
    """
    return _policy(path, options, scaled=False).network


def policy_from_lerobot(path: str | os.PathLike[str], **options: Any) -> Policy:
    """A policy of lerobot: its network, and what stands before and behind it.

    Raises ValueError as from_lerobot, and where statistics that features are normalised by are missing.
    """
    return _policy(path, options, scaled=True)


def _policy(path: str | os.PathLike[str], options: dict[str, Any], scaled: bool) -> Policy:
    found = read(path, FORMAT)
    fields = Fields(found.config, f"the config of {found.name}")
    sizes, kinds, images = _features(fields)
    observed, horizon = fields.whole("n_obs_steps", 1, 1024), fields.whole("horizon", 1, 65536)
    done = fields.whole("n_action_steps", 1, 65536)
    if done > horizon - observed + 1:
        raise ValueError(
            f"{fields.where}: n_action_steps={done}: of horizon={horizon} steps {observed - 1} lie in the "
            "past"
        )
    seen = images * 2 * fields.whole("spatial_softmax_num_keypoints", 1, 65536, 32)
    environment = sizes.get("observation.environment_state", 0)
    condition = observed * (sizes["observation.state"] + seen + environment)
    module = _module(fields, sizes["action"], condition, horizon)
    network = _network(found, fields, module, (horizon, sizes["action"]), options)
    steps = fields.whole("num_train_timesteps", 1, 100_000)
    modes = fields.inner("normalization_mapping")
    statistics = statistics_of(Path(path), found.tensors) if scaled else {}
    scales = {
        name: scale_of(modes.choice(kind, MODES, "IDENTITY"), statistics.get(name, {}), name)
        for name, kind in (kinds if scaled else {}).items()
    }
    return Policy(
        network,
        SOLVERS[fields.choice("noise_scheduler_type", tuple(SOLVERS))],
        fields.whole("num_inference_steps", 1, steps, None) or steps,
        observed,
        done,
        sizes["observation.state"],
        environment,
        seen,
        scales,
    )


def lerobot_network(
    module: Callable[..., Any], process: Discrete, shape: tuple[int, ...], **options: Any
) -> ScoreNetwork:
    """A module of lerobot's convention: eps of (x [n, horizon, actions], whole timestep, condition).

    options  of ScoreNetwork
    """
    own: dict[str, Any] = {
        "prediction": "eps",
        "label": "t",
        "label_dtype": torch.int64,
        "grid": "leading",
    }
    return ScoreNetwork(module, process, shape, **own | options)


def _features(fields: Fields) -> tuple[dict[str, int], dict[str, str], int]:
    """Sizes of features that are rows of numbers, kinds of those, and the number of cameras."""
    sizes, kinds, images = {}, {}, 0
    for side in ("input_features", "output_features"):
        inner = fields.inner(side)
        for name in inner.config:
            about = inner.inner(name)
            kind = about.choice("type", KINDS)
            shape = about.wholes("shape", 1, 1 << 20, longest=3)
            if kind == "VISUAL":
                images += 1
            else:
                sizes[name], kinds[name] = shape[0], kind
    known = {"observation.state", "observation.environment_state", "action"}
    if not {"observation.state", "action"} <= sizes.keys() <= known:
        raise ValueError(
            f"{fields.where} has the features {', '.join(sorted(sizes))}; a diffusion policy has "
            "observation.state and action, and may have observation.environment_state and images"
        )
    return sizes, kinds, images


def _module(fields: Fields, actions: int, condition: int, horizon: int) -> ConditionalUnet1d:
    """The network on "meta". Raises ValueError where its sizes do not go together."""
    widths = fields.wholes("down_dims", 1, 65536, longest=8)
    groups = fields.whole("n_groups", 1, 1024)
    kernel = fields.whole("kernel_size", 1, 255)
    embedding = fields.whole("diffusion_step_embed_dim", 4, 65536)
    scales = fields.flag("use_film_scale_modulation")
    if horizon % (1 << len(widths) - 1):
        raise ValueError(
            f"{fields.where}: horizon={horizon} cannot be halved {len(widths) - 1} times, as down_dims wants"
        )
    if any(width % groups for width in widths) or widths[0] % 8 or not kernel % 2 or embedding % 2:
        raise ValueError(
            f"{fields.where}: down_dims are multiples of n_groups={groups}, the first of 8 too, kernel_size "
            "is odd and diffusion_step_embed_dim even"
        )
    return on_meta(
        lambda: ConditionalUnet1d(actions, condition, widths, kernel, groups, embedding, scales)
    )


def _network(
    found: Checkpoint,
    fields: Fields,
    module: ConditionalUnet1d,
    shape: tuple[int, ...],
    options: dict,
) -> ScoreNetwork:
    if other := [name for name in found.tensors if not name.startswith((UNET, *BESIDES))]:
        raise ValueError(
            f"{found.name} has {len(other)} tensors that are none of such a policy's: {', '.join(other[:4])}"
        )
    own = {n.removeprefix(UNET): t for n, t in found.tensors.items() if n.startswith(UNET)}
    # torch.compile's name stands between, where the policy was compiled.
    fill(module, {name.removeprefix("_orig_mod."): t for name, t in own.items()}, found.name)
    most = fields.number("clip_sample_range", 0.0, 1e6, 1.0)
    clip = (-most, most) if fields.flag("clip_sample") else None
    prediction = PREDICTIONS[fields.choice("prediction_type", tuple(PREDICTIONS))]
    said: dict[str, Any] = {"prediction": prediction, "clip": clip, "name": found.name}
    return lerobot_network(module, _process(fields), shape, **said | options)


def _process(fields: Fields) -> Discrete:
    """DDPM's table of betas, as diffusers' schedulers make it."""
    n = fields.whole("num_train_timesteps", 1, 100_000)
    kind = fields.choice("beta_schedule", SCHEDULES)
    if kind == "squaredcos_cap_v2":
        return Discrete.cosine(n)
    low, high = fields.number("beta_start", 0.0, 1.0), fields.number("beta_end", 0.0, 1.0)
    return (
        Discrete.linear(n, low, high) if kind == "linear" else Discrete.scaled_linear(n, low, high)
    )
