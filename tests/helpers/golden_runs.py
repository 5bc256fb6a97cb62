"""Runs whose bits are kept in tests/golden, and the networks that they run on.

The networks are numpy's + - * / and sqrt on float32, which IEEE 754 rounds in one way on every processor, so
that the samples have the same bits wherever the engine keeps its promise: noise and update do not depend on
backend, batch or processor. What a plan takes from exp and log differs by bits of float64 between numpy's
builds for processors, and is rounded to float32 in the table; runs in float64 are therefore not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_engine import Result, Sampler, ScoreNetwork, linearized
from diffusion_engine.networks.prediction import Trig
from diffusion_engine.processes import (
    CLD,
    EDM,
    VDM,
    VE,
    VP,
    Discrete,
    FlowMatching,
    SubVP,
    TrigFlow,
)  # fmt: skip

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SAMPLES = GOLDEN / "samples.safetensors"  # name of a run -> [n, *shape], float32
RECIPES = GOLDEN / "recipes.json"  # name of a run -> its recipe

Array = np.ndarray


def bits(tensor: Tensor) -> Tensor:
    """Whole numbers that tell -0 from 0."""
    return tensor.contiguous().view(torch.int32)


# Networks


def of_numpy(function: Callable[..., Array]) -> Callable[..., Tensor]:
    """A module of a function of arrays: x [N, C, *pixel], label [N, 1, ...], what else it is told [N, k]."""

    def module(x: Tensor, label: Tensor, *given: Tensor, **named: Tensor) -> Tensor:
        told = [t.float().numpy().reshape(len(t), -1) for t in (*given, *named.values())]
        time = label.float().numpy().reshape(-1, *[1] * (x.ndim - 1))
        return torch.from_numpy(function(x.detach().numpy(), time, *told))

    return module


def squashed(x: Array, label: Array, *told: Array) -> Array:
    """h / sqrt(1 + h^2 + label^2), h = 3/4 x + what it is told."""
    h = 0.75 * x
    for values in told:
        for k in range(values.shape[1]):  # in an order that no library chooses
            h = h + (k + 1) * 0.03125 * values[:, k].reshape(label.shape)
    return h / np.sqrt(1.0 + h * h + label * label)


def timesteps(x: Array, label: Array, *told: Array) -> Array:
    """The same of timesteps 0 ... 999."""
    return squashed(x, label / 1000.0, *told)


def two_blocks(x: Array, label: Array, *told: Array) -> Array:
    """Behind the first block a second, of learned variances in [-1, 1]."""
    return np.concatenate([squashed(x, label, *told), squashed(0.5 * x, label)], axis=1)


def heads(x: Array, label: Array, *told: Array) -> Array:
    """GENIE's three heads behind eps."""
    eps = squashed(x, label, *told)
    return np.concatenate([eps, 0.5 * eps, 0.25 * x, -0.125 * eps], axis=1)


def with_latent(x: Array, label: Array, latent: Array) -> Array:
    """A generator: its latent has an entry for every element."""
    return squashed(x + 0.5 * latent.reshape(x.shape), label)


def velocity(u: Array, label: Array, *told: Array) -> Array:
    """A score of CLD's velocity."""
    x, v = np.split(u, 2, axis=1)
    return squashed(0.5 * x - v, label, *told)


def linear_velocity(u: Array, label: Array) -> Array:
    """One that is linear in v, and its derivative."""
    x, v = np.split(u, 2, axis=1)
    return np.concatenate([squashed(x, label) - 0.375 * v, np.full_like(v, -0.375)], axis=1)


def scales(given: Tensor) -> dict[str, Tensor]:
    """What a network is told of its guidance scale."""
    return {"scale": (given - 1.0)[:, None]}


SHAPE = (2, 3, 3)


def network(
    function: Any = squashed, process: Any = None, shape: Any = SHAPE, **options: Any
) -> ScoreNetwork:
    """A network of these, of VP, v and ten classes where nothing else is said."""
    known = {"prediction": "v", "null": 10, "classes": 10} | options
    return ScoreNetwork(of_numpy(function), process or VP(), shape, name="golden", **known)


def bare(function: Any = squashed, process: Any = None, **options: Any) -> ScoreNetwork:
    """One that takes no condition."""
    return network(function, process, **{"null": None, "classes": None} | options)


