"""A shipped network, or a user's own file in the same form, as a `ScoreNetwork`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..genie import attach
from ..networks.condition import ScaleEmbedding, ScaleValue
from ..networks.network import ScoreNetwork
from ..networks.outputs import tensors
from ..networks.parameterisation import PREDICTIONS
from ..networks.prediction import (
    Consistency,
    F,
    MinusV,
    Prediction,
    Trig,
    Velocity,
    VEScale,
    VPScale,
)
from ..networks.text import TextEncoder
from ..processes import (
    CLD,
    EDM,
    VDM,
    VE,
    VP,
    Discrete,
    FlowMatching,
    GaussianProcess,
    SubVP,
    TrigFlow,
)
from .cards import Base, Card, card, names
from .decoders import decoder_of
from .weights import build, load

STEPS = 100_000  # of a table of betas
PROCESSES: dict[str, Callable[..., GaussianProcess]] = {
    "vp": VP,
    "subvp": SubVP,
    "ve": VE,
    "edm": EDM,
    "flow": FlowMatching,
    "trig": TrigFlow,
    "cld": CLD,
    "vdm": VDM.linear,
    "ddgan": Discrete.few,
    "linear": Discrete.linear,
    "cosine": Discrete.cosine,
}
# Predictions with options; without any, a name of PREDICTIONS is enough.
RULES: dict[str, Callable[..., Prediction | Velocity]] = {
    "F": F,
    "consistency": Consistency,
    "trig": Trig,
    "velocity": Velocity,
    "minus_v": MinusV,
    "vesde": VEScale,
    "vpsde": VPScale,
}


def load_network(
    name: str | os.PathLike[str] = "digits", device: str | torch.device = "cpu"
) -> ScoreNetwork:
    """The network of a name of `zoo.names()`, or of a .safetensors file with its .json beside it.

    Raises ValueError where the name is unknown, a file is damaged, its card does not say what a ScoreNetwork
    needs, or it is no network that samples.
    """
    about = card(name)
    if about.base is not None:
        return with_head(name, about.base, device)
    if about.prediction is None:
        raise ValueError(_no_network(str(name), about))
    network = network_of_card(load(name).to(torch.device(device)), about, str(name), device)
    if str(name) not in names():  # the tests call those that ship
        check_call(network, about)
    return network


def _no_network(name: str, about: Card) -> str:
    """Why a card is none of a network that samples, and what to do with it."""
    use = f"zoo.load({name!r}) is its module"
    if about.family == "classifier":
        use = f"guide by it: with_classifier(load_network('digits'), zoo.load({name!r}), conditional='null')"
    if about.scale_factor is not None:
        use += ", and networks of its latents load it as their decoder"
    said = f" ({about.about.rstrip('.')})" if about.about else ""
    return f"{name!r} is a part, and predicts nothing of an image's noise{said}; {use}"


def network_of_card(
    module: nn.Module, about: Card | Mapping[str, Any], name: str = "network",
    device: str | torch.device = "cpu",
) -> ScoreNetwork:  # fmt: skip
    """The ScoreNetwork of a module, trained or to be trained, by what its card says of it.

    device  of its decoder, where it has one

    Raises ValueError where the card does not say what a ScoreNetwork needs.
    """
    if not isinstance(about, Card):
        about = Card.model_validate(about)
    try:
        for needed in ("process", "shape", "prediction"):
            if not getattr(about, needed):
                raise ValueError(f"{needed} is missing")
        prediction = prediction_of(about.prediction)
        return ScoreNetwork(
            module,
            process_of(about, module),
            about.shape,
            prediction=prediction,
            label=_label(about.label, prediction),
            label_dtype=getattr(torch, about.label_dtype),
            end_label=about.end_label,
            scale=about.scale,
            scale_input=_scale_input(about.scale_input),
            latent=about.latent,
            clip=about.clip,
            grid=about.grid,
            null=about.null if about.context is None else torch.zeros(about.context),
            classes=len(about.classes) or None,
            defaults=about.sampler,
            name=name,
            inference=True,
            text=_text(about),
            decoder=None if about.decoder is None else decoder_of(about.decoder, name, device),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the card of {name!r} makes no network: {error}; compare it with 'digits'"
        ) from error


def _text(about: Card) -> TextEncoder | None:
    """What reads the prompts of a card's network."""
    if about.text is None:
        return None
    text = TextEncoder(about.text.name, about.text.tokens)
    if about.context != (text.tokens, text.width):
        raise ValueError(
            f"the text encoder makes {text.tokens} tokens {text.width} wide, and context={about.context}; "
            "write what the weights were trained with"
        )
    return text


