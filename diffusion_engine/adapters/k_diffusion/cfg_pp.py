"""CFG++ in the form of ComfyUI's functions: the model's guidance hands over the unconditional estimate.

Their arguments are ComfyUI's, and those of `Asked`. What ComfyUI's guider makes is taken by a function among
model_options["sampler_post_cfg_function"], as its own samplers do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...solvers import solver
from .loop import Asked, Callback, run
from .noise import NoiseSampler
from .sampling import Extra, Model, drawn_by

POST = "sampler_post_cfg_function"


class Apart:
    """The unconditional estimate of the last call."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def extra(self, given: Extra) -> dict[str, Any]:
        """The model's keywords with what takes the estimate, and with guidance at scale 1 not left out."""
        made = dict(given or {})
        options: Mapping[str, Any] = made.get("model_options") or {}
        posts = [*options.get(POST, []), self.take]
        made["model_options"] = {**options, POST: posts, "disable_cfg1_optimization": True}
        return made

    def take(self, told: Mapping[str, Any]) -> Tensor:
        self.last = told["uncond_denoised"]
        denoised: Tensor = told["denoised"]
        return denoised

    def __call__(self) -> Tensor:
        made, self.last = self.last, None
        if made is None:
            raise ValueError(
                f"the model called none of model_options[{POST!r}] with its 'uncond_denoised': CFG++ needs "
                "that estimate apart, as a CFGGuider of ComfyUI gives it"
            )
        return made


def _run(
    name: str, asked: tuple[Any, ...], given: NoiseSampler | None = None, *, drawn: bool = False,
    multistep: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """A solver with cfg_pp.

    asked  what every function is given, in Asked's order
    given  the noise sampler, of those that draw
    """
    model, x, sigmas, extra, callback, disable = asked
    apart = Apart()
    made = Asked(model, x, sigmas, apart.extra(extra), callback, disable, apart)
    noise = drawn_by(made, given) if drawn else None
    return run(made, solver(name, cfg_pp=True, **options), noise, multistep=multistep)


def sample_euler_cfg_pp(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:  # fmt: skip
    """Euler's method along the unconditional noise (Chung et al. 2024)."""
    return _run("euler", (model, x, sigmas, extra_args, callback, disable))


def sample_euler_ancestral_cfg_pp(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """The same to a lower level, then noise up to the next."""
    asked = (model, x, sigmas, extra_args, callback, disable)
    options: dict[str, Any] = {"eta": eta, "s_noise": s_noise}
    return _run("euler_ancestral", asked, noise_sampler, drawn=True, **options)


def sample_dpmpp_2m_cfg_pp(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M) along the unconditional noise."""
    asked = (model, x, sigmas, extra_args, callback, disable)
    return _run("dpmpp_2m", asked, multistep=True, lower_order_final=False)


def sample_dpmpp_2s_ancestral_cfg_pp(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2S) on the unconditional estimate to a lower level, then noise, and guidance."""
    asked = (model, x, sigmas, extra_args, callback, disable)
    options: dict[str, Any] = {"eta": eta, "s_noise": s_noise}
    return _run("dpmpp_2s_ancestral", asked, noise_sampler, drawn=True, **options)


def sample_res_multistep_cfg_pp(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """RES' multistep method on the unconditional estimate. It draws no noise."""
    return sample_res_multistep_ancestral_cfg_pp(
        model, x, sigmas, extra_args, callback, disable, 0.0, s_noise, noise_sampler
    )


def sample_res_multistep_ancestral_cfg_pp(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """The same to a lower level, then noise up to the next."""
    asked = (model, x, sigmas, extra_args, callback, disable)
    options = {"eta": eta, "s_noise": s_noise, "published": True}
    return _run("res_multistep", asked, noise_sampler, drawn=True, multistep=True, **options)


def sample_gradient_estimation_cfg_pp(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, ge_gamma: float = 2.0,
) -> Tensor:  # fmt: skip
    """Gradient estimation along the unconditional noise."""
    asked = (model, x, sigmas, extra_args, callback, disable)
    return _run("gradient_estimation", asked, multistep=True, gamma=ge_gamma)


CFG_PP: dict[str, Callable[..., Tensor]] = {
    "euler_cfg_pp": sample_euler_cfg_pp,
    "euler_ancestral_cfg_pp": sample_euler_ancestral_cfg_pp,
    "dpmpp_2m_cfg_pp": sample_dpmpp_2m_cfg_pp,
    "dpmpp_2s_ancestral_cfg_pp": sample_dpmpp_2s_ancestral_cfg_pp,
    "res_multistep_cfg_pp": sample_res_multistep_cfg_pp,
    "res_multistep_ancestral_cfg_pp": sample_res_multistep_ancestral_cfg_pp,
    "gradient_estimation_cfg_pp": sample_gradient_estimation_cfg_pp,
}