def flow() -> ScoreNetwork:
    return network(process=FlowMatching(), prediction="flow")


def flow_map() -> ScoreNetwork:
    return network(process=FlowMatching(), prediction="flow", end_label="t")


def trig() -> ScoreNetwork:
    return network(process=TrigFlow(), prediction=Trig())


def edm() -> ScoreNetwork:
    return network(process=EDM(), prediction="x0", label="sigma", scale="F")


def ve() -> ScoreNetwork:
    return network(process=VE(), prediction="x0", label="log_sigma", scale="F")


def table() -> ScoreNetwork:
    return network(timesteps, Discrete.linear(), label_dtype=torch.int64)


def cld(**options: Any) -> ScoreNetwork:
    return network(velocity, CLD(), prediction="mixed_velocity", **options)


def cld_linear() -> ScoreNetwork:
    made = bare(linear_velocity, CLD(), prediction="mixed_velocity")
    return linearized(made, 2, elementwise=True)


def gan() -> ScoreNetwork:
    chain = Discrete.few(4)
    return bare(with_latent, chain, prediction="x0", label_dtype=torch.int64, latent=18)


# What is given


def spread(*shape: int, step: int = 37, modulus: int = 101) -> Tensor:
    """Multiples of 1/64 between -0.78 and 0.78."""
    whole = np.arange(np.prod(shape)) * step % modulus
    return torch.from_numpy((whole / 64.0 - 0.78125).astype(np.float32).reshape(shape))


IMAGES = spread(3, *SHAPE)
STATES = 1.5 * spread(3, *SHAPE, step=29)
WHOLE = torch.cat([spread(3, *SHAPE, step=17), 0.25 * spread(3, *SHAPE, step=23)], dim=1)
TOLD = spread(2, 3, 2)
MASK = (torch.arange(27).reshape(3, 1, 3, 3) % 4 > 1).float()
REGION = {"mask": MASK, "known": IMAGES}
NORMALS = 2.0 * spread(6, 2, 3, *SHAPE, step=53, modulus=97)
CLASSES = [3, 10, 7]
MIXED = [1.0, 3.0, 0.5]
EACH = {"condition": CLASSES}
GUIDED = {"condition": CLASSES, "guidance": MIXED}


def normals(row: int, m: int, seeds: tuple[int, ...]) -> Tensor:
    """Others for every row, draw and seed."""
    base = 2.0 * spread(*SHAPE, step=53, modulus=89)
    return torch.stack([base + 0.125 * m - 0.25 * (row % 5) + 0.0625 * seed for seed in seeds])


class Run(NamedTuple):
    """A run: how its network is made, Sampler's arguments, what is asked of `sample` or `encode`."""

    network: Callable[[], ScoreNetwork]
    options: dict[str, Any]
    request: dict[str, Any]
    encode: bool = False

    def made(self, backend: str = "torch") -> Result:
        """What the run makes."""
        sampler = Sampler(self.network(), backend=backend, **self.options)
        return (sampler.encode if self.encode else sampler.sample)(**self.request)

    def given(self, needs: list[str]) -> dict[str, Any]:
        """What its recipe cannot hold."""
        return {name: self.request[name] for name in needs}


def run(network: Callable[[], ScoreNetwork], solver: str, steps: int, **options: Any) -> Run:
    """One of `sample`, asked for three classes where `asked` says nothing else."""
    asked = options.pop("asked", EACH)
    return Run(network, {"solver": solver, "steps": steps, **options}, asked)


def encoding(network: Callable[[], ScoreNetwork], solver: str, steps: int, **asked: Any) -> Run:
    """One of `encode`."""
    options = {"solver": solver, "steps": steps, "end": "t_min"}
    return Run(network, options, {"x": IMAGES, **EACH, **asked}, encode=True)


PLAIN = {"n": 3, "seed": 5}
BROWNIAN = {"noise": "brownian", **EACH}

# x_2 is made of all that is known, x_3 of the last call.
TABLE = {
    "process": {"name": "VP", "numbers": {"beta_min": 0.1, "beta_max": 20.0}},
    "times": [1.0, 0.5, 0.125, 0.0],
    "of": "v",
    "b": [[None], [-0.25, None], [0.0, -0.125, None]],
}

