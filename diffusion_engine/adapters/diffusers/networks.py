"""diffusers' networks: what a module and the configuration of its scheduler say. diffusers itself is not
imported."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ... import checks, solvers
from ...networks.condition import ScaleEmbedding
from ...networks.decoder import Decoder
from ...networks.network import OPTIONS, ScoreNetwork
from ...networks.wrapper import Wrapper
from ...solvers import Solver
from .classes import Levels
from .fields import understood
from .tables import learned

# Keywords of a forward that may be conditions, and the fields without one of which it does not read them.
OWN: dict[str, tuple[str, ...]] = {
    "encoder_hidden_states": (),
    "encoder_attention_mask": (),
    "attention_mask": (),
    "class_labels": ("class_embed_type", "num_class_embeds", "num_embeds_ada_norm"),
    "timestep_cond": ("time_cond_proj_dim",),
}
# What is read of added_cond_kwargs, by addition_embed_type and encoder_hid_dim_type.
ADDED = {
    "text_time": ("text_embeds", "time_ids"),
    "text_image": ("text_embeds", "image_embeds"),
    "image": ("image_embeds",),
    "image_hint": ("image_embeds", "hint"),
    "text_image_proj": ("image_embeds",),
    "image_proj": ("image_embeds",),
    "ip_image_proj": ("image_embeds",),
}

DECODER = frozenset(Decoder.__dataclass_fields__) - {"module"}
SOUGHT = {
    "module": "a network of diffusers",
    "scheduler": "a scheduler, or its config",
    "vae": "an autoencoder of diffusers",
}


class Model(Wrapper):
    """A module of diffusers, called as module(x, label, condition).

    condition  the keyword by which a condition that is one tensor is passed
    about      the module's configuration, which says what it reads
    Raises ValueError on a name that it does not read.
    """

    def __init__(self, module: nn.Module, condition: str, about: Mapping[str, Any]) -> None:
        super().__init__(module)
        self.condition = condition
        keywords = inspect.signature(module.forward).parameters
        self.own = [
            name
            for name, fields in OWN.items()
            if name in keywords and (not fields or any(about.get(f) is not None for f in fields))
        ]
        kinds = (about.get("addition_embed_type"), about.get("encoder_hid_dim_type"))
        self.added = [name for kind in kinds for name in ADDED.get(kind or "", ())]

    def check(self, names: Iterable[str]) -> None:
        """Raises ValueError where one of the names of a condition is none that the module reads."""
        if unread := [name for name in names if name not in self.own and name not in self.added]:
            raise ValueError(
                f"the condition has {unread[0]!r}, which this {type(self.module).__name__} does not read: it "
                f"takes {', '.join(dict.fromkeys((*self.own, *self.added))) or 'none'}. Wrap a module that "
                "is to read others"
            )

    def forward(
        self, x: Tensor, label: Tensor, condition: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        self.check(named)
        given: dict[str, Any] = {name: t for name, t in named.items() if name in self.own}
        if condition is not None:
            given[self.condition] = condition
        if added := {name: t for name, t in named.items() if name in self.added}:
            given["added_cond_kwargs"] = added
        return self.module(x, label, **given, return_dict=False)[0]


def from_diffusers(module: nn.Module, scheduler: Any, **options: Any) -> ScoreNetwork:
    """A network of diffusers: UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel and the like.

    module     called as module(x, t, ..., return_dict=False); its config says shape and classes. Twice
               as many channels out as in are a learned variance behind the prediction
    scheduler  one of those in classes.py, or its saved config with _class_name: the noise,
               prediction, clipping, levels and their end. What its step does is the solver's to say
    options    of ScoreNetwork, in place of what the two say; `null` is the condition of the
               unconditional branch, e.g. {"encoder_hidden_states": embedding of ""}

    A condition that is one tensor is `class_labels`, or `encoder_hidden_states` where the network attends
    to text; a mapping is passed by its names, those of SDXL within added_cond_kwargs. A last step that
    stays on its level is left out: it changes nothing. Raises ValueError where a field of a configuration
    asks for what is not taken over, and at a condition that the module does not read.
    """
    checks.names("from_diffusers", options, OPTIONS)
    config, name, _ = scheduler_of(scheduler)
    about, _ = configuration("module", module)
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
    fields = understood(name, config)
    rule = learned(fields)
    pixel = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    classes = about.get("num_embeds_ada_norm") or about.get("num_class_embeds")
    text = about.get("cross_attention_dim") is not None and "encoder_hid_dim" in about
    found: dict[str, Any] = {
        "shape": (channels, *pixel),
        "prediction": rule.prediction,
        "label": rule.label,
        "classes": classes,
        # DiT's table of classes has one more entry, for none.
        "null": classes if about.get("num_embeds_ada_norm") else None,
        "clip": rule.clip,
        "grid": Levels(name, fields),
        "name": type(module).__name__,
        "variance": _variance(config, about) if outputs != channels else None,
        # Students of guidance distillation, such as LCM's, read the scale.
        "scale_input": ScaleEmbedding(dim) if (dim := about.get("time_cond_proj_dim")) else None,
    }
    model = Model(module, "encoder_hidden_states" if text else "class_labels", about)
    model.train(module.training)
    if isinstance(null := options.get("null"), Mapping):
        model.check(null)
    return ScoreNetwork(model, rule.process, **{**found, **options})


def configuration(name: str, given: Any) -> tuple[Mapping[str, Any], str]:
    """The configuration of an object of diffusers, or what was saved of it, and the class.

    What an object is says its class: its configuration may be kept from another's.
    """
    config = getattr(given, "config", given)
    if not isinstance(config, Mapping):
        raise ValueError(
            f"{name}={type(given).__name__} has no configuration: give " + SOUGHT[name]
        )
    return config, config.get("_class_name", "") if given is config else type(given).__name__


ENGINE = "EngineScheduler"
# Its fields; all others are those of the class that it is like.
ENGINES = ("solver", "options", "seeds", "like")


def scheduler_of(given: Any) -> tuple[dict[str, Any], str, Solver | None]:
    """The fields of a scheduler, its class, and the solver in place of the class's own: an EngineScheduler
    may name one."""
    config, name = configuration("scheduler", given)
    # Other classes keep its fields in their configuration, and do not read them.
    fields, named = {k: v for k, v in config.items() if k not in ENGINES}, None
    if name == ENGINE:
        name = config["like"]
        if config["solver"] is not None:
            named = solvers.solver(config["solver"], **config["options"])
    if hasattr(given, "set_shift"):  # which leaves the configuration as it was
        fields["set_shift"] = given.shift
    return fields, name, named


def _variance(config: Mapping[str, Any], about: Mapping[str, Any]) -> str | None:
    """What the second half of the channels is; DiT's is a range, whatever its scheduler says."""
    kind = config.get("variance_type")
    if kind in ("learned", "learned_range"):
        return kind
    return "learned_range" if about.get("num_embeds_ada_norm") else None


class VAE(nn.Module):
    """The decoder of an autoencoder of diffusers, called as module(z)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        return self.module.decode(z, return_dict=False)[0]  # type: ignore[operator]


def decoder_from_diffusers(vae: nn.Module, **options: Any) -> Decoder:
    """The decoder of `vae`, diffusers' AutoencoderKL or its like, by its config; options as in Decoder."""
    checks.names("decoder_from_diffusers", options, DECODER)
    about, _ = configuration("vae", vae)
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
