"""`ScoreNetwork`: a user's module, its parameterisation and how it is called."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..processes import EDM, GaussianProcess, Point, grids
from .outputs import tensors
from .parameterisation import Parameterisation
from .prediction import Prediction, Velocity

Condition = Tensor | Mapping[str, Tensor]

HALF = (torch.bfloat16, torch.float16)
LABEL_DTYPES = (torch.float32, torch.float64, torch.int64, *HALF)
FORMATS = (torch.contiguous_format, torch.channels_last)
NULL = "the class of the unconditional branch, often one more than there are"
# What torch says where a layer meets another number of channels than its own, or another dtype.
SHAPE_ERRORS = ("channels", "shapes cannot be multiplied")
DTYPE_ERRORS = ("dtype", "scalar type", "should be the same")


def gathered(condition: Condition | None, named: Mapping[str, Tensor]) -> Condition | None:
    """The condition that `arguments` took apart."""
    if not named:
        return condition
    return named if condition is None else {"": condition, **named}  # type: ignore[dict-item]


def arguments(condition: Condition | None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """What follows (x, label) in a call of the module. In a mapping "" names the tensor without a name,
    which stands there beside what scale_input made."""
    if condition is None:
        return (), {}
    if isinstance(condition, Tensor):
        return (condition,), {}
    named = dict(condition)
    return ((named.pop(""),) if "" in named else ()), named


@dataclass(frozen=True, eq=False, init=False)
class ScoreNetwork:
    """A trained network: its module, how that is called, and its `parameterisation`, which plans are made of.

    module      called as module(x, label), module(x, label, condition), or with a latent z
                module(x, label, z) and module(x, label, z, condition); with an end_label that stands
                behind the label, module(x, label, end_label, ...). A condition that is a
                mapping is passed by keyword. It returns a tensor [N, C, *pixel], or up to four whose
                channels count on; of diffusers' outputs, and of a mapping, `sample` is read. Its training
                mode does not act: it runs in eval mode, and is put back afterwards
    label_dtype float32, float64 or int64; or bfloat16 or float16, which round 999 to 1000, of a network that
                does not take its labels otherwise
    null        the condition of the unconditional branch, one sample of it (no batch axis); None
                where the network has no such branch
    memory_format  of the network's input, torch.contiguous_format or torch.channels_last
    scale_input  of a network that is told its guidance scale and so needs no unconditional branch: scales
                [n] -> tensors [n, ...] that it is given by keyword, e.g. condition.ScaleEmbedding
    measured    shape of one sample's measurement, which the module is given as `measurement=` beside its
                condition; None where it follows none (drivers/inverse.py)
    inference   the module differentiates nothing in its forward, and no tensor it makes there is used by
                a later one that does: it may run under torch.inference_mode, which spares a small network
                on a CPU some 5 %
    defaults    keys of a Spec, for runs of which nobody says more: {"solver": "sscs", "steps": 50}
    text        makes the condition of prompts: a list of n -> [n, ...]; `origin`, where it has one, is what
                recipes call it
    decoder     a Decoder that makes images of its samples, where these are latents: Sampler's own choice

    The other arguments are those of Parameterisation, which explains them. Raises ValueError where one makes
    no sense, or a weight is not finite.
    """

    module: Callable[..., Any]
    parameterisation: Parameterisation
    label_dtype: torch.dtype
    null: Condition | int | None
    memory_format: torch.memory_format
    scale_input: Callable[[Tensor], Mapping[str, Tensor]] | None
    inference: bool
    measured: tuple[int, ...] | None
    defaults: Mapping[str, Any] | None
    text: Callable[[list[str]], Tensor] | None
    decoder: Any

    def __init__(
        self,
        module: Callable[..., Any],
        process: GaussianProcess,
        shape: tuple[int, ...],
        prediction: str | Prediction | Velocity = "eps",
        label: str | Callable[[Point], float] = "t",
        label_dtype: torch.dtype = torch.float32,
        scale: str | Callable[[Point], float] | None = None,
        null: Condition | int | None = None,
        classes: int | None = None,
        name: str = "network",
        memory_format: torch.memory_format = torch.contiguous_format,
        clip: tuple[float, float] | None = None,
        grid: str | grids.Grid | None = None,
        variance: str | None = None,
        scale_input: Callable[[Tensor], Mapping[str, Tensor]] | None = None,
        derivative: str | None = None,
        guided: bool = False,
        gradient: int | None = None,
        latent: int = 0,
        inference: bool = False,
        measured: tuple[int, ...] | None = None,
        end_label: str | Callable[[Point, Point], float] | None = None,
        guide: bool = False,
        defaults: Mapping[str, Any] | None = None,
        text: Callable[[list[str]], Tensor] | None = None,
        decoder: Any = None,
    ) -> None:
        parameterisation = Parameterisation(
            process, shape, prediction=prediction, label=label, whole_label=label_dtype == torch.int64,
            scale=scale, unconditional=null is not None or guide, classes=classes, name=name, clip=clip,
            grid=grid,
            variance=variance, reads_scale=scale_input is not None, derivative=derivative, guided=guided,
            gradient=gradient, latent=latent, end_label=end_label, guide=guide,
        )  # fmt: skip
        vars(self).update(
            module=module, parameterisation=parameterisation, label_dtype=label_dtype, null=null,
            memory_format=memory_format, scale_input=scale_input, inference=inference,
            measured=measured, defaults=None if defaults is None else dict(defaults), text=text,
            decoder=decoder,
        )  # fmt: skip
        self._check()

    def _check(self) -> None:
        """Raises ValueError where what belongs to the calls makes no sense, or a weight is not finite."""
        settle = partial(checks.settle, self)
        checks.function("module", self.module, "give a torch.nn.Module or a function of (x, label)")
        settle("inference", checks.flag)
        settle("scale_input", checks.function, "give a function of the scales [n], or None")
        settle("text", checks.function, "give a function of a list of prompts, or None")
        settle("label_dtype", checks.one_of, LABEL_DTYPES)
        settle("memory_format", checks.one_of, FORMATS)
        if self.memory_format is torch.channels_last and len(self.shape) != 3:
            raise ValueError(
                f"channels_last needs images (channels, height, width), got {self.shape}"
            )
        if self.text is not None and self.classes is not None:
            raise ValueError(
                "a network is given prompts (text) or a class (classes); give one of them"
            )
        null = checks.plain(self.null)
        if self.classes is not None and isinstance(null, (int, float)):
            checks.whole("null", null, 0, NULL)
            if null > self.classes:
                raise ValueError(f"null={null} of {self.classes} classes: {NULL}")
        if isinstance(self.module, nn.Module):
            check_finite(dict(self.module.named_parameters()))

    @classmethod
    def from_denoiser(
        cls, denoiser: Callable[..., Any], shape: tuple[int, ...], process: GaussianProcess | None = None,
        **options: Any,
    ) -> ScoreNetwork:  # fmt: skip
        """A denoiser D(x / alpha, sigma / alpha) that returns x0, as EDM and k-diffusion wrap theirs."""
        checks.names("from_denoiser", options, OPTIONS)
        options = {"prediction": "x0", "label": "sigma", "scale": "sigma"} | options
        return cls(denoiser, process or EDM(), shape, **options)

    def with_module(self, module: Callable[..., Any], **said: Any) -> ScoreNetwork:
        """The same network with another module in its place.

        said  arguments of ScoreNetwork that are other ones with this module, whose weights are looked at
              then; those of a module that is the same network are not
        """
        if said:
            about = self.parameterisation
            own = {n: getattr(about if n in PARAMETERISED else self, n) for n in OPTIONS}
            return ScoreNetwork(module, **(own | said))
        made = copy.copy(self)
        vars(made).update(module=module)
        return made

    @property
    def process(self) -> GaussianProcess:
        return self.parameterisation.process

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parameterisation.shape

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.parameterisation.state_shape

    @property
    def classes(self) -> int | None:
        return self.parameterisation.classes

    @property
    def name(self) -> str:
        return self.parameterisation.name

    def __call__(
        self, x: Tensor, label: Tensor, condition: Condition | None, latent: Tensor | None = None,
        end_label: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The outputs of one batched call, as a tuple of tensors."""
        if (end_label is None) != (self.parameterisation.end_label is None):
            raise ValueError(_of_the_end(self.name, end_label is None))
        told: tuple[Tensor, ...] = (label,) if end_label is None else (label, end_label)
        if self.label_dtype in HALF:  # the step writes no such labels
            told = tuple(one.to(self.label_dtype) for one in told)
        unnamed, named = arguments(condition)
        given = (x, *told) if latent is None else (x, *told, latent)
        try:
            out = self.module(*given, *unnamed, **named)
        except RuntimeError as error:
            if hint := self._hint(str(error), x, label):
                raise ValueError(f"{hint} ({error})") from error
            raise
        outs = tensors(out)
        option, count = self.parameterisation.promise
        if option and sum(t.shape[1] for t in outs) < count * self.shape[0]:
            raise ValueError(  # an absent block would be read as 0
                f"the network returned {sum(t.shape[1] for t in outs)} channels; with {option} it returns "
                f"{count * self.shape[0]} or more"
            )
        for tensor in outs:
            if tensor.shape[0] != x.shape[0]:  # a kernel would read past its end
                raise ValueError(
                    f"the network returned a batch of {tensor.shape[0]} for one of {x.shape[0]}; "
                    f"it has to return one entry for each"
                )
        rule = self.parameterisation.rule
        if isinstance(rule, Velocity):
            channels, wanted = sum(t.shape[1] for t in outs), rule.outputs * self.shape[0]
            if channels != wanted:  # a score of x and v would be read as that of v
                raise ValueError(
                    f"the network returned {channels} channels for [x, v] of {self.shape[0]} each, and "
                    f"{rule} has {wanted}: the score of v alone, and its products"
                )
        return outs

    def _hint(self, error: str, x: Tensor, label: Tensor) -> str | None:
        """What may be wrong with the shape or the dtypes of a call that torch refused."""
        if self.process.parts > 1 and any(word in error for word in SHAPE_ERRORS):
            return (
                f"the network does not take {x.shape[1]} channels, and CLD's reads [x, v] of {self.shape[0]} "
                f"each; give the shape of x alone and a module that takes {x.shape[1]} channels"
            )
        if "Long, Int" in error and label.is_floating_point():
            return (
                f"the network looks something up by an index and was given labels of {label.dtype}: if it "
                "looks the labels up, say ScoreNetwork(label_dtype=torch.int64)"
            )
        if not any(word in error for word in DTYPE_ERRORS):
            return None
        if x.dtype != label.dtype:
            return (
                f"the network was given an input of {x.dtype} and labels of {label.dtype}: if it takes them "
                f"so, say ScoreNetwork(label_dtype={x.dtype}); if it computes in another dtype, say "
                "Sampler(dtype=)"
            )
        return (
            f"the network was given an input of {x.dtype}, which one of its layers does not take: if its "
            "weights were cast since, make the Sampler again; if it computes in another dtype, say "
            "Sampler(dtype=)"
        )


def _of_the_end(name: str, missing: bool) -> str:
    if missing:
        return (
            f"the network {name!r} is told where its step ends (end_label), and was called without: who "
            "needs its estimate at one time cannot run it"
        )
    return (
        f"the network {name!r} has no end_label, and was given one; say ScoreNetwork(end_label=...)"
    )


OPTIONS = frozenset(signature(ScoreNetwork).parameters) - {"module"}
PARAMETERISED = frozenset(Parameterisation.__dataclass_fields__)


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError where a weight is not finite."""
    for name, weight in weights.items():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        held = weight.float() if weight.element_size() == 1 else weight  # fp8 has no isfinite
        if not bool(torch.isfinite(held).all()):
            raise ValueError(
                f"weight {name!r} of the network holds NaN or infinity; load a sound checkpoint"
            )