RUNS = {
    # every solver, with laws and options in turn
    "euler": run(flow, "euler", 5, asked=GUIDED),
    "euler churned": run(edm, "euler", 5, s_churn=4.0),
    "euler_ancestral": run(edm, "euler_ancestral", 5, eta=0.75),
    "heun": run(edm, "heun", 4, s_churn=4.0, s_noise=1.003),
    "dpm_2": run(ve, "dpm_2", 4, s_churn=2.0),
    "flow_heun": run(flow, "flow_heun", 4, asked=GUIDED),
    "dpm_2_ancestral": run(network, "dpm_2_ancestral", 4),
    "ddim": run(table, "ddim", 6, asked=GUIDED),
    "ddim eta": run(network, "ddim", 6, eta=0.5, clip=(-0.5, 0.5), clipped_eps=False),
    "ddpm": run(table, "ddpm", 6, asked=GUIDED),
    "dpmpp_2m": run(network, "dpmpp_2m", 6, asked=GUIDED),
    "dpmpp_2m flow": run(flow, "dpmpp_2m", 6, variant="heun"),
    "dpmpp_sde": run(network, "dpmpp_sde", 4),
    "dpmpp_2m_sde": run(edm, "dpmpp_2m_sde", 6, asked=GUIDED),
    "dpmpp_3m": run(network, "dpmpp_3m", 6, start="heun", lower_order_final=False),
    "dpmpp_3m_sde": run(network, "dpmpp_3m_sde", 7),
    "er_sde": run(network, "er_sde", 6, asked=GUIDED),
    "seeds_2": run(flow, "seeds_2", 4),
    "seeds_3": run(network, "seeds_3", 3, eta=0.5),
    "sa_solver": run(network, "sa_solver", 7, asked=GUIDED),
    "sa_solver pece": run(edm, "sa_solver", 5, pece=True, eta=0.5),
    "dpm_solver_2": run(network, "dpm_solver_2", 4),
    "dpm_solver_3": run(network, "dpm_solver_3", 4),
    "dpm_solver_2m": run(network, "dpm_solver_2m", 6, asked=GUIDED),
    "dpm_solver_3m": run(network, "dpm_solver_3m", 6, start="heun"),
    "dpm_solver_sde": run(network, "dpm_solver_sde", 6, asked=GUIDED),
    "dpmpp_singlestep": run(edm, "dpmpp_singlestep", 6, max_order=3, variant="heun"),
    "dpmpp_singlestep noise": run(network, "dpmpp_singlestep", 6, eta=0.75),
    "dpm_solver_singlestep": run(network, "dpm_solver_singlestep", 6, max_order=3),
    "unipc on eps": run(network, "unipc", 6, predict_x0=False),
    "dpm_fast": run(network, "dpm_fast", 4, eta=0.5),
    "unipc": run(network, "unipc", 7, asked=GUIDED, lower_order_final=False),
    "exp_rk": run(network, "exp_rk", 4, asked=GUIDED, tableau="hochbruck_ostermann"),
    "exp_rk flow": run(flow, "exp_rk", 4, tableau="res_3s", nodes=(0.4, 0.7)),
    "res_multistep": run(flow, "res_multistep", 6, eta=0.5),
    "gradient_estimation": run(edm, "gradient_estimation", 6, asked=GUIDED),
    "heunpp2": run(flow, "heunpp2", 5),
    "stork": run(network, "stork", 6),
    "stork flow": run(flow, "stork", 6, max_order=4, taylor=3, start="half", asked=GUIDED),
    "euler_overshoot": run(flow, "euler_overshoot", 5, asked=GUIDED),
    "dpmpp_2s_ancestral": run(network, "dpmpp_2s_ancestral", 4),
    "deis": run(network, "deis", 7),
    "deis in log rho": run(network, "deis", 6, variant="logrho", lower_order_final=True),
    "ipndm": run(edm, "ipndm", 6),
    "plms": run(table, "plms", 6),
    "pndm": run(table, "pndm", 6),
    "lms": run(edm, "lms", 6),
    "cld_em": run(cld, "cld_em", 5),
    "cld_ode": run(cld, "cld_ode", 4),
    "cld_exp": run(cld, "cld_exp", 6, asked=GUIDED),
    "sscs": run(cld, "sscs", 5, asked=GUIDED),
    "sscs_mid": run(cld, "sscs_mid", 5),
    "sscs_mixed": run(cld, "sscs_mixed", 5),
    "sscs2": run(cld, "sscs2", 4),
    "sscs_exact": run(cld_linear, "sscs_exact", 4, asked=PLAIN),
    "euler_maruyama": run(lambda: network(process=SubVP()), "euler_maruyama", 6),
    "reverse_diffusion": run(lambda: network(prediction="score"), "reverse_diffusion", 6),
    "ancestral": run(network, "ancestral", 6, end="t_min", denoise=False),
    "ald": run(ve, "ald", 3, n_steps=2, snr=0.125),
    "dpdm_sde": run(edm, "dpdm_sde", 6),
    "flow_sde": run(flow, "flow_sde", 5, asked=GUIDED),
    "cps": run(flow, "cps", 5, asked=GUIDED),
    "consistency": run(edm, "consistency", 4),
    "lcm": run(
        lambda: network(timesteps, Discrete.scaled_linear(), null=None, scale_input=scales),
        "lcm", 4, guidance=8.0, asked={"condition": [3, 9, 7], "guidance": [8.0, 1.0, 2.5]},
    ),
    "tcd": run(table, "tcd", 5, eta=0.5, asked=GUIDED),
    "scm": run(trig, "scm", 4, asked=GUIDED),
    "flow_map": run(flow_map, "flow_map", 4, gamma=0.5, asked=GUIDED),
    "vdm": run(lambda: network(process=VDM(), prediction="eps"), "vdm", 6),
    "genie": run(
        lambda: network(heads, prediction="eps", derivative="heads"),
        "genie", 5, asked=GUIDED, afs=True,
    ),
    "ddgan": run(gan, "ddgan", 4, asked=PLAIN),
    "learned": run(network, "learned", 3, asked=GUIDED, table=TABLE),
    # what may be asked
    "interval": run(network, "dpmpp_2m", 6, asked=GUIDED, interval=(0.3, 5.0)),
    "composed": run(network, "ddpm", 5, asked={"compose": [(CLASSES, MIXED), (2, -0.5), (6, 0.75)]}),
    "product": run(
        lambda: bare(prediction="eps"),
        "ddim", 5, asked={"compose": [(TOLD[0], 0.75), (TOLD[1], MIXED)]},
    ),
    "inpainted": run(network, "ddpm", 5, asked={**GUIDED, **REGION}),
    "image": run(network, "dpmpp_2m_sde", 6, asked={**GUIDED, "x": IMAGES, "start": 0.5}),
    "state": run(network, "unipc", 6, asked={**EACH, "x": STATES, "noised": True, "start": 0.5}),
    "whole state": run(cld, "sscs", 5, asked={**EACH, "x": WHOLE, "noised": True}),
    "normals": run(
        network, "heun", 4, asked={**EACH, "noise": NORMALS}, s_churn=3.0, times=[0.9, 0.5, 0.1]
    ),
    "normals of a function": run(network, "ddpm", 5, asked={**GUIDED, "noise": normals, **REGION}),
    "path": run(network, "dpmpp_2m_sde", 8, asked={**BROWNIAN, "guidance": MIXED}),
    "path of twice the steps": run(network, "dpmpp_2m_sde", 16, asked=BROWNIAN),
    "path of half steps": run(network, "dpmpp_sde", 6, asked=BROWNIAN),
    "encoded": encoding(network, "ddim", 5, guidance=MIXED),
    "encoded, refined": encoding(network, "ddim", 5, refine=2, start=0.05),
    "encoded, second order": encoding(network, "dpmpp_2m", 5),
    "encoded velocity": encoding(cld, "cld_exp", 5),
    "learned variance": run(
        lambda: network(two_blocks, variance="learned_range"),
        "ddpm", 5, asked=GUIDED, variance="learned_range",
    ),
    "seeds": run(bare, "ddpm", 4, asked={"seeds": [2**64 - 1, 7, 2**63]}),
    "one pixel row": run(lambda: network(shape=(1, 2, 2)), "dpmpp_3m_sde", 5),
    "more channels": run(lambda: network(shape=(3, 4, 4)), "unipc", 5),
}  # fmt: skip

PICTURES = {  # of the digits: the command that drew them
    "digits_ode.png": ("unipc", 8, "2.0"),
    "digits_sde.png": ("dpmpp_2m_sde", 8, "2.0"),
}
