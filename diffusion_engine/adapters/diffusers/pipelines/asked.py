"""Which pipelines are run, and what of their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a class of pipelines does with its network.

    network     the name of the component
    text_first  the guided branch is the first half of a call, and not the second
    variance    a second half of the output is a learned variance, and is read
    """

    network: str = "unet"
    text_first: bool = False
    variance: bool = False


TRANSFORMER = Kind("transformer")
KINDS: dict[str, Kind] = {
    "DDPMPipeline": Kind(variance=True),
    "DDIMPipeline": Kind(),
    "StableDiffusionPipeline": Kind(),
    "StableDiffusionImg2ImgPipeline": Kind(),
    "StableDiffusionInpaintPipeline": Kind(),
    "StableDiffusionXLPipeline": Kind(),
    "StableDiffusionXLImg2ImgPipeline": Kind(),
    "StableDiffusionXLInpaintPipeline": Kind(),
    "LatentConsistencyModelPipeline": Kind(),
    "StableDiffusion3Pipeline": TRANSFORMER,
    "StableDiffusion3Img2ImgPipeline": TRANSFORMER,
    "FluxPipeline": TRANSFORMER,
    "FluxImg2ImgPipeline": TRANSFORMER,
    "DiTPipeline": Kind("transformer", text_first=True),
}

# Arguments that change what happens between the network's calls: with one of them the pipeline's own loop is
# the one to run. A value is as good as none where the function says so.
UNLESS: dict[str, Callable[[Any], bool]] = {
    "guidance_rescale": lambda given: not given,
    "skip_guidance_layers": lambda given: given is None,
    "callback": lambda given: given is None,
}
ADAPTED = {
    "ip_adapter_image": lambda given: given is None,
    "ip_adapter_image_embeds": lambda given: given is None,
}
INSTEAD = "leave it out, or call the pipeline itself, with EngineScheduler as its scheduler"


def kind_of(pipe: Any) -> Kind:
    """What is known of a pipeline's class. Raises ValueError where it is none that is run."""
    for known in type(pipe).__mro__:
        if known.__name__ in KINDS and known.__module__.startswith("diffusers."):
            return KINDS[known.__name__]
    raise ValueError(
        f"pipe={type(pipe).__name__} is no pipeline whose loop is run here: {', '.join(KINDS)}. Give it "
        "EngineScheduler as its scheduler, and call it as it is"
    )


def bound(pipe: Any, kind: Kind, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of the pipeline by name, its defaults among them.

    Raises ValueError on one that asks for what happens between the network's calls, and TypeError on one
    that the pipeline does not have.
    """
    given = inspect.signature(type(pipe).__call__).bind(pipe, *args, **kwargs)
    given.apply_defaults()
    named = dict(given.arguments)
    named.pop("self", None)
    for name, one in given.signature.parameters.items():
        if one.kind is inspect.Parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    # What a U-Net is told of an image is part of its condition; transformers have layers of their own for it.
    refused = UNLESS | (ADAPTED if kind.network == "transformer" else {})
    for name, nothing in refused.items():
        if name in named and not nothing(named[name]):
            raise ValueError(
                f"{name}={_said(named[name])} acts between the calls of the network: {INSTEAD}"
            )
    scale = named.get("true_cfg_scale")
    negative = any(named.get(f"negative_prompt{end}") is not None for end in ("", "_2", "_embeds"))
    if scale is not None and scale > 1.0 and negative:
        raise ValueError(
            f"true_cfg_scale={scale:g} with a negative prompt calls the network twice a step: {INSTEAD}"
        )
    return named


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