def _made(kind: str, given: Mapping[str, Any], table: Mapping[str, Callable[..., Any]]) -> Any:
    """What a table's entry of the name makes of the options beside it. Raises ValueError."""
    options = dict(given)
    name = options.pop("name", None)
    if name not in table:
        near = checks.nearest([str(name)], table)
        raise ValueError(f"unknown {kind} {name!r}; choose {', '.join(table)}{near}")
    checks.names(f"{kind} {name!r}", options, signature(table[name]).parameters)
    if isinstance(n := options.get("n"), int) and n > STEPS:
        raise ValueError(f"{kind} {name!r} has n={n} timesteps; {STEPS} are the most")
    return table[name](**options)


def process_of(about: Card, module: nn.Module) -> GaussianProcess:
    """The law of a card. Of "vdm" with `gamma`, the name of a module within `module`, gamma is that one."""
    given = dict(about.process or {})
    if given.get("name") == "vdm" and "gamma" in given:
        checks.names("process 'vdm' with gamma", given, ("name", "gamma"))
        try:
            process: GaussianProcess = VDM.from_module(module.get_submodule(str(given["gamma"])))
        except AttributeError:
            raise ValueError(
                f"gamma={given['gamma']!r} names no module of {type(module).__name__}"
            ) from None
    else:
        process = _made("process", given, PROCESSES)
    if about.time is None:
        return process
    return replace(process, t_min=about.time[0], t_max=about.time[1])


def prediction_of(given: str | dict[str, Any] | None) -> str | Prediction | Velocity:
    """The prediction of a card."""
    if isinstance(given, str) and given in PREDICTIONS:
        return given
    table = {**{name: lambda name=name: name for name in PREDICTIONS}, **RULES}
    return _made("prediction", {"name": given} if isinstance(given, str) else given or {}, table)


def _label(given: str, prediction: Any) -> Any:
    if given != "c_noise":
        return given
    rule = PREDICTIONS[prediction] if isinstance(prediction, str) else prediction
    if not hasattr(rule, "c_noise"):
        raise ValueError(f"label='c_noise': the prediction {prediction!r} has none; name a label")
    return rule.c_noise


def _scale_input(
    given: str | dict[str, Any] | None,
) -> Callable[[Tensor], Mapping[str, Tensor]] | None:
    if given is None:
        return None
    if isinstance(given, str):
        return ScaleValue(given)
    checks.names("scale_input", given, signature(ScaleEmbedding).parameters)
    return ScaleEmbedding(**given)


def check_call(network: ScoreNetwork, about: Card) -> None:
    """Raises ValueError where the architecture does not take, or does not return, what the card says."""
    with torch.device("meta"):
        network = network.with_module(build(about.architecture).eval())
        parameterisation = network.parameterisation
        x, label = torch.empty(1, *network.state_shape), torch.empty(1, dtype=network.label_dtype)
        end = None if parameterisation.end_label is None else label
        latent = torch.empty(1, parameterisation.latent) if parameterisation.latent else None
        condition: Any = torch.zeros(1, dtype=torch.int64) if network.classes else None
        if about.context is not None:
            condition = torch.empty(1, *about.context)
        if network.scale_input is not None:
            told = network.scale_input(torch.ones(1, dtype=torch.float64))
            condition = ({} if condition is None else {"": condition}) | {
                key: value.float() for key, value in told.items()
            }
        said = f"the card of {network.name!r} says shape {list(network.shape)}"
        if network.classes:
            said += f", {network.classes} classes"
        if about.context is not None:
            said += f", context {list(about.context)}"
        try:
            with torch.no_grad():
                found = tensors(network(x, label, condition, latent, end))
        except Exception as error:
            raise ValueError(
                f"{said}, and its architecture does not take that ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); write what the weights were trained with"
            ) from error
    rule = parameterisation.rule
    channels = network.shape[0] * (rule.outputs if isinstance(rule, Velocity) else 1)
    if any(out.shape[2:] != x.shape[2:] or out.shape[1] != channels for out in found):
        raise ValueError(
            f"{said}, and its architecture returns {[list(out.shape[1:]) for out in found]}; write what "
            "the weights were trained with"
        )


def with_head(name: str | os.PathLike[str], base: Base, device: str | torch.device) -> ScoreNetwork:
    """The network of GENIE's head of that name, with the base that it was trained beside."""
    below = base.name
    if below.endswith(".safetensors"):
        below = str(Path(name).parent / below)
    if card(below).sha256 != base.sha256:
        raise ValueError(
            f"the head {str(name)!r} was trained with other weights than those of its base {below!r}; "
            "give that base, or train the head again"
        )
    head = load(name).to(torch.device(device))
    made = attach(load_network(below, device), head, feature=base.feature, embedding=base.embedding)
    own = card(name).sampler
    return made.with_module(
        made.module, name=str(name), **({} if own is None else {"defaults": own})
    )
