"""`ScoreNetwork`: a user's module plus what the engine has to know to call it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..processes import CLD, EDM, GaussianProcess, Point, grids
from .declared import HALF, declared
from .outputs import tensors
from .prediction import PREDICTIONS, F, Prediction, Velocity

Condition = Tensor | Mapping[str, Tensor]


def _log_sigma(at: Point) -> float:
    return math.log(at.ratio) if isinstance(at, Point) else -at.lam


LABELS: dict[str, Callable[[Point], float]] = {
    "t": lambda at: at.t,
    "999t": lambda at: 999.0 * at.t,
    "1000t": lambda at: 1000.0 * at.t,
    "sigma": lambda at: at.ratio,
    "log_sigma": _log_sigma,
    "log_sigma/4": lambda at: _log_sigma(at) / 4.0,
    "lam": lambda at: at.lam,
    "gamma": lambda at: -2.0 * at.lam,
}


# What torch says where a layer meets another number of channels than its own, or another dtype.
SHAPE_ERRORS = ("channels", "shapes cannot be multiplied")
DTYPE_ERRORS = ("dtype", "scalar type", "should be the same")
RULE = "its function of a Point returns a number"


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


@dataclass(frozen=True, eq=False)
class ScoreNetwork:
    """A trained network, the process it was trained on, and its calling convention.

    module      called as module(x, label), module(x, label, condition), or with a latent z
                module(x, label, z) and module(x, label, z, condition); a condition that is a
                mapping is passed by keyword. It returns a tensor [N, C, *pixel], or up to four whose
                channels count on; of diffusers' outputs, and of a mapping, `sample` is read. Its training
                mode does not act: it runs in eval mode, and is put back afterwards
    process     the law its training data followed
    shape       of one sample, (C, *pixel); a network of CLD reads [x, v], 2C channels
    prediction  "eps", "x0", "v", "score", "flow", "F" (EDM's inner network), or a function of a Point
                giving (p, q) with x0 = p x + q output; p is a tuple where it reads several slots.
                Of CLD "velocity", "mixed_velocity" or a Velocity
    label       what it is told for the time: "t", "999t", "1000t", "sigma" (= sigma/alpha),
                "log_sigma", "log_sigma/4", "lam", "gamma" (VDM's), or a function of a Point, such as the
                c_noise of a prediction that has one (prediction.py)
    label_dtype float32, float64 or int64; or bfloat16 or float16, which round 999 to 1000, of a network that
                does not take its labels otherwise
    scale       its input is scale x: "one", "sigma" (x / alpha: VE coordinates), "F" (EDM's), or a
                function of a Point; None is the prediction's c_in where it has one, else "one"
    null        the condition of the unconditional branch, one sample of it (no batch axis); None
                where the network has no such branch
    classes     number of classes, where the condition is a class index
    name        for recipes
    memory_format  of the network's input, torch.contiguous_format or torch.channels_last
    clip        range of `denoised` on pixel data, e.g. (-1, 1); None does not clip
    grid        the times to visit where a sampler is given none, as in Sampler
    variance    of 'ddpm' in a second block of as many channels: "learned" (its log), "learned_range"
    scale_input  of a network that is told its guidance scale and so needs no unconditional branch: scales
                [n] -> tensors [n, ...] that it is given by keyword, e.g. condition.ScaleEmbedding
    derivative  the form in which it offers d eps / dg along the ODE, g = sigma / alpha, for 'genie':
                "heads", GENIE's k1, k2, k3 in channel blocks 1 to 3; "exact", itself in block 1; or None
    gradient    the channel block that holds grad log p(y | its input), see with_classifier; None without
    latent      size of z, standard normals [N, latent] that are fresh for every sample and call, the same
                for all branches of a sample; 0 where the module takes none
    inference   the module differentiates nothing in its forward, and no tensor it makes there is used by
                a later one that does: it may run under torch.inference_mode, which spares a small network
                on a CPU some 5 %

    Raises ValueError where a name is unknown, the shape is not one, or a weight is not finite.
    """

    module: Callable[..., Any]
    process: GaussianProcess
    shape: tuple[int, ...]
    prediction: str | Prediction | Velocity = "eps"
    label: str | Callable[[Point], float] = "t"
    label_dtype: torch.dtype = torch.float32
    scale: str | Callable[[Point], float] | None = None
    null: Condition | int | None = None
    classes: int | None = None
    name: str = "network"
    memory_format: torch.memory_format = torch.contiguous_format
    clip: tuple[float, float] | None = None
    grid: str | grids.Grid | None = None
    variance: str | None = None
    scale_input: Callable[[Tensor], Mapping[str, Tensor]] | None = None
    derivative: str | None = None
    gradient: int | None = None
    latent: int = 0
    inference: bool = False

    def __post_init__(self) -> None:
        declared(self, LABELS)

    def with_classifier(self, classifier: Callable[..., Tensor], **options: Any) -> ScoreNetwork:
        """This network and grad log p(y | x) of a noise-aware classifier (Dhariwal & Nichol 2021).

        classifier  called as classifier(x, label), with the input and label of the network; returns
                    logits [N, classes]
        options     of classifier.with_classifier: channel_blocks, conditional, key

        `Sampler(..., classifier_scale=s)` then subtracts s sigma grad from eps; the classes y come as
        condition=. Raises ValueError where there is a classifier already.
        """
        from .classifier import with_classifier

        return with_classifier(self, classifier, **options)

    @classmethod
    def from_denoiser(
        cls, denoiser: Callable[..., Any], shape: tuple[int, ...], process: GaussianProcess | None = None,
        **options: Any,
    ) -> ScoreNetwork:  # fmt: skip
        """A denoiser D(x / alpha, sigma / alpha) that returns x0, as EDM and k-diffusion wrap theirs."""
        checks.names("from_denoiser", options, OPTIONS)
        options = {"prediction": "x0", "label": "sigma", "scale": "sigma"} | options
        return cls(denoiser, process or EDM(), shape, **options)

    @classmethod
    def from_diffusers(cls, module: nn.Module, scheduler: Any, **options: Any) -> ScoreNetwork:
        """A network of diffusers: UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel and the like.

        module     called as module(x, t, ..., return_dict=False); its config says shape and classes. Twice
                   as many channels out as in are a learned variance behind the prediction
        scheduler  one of those in adapters/schedulers.py, or its saved config with _class_name: the noise,
                   prediction, clipping, levels and their end. What its step does is the solver's to say
        options    of ScoreNetwork, in place of what the two say; `null` is the condition of the
                   unconditional branch, e.g. {"encoder_hidden_states": embedding of ""}

        A condition that is one tensor is `class_labels`, or `encoder_hidden_states` where the network attends
        to text; a mapping is passed by its names, those of SDXL within added_cond_kwargs. A last step that
        stays on its level is left out: it changes nothing. Raises ValueError where a field of a configuration
        asks for what is not taken over, and at a condition that the module does not read.
        """
        from ..adapters.diffusers import score_network

        checks.names("from_diffusers", options, OPTIONS)
        return score_network(module, scheduler, **options)

    def with_module(self, module: Callable[..., Any]) -> ScoreNetwork:
        """The same network with another module in its place."""
        made = copy.copy(self)
        object.__setattr__(made, "module", module)
        return made

    @property
    def rule(self) -> Prediction | Velocity:
        """What the network predicts, an object where `prediction` may be a name."""
        return PREDICTIONS[self.prediction] if isinstance(self.prediction, str) else self.prediction

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Of all that a sampler moves for one sample: `shape`, or [x, v] of CLD on the channel axis."""
        return (self.process.parts * self.shape[0], *self.shape[1:])

    def weights(self, at: Point) -> tuple[tuple[float, ...], float]:
        """(p, q) with x0 = sum_i p[i] x_i + q output, x_i being the slots that the network reads."""
        rule = self.rule
        if isinstance(rule, Velocity):
            assert isinstance(self.process, CLD), "checked when the network was made"
            return rule.weights(self.process, at.t)
        made = rule(at)
        if not (isinstance(made, (tuple, list)) and len(made) == 2):
            raise ValueError(
                f"prediction={rule!r} returned {checks.said(made)} of {at}; give (p, q) of "
                "x0 = p x + q output"
            )
        p, q = made
        return (p if isinstance(p, tuple) else (p,)), q

    def slope_weights(self, at: Point) -> tuple[float, ...]:
        """Weights of the channel blocks whose sum is d eps / dg (Dockhorn et al. 2022, section 3).

        Raises ValueError where the network offers no such derivative.
        """
        if self.derivative is None:
            raise ValueError(
                f"the network {self.name!r} does not offer d eps / dg; say derivative= where it does"
            )
        if self.derivative == "exact":
            return (0.0, 1.0)
        g = at.ratio
        return (0.0, -1.0 / g, g / (1.0 + g * g), 1.0 / (g * (1.0 + g * g)))

    @property
    def _promise(self) -> tuple[str, int]:
        """The option that says the most of what a call returns, and how many channel blocks that is."""
        if self.gradient is not None:
            return f"gradient={self.gradient}", self.gradient + 1
        if self.derivative is not None:
            return f"derivative={self.derivative!r}", 4 if self.derivative == "heads" else 2
        return (f"variance={self.variance!r}", 2) if self.variance else ("", 1)

    def c_in(self, at: Point) -> float:
        """The scale of the network's input."""
        return checks.number("scale", self.scale_rule(at), RULE, infinite=True)

    @property
    def scale_rule(self) -> Callable[[Point], float]:
        """The scale of the network's input as a function."""
        if callable(self.scale):
            return self.scale
        prediction = PREDICTIONS["F"] if self.prediction == "F" else self.prediction
        own = getattr(prediction, "c_in", None)
        kind = self.scale or ("F" if own else "one")
        if kind == "F":
            return own or F().c_in
        return _over_alpha if kind == "sigma" else lambda at: 1.0

    def label_of(self, at: Point) -> float:
        """What the network is told for the time; a whole number for an int64 label."""
        label = checks.number("label", self.label_rule(at), RULE, infinite=True)
        return float(round(label)) if self.label_dtype == torch.int64 else label

    @property
    def label_rule(self) -> Callable[[Point], float]:
        """What the network is told for the time, as a function."""
        return LABELS[self.label] if isinstance(self.label, str) else self.label

    def __call__(
        self, x: Tensor, label: Tensor, condition: Condition | None, latent: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The outputs of one batched call, as a tuple of tensors."""
        if self.label_dtype in HALF:  # the step writes no such labels
            label = label.to(self.label_dtype)
        unnamed, named = arguments(condition)
        given = (x, label) if latent is None else (x, label, latent)
        try:
            out = self.module(*given, *unnamed, **named)
        except RuntimeError as error:
            if hint := self._hint(str(error), x, label):
                raise ValueError(f"{hint} ({error})") from error
            raise
        outs = tensors(out)
        option, blocks = self._promise
        if option and sum(t.shape[1] for t in outs) < blocks * self.shape[0]:
            raise ValueError(  # an absent block would be read as 0
                f"the network returned {sum(t.shape[1] for t in outs)} channels; with {option} it returns "
                f"{blocks * self.shape[0]} or more"
            )
        for tensor in outs:
            if tensor.shape[0] != x.shape[0]:  # a kernel would read past its end
                raise ValueError(
                    f"the network returned a batch of {tensor.shape[0]} for one of {x.shape[0]}; "
                    f"it has to return one entry for each"
                )
        if self.process.parts > 1 and isinstance(self.rule, Velocity):
            channels, wanted = sum(t.shape[1] for t in outs), self.rule.outputs * self.shape[0]
            if channels != wanted:  # a score of x and v would be read as that of v
                raise ValueError(
                    f"the network returned {channels} channels for [x, v] of {self.shape[0]} each, and "
                    f"{self.rule} has {wanted}: the score of v alone, and its products"
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


OPTIONS = frozenset(ScoreNetwork.__dataclass_fields__) - {"module"}


def _over_alpha(at: Point) -> float:
    if isinstance(at, Point) and at.alpha == 0.0:
        raise ValueError(f"a network in VE coordinates reads x / alpha; alpha is 0 at t={at.t:g}")
    return 1.0 / at.alpha
