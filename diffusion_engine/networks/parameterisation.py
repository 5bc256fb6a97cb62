"""`Parameterisation`: what a trained network is told and predicts. Host only: no module, no device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from .. import checks
from ..processes import CLD, GaussianProcess, Point, grids
from .prediction import PREDICTIONS, F, Prediction, Velocity


def _log_sigma(at: Any) -> Any:
    return math.log(at.ratio) if isinstance(at, Point) else -at.lam


LABELS: dict[str, Callable[[Any], Any]] = {
    "t": lambda at: at.t,
    "999t": lambda at: 999.0 * at.t,
    "1000t": lambda at: 1000.0 * at.t,
    "sigma": lambda at: at.ratio,
    "log_sigma": _log_sigma,
    "log_sigma/4": lambda at: _log_sigma(at) / 4.0,
    "lam": lambda at: at.lam,
    "gamma": lambda at: -2.0 * at.lam,
}


def _of_end(rule: Callable[[Any], Any], at: Any, end: Any) -> Any:
    return rule(end)


# What a network is told for the end of its step, as functions of its two points.
END_LABELS: dict[str, Callable[[Any, Any], Any]] = {
    "dt": lambda at, end: abs(at.t - end.t),
    **{name: partial(_of_end, rule) for name, rule in LABELS.items()},
}
SCALES = ("one", "sigma", "F")
RULE = "its function of a Point returns a number"


@dataclass(frozen=True)
class Parameterisation:
    """All that a plan takes of a network.

    process     the law its training data followed
    shape       of one sample, (C, *pixel); a network of CLD reads [x, v], 2C channels
    prediction  "eps", "x0", "v", "score", "flow", "F" (EDM's inner network), or a function of a Point
                giving (p, q) with x0 = p x + q output; p is a tuple where it reads several slots.
                Of CLD "velocity", "mixed_velocity" or a Velocity
    label       what it is told for the time: "t", "999t", "1000t", "sigma" (= sigma/alpha),
                "log_sigma", "log_sigma/4", "lam", "gamma" (VDM's), or a function of a Point, such as the
                c_noise of a prediction that has one (prediction.py)
    end_label   what it is told for the end of the step that its call makes: the name of a label there, "dt",
                which is |t - t_end|, or a function of both Points, (at, end); None where it is told none
    whole_label  labels are rounded to whole numbers
    scale       its input is scale x: "one", "sigma" (x / alpha: VE coordinates), "F" (EDM's), or a
                function of a Point; None is the prediction's c_in where it has one, else "one"
    unconditional  there is an unconditional branch, or a guide's in its place
    guide       the second branch is a worse network's, given the sample's own condition (autoguidance)
    classes     number of classes, where the condition is a class index
    name        for recipes
    clip        range of `denoised` on pixel data, e.g. (-1, 1); None does not clip
    grid        the times to visit where a sampler is given none, as in Sampler
    variance    of 'ddpm' in a second block of as many channels: "learned" (its log), "learned_range"
    reads_scale  it is told its guidance scale, and so needs no unconditional branch
    derivative  the form in which it offers d eps / dg along the ODE, g = sigma / alpha, for 'genie':
                "heads", GENIE's k1, k2, k3 in channel blocks 1 to 3; "exact", itself in block 1; or None
    guided      it follows one guided ODE for all times, as genie.exact_derivative makes it with a guidance
    gradient    the channel block that holds grad log p(y | its input), see with_classifier; None without
    latent      size of z, standard normals [N, latent] that are fresh for every sample and call, the same
                for all branches of a sample; 0 where the module takes none

    Its rules take a Point, or processes.levels.Levels with tensors in place of numbers, for what
    differentiates through them. Raises ValueError where a name is unknown, the shape is not one, or one does
    not go with another.
    """

    process: GaussianProcess
    shape: tuple[int, ...]
    prediction: str | Prediction | Velocity = "eps"
    label: str | Callable[[Point], float] = "t"
    whole_label: bool = False
    scale: str | Callable[[Point], float] | None = None
    unconditional: bool = False
    classes: int | None = None
    name: str = "network"
    clip: tuple[float, float] | None = None
    grid: str | grids.Grid | None = None
    variance: str | None = None
    reads_scale: bool = False
    derivative: str | None = None
    guided: bool = False
    gradient: int | None = None
    latent: int = 0
    guide: bool = False
    end_label: str | Callable[[Point, Point], float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.process, GaussianProcess):
            raise ValueError(
                f"process={self.process!r} is no noising process, such as VP() or EDM()"
            )
        vars(self).update(shape=checks.shape(self.shape))
        for kind, table in (("prediction", PREDICTIONS), ("label", LABELS), ("grid", grids.GRIDS)):
            self._check_rule(kind, table)
        self._check_rule("end_label", END_LABELS)
        self._check_rule("scale", SCALES)
        settle = partial(checks.settle, self)
        settle("classes", checks.whole, 1, "the number of classes, 1 or more, or None")
        settle("gradient", checks.whole, 1, "the channel block of the gradient, 1 or more, or None")
        settle("latent", checks.whole, 0, "the size of z, 0 for a network without")
        settle("clip", checks.pair, "give a range (low, high) with low < high, or None")
        for name in ("whole_label", "unconditional", "reads_scale", "guided", "guide"):
            settle(name, checks.flag)
        self._check_agreement()

    def _check_rule(self, kind: str, table: Any) -> None:
        """Raises ValueError where a rule is neither a name of the table nor a function."""
        value = getattr(self, kind)
        if isinstance(value, str) and value not in table:
            raise ValueError(
                f"unknown {kind} {value!r}; choose {', '.join(table)}, or give a function"
                f"{checks.nearest([value], table)}"
            )
        if not isinstance(value, (str, Velocity, type(None))):
            checks.function(kind, value, f"choose {', '.join(table)}, or give a function")

    def _check_agreement(self) -> None:
        """Raises ValueError where what it says does not go together."""
        if isinstance(self.process, CLD) != isinstance(self.rule, Velocity):
            raise ValueError(
                f"prediction={self.prediction!r} of {type(self.process).__name__}: a network of CLD "
                f"predicts 'velocity' or 'mixed_velocity' (or a Velocity), and no other network does"
            )
        if self.variance not in (None, "learned", "learned_range"):
            raise ValueError(
                f"variance={self.variance!r}: choose 'learned', 'learned_range' or, without one, None"
            )
        if self.derivative not in (None, "heads", "exact"):
            raise ValueError(
                f"derivative={self.derivative!r}: a network offers 'heads' (k1, k2, k3), 'exact' or None"
            )
        if self.derivative and self.variance:
            raise ValueError(
                "derivative and variance are both read from channel block 1; give one of them"
            )

    @cached_property
    def rule(self) -> Prediction | Velocity:
        """What the network predicts, an object where `prediction` may be a name."""
        return PREDICTIONS[self.prediction] if isinstance(self.prediction, str) else self.prediction

    @cached_property
    def state_shape(self) -> tuple[int, ...]:
        """Of all that a sampler moves for one sample: `shape`, or [x, v] of CLD on the channel axis."""
        return (self.process.parts * self.shape[0], *self.shape[1:])

    @cached_property
    def promise(self) -> tuple[str, int]:
        """The option that says the most of what a call returns, and how many channel blocks that is."""
        if self.gradient is not None:
            return f"gradient={self.gradient}", self.gradient + 1
        if self.derivative is not None:
            return f"derivative={self.derivative!r}", 4 if self.derivative == "heads" else 2
        return (f"variance={self.variance!r}", 2) if self.variance else ("", 1)

    def weights(self, at: Any) -> tuple[tuple[Any, ...], Any]:
        """(p, q) with x0 = sum_i p[i] x_i + q output, x_i being the slots that the network reads."""
        rule = self.rule
        if isinstance(rule, Velocity):
            assert isinstance(self.process, CLD), "checked when this was made"
            return rule.weights(self.process, at.t)
        made = rule(at)
        if not (isinstance(made, (tuple, list)) and len(made) == 2):
            raise ValueError(
                f"prediction={rule!r} returned {checks.said(made)} of {at}; give (p, q) of "
                "x0 = p x + q output"
            )
        p, q = made
        return (p if isinstance(p, tuple) else (p,)), q

    def slope_weights(self, at: Any) -> tuple[Any, ...]:
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

    def c_in(self, at: Any) -> Any:
        """The scale of the network's input."""
        scale = self._scale_rule(at)
        if isinstance(at, Point):
            return checks.number("scale", scale, RULE, infinite=True)
        return scale

    def label_of(self, at: Any) -> Any:
        """What the network is told for the time."""
        rule: Callable[[Any], Any] = (
            LABELS[self.label] if isinstance(self.label, str) else self.label
        )
        label = rule(at)
        if not isinstance(at, Point):
            return label.round() if self.whole_label else label
        label = checks.number("label", label, RULE, infinite=True)
        return float(round(label)) if self.whole_label else label

    def end_label_of(self, at: Point, end: Point) -> float | None:
        """What the network is told for the end of a step from `at`; None where it is told none.

        Raises ValueError where that is not finite.
        """
        if self.end_label is None:
            return None
        rule = END_LABELS[self.end_label] if isinstance(self.end_label, str) else self.end_label
        try:
            label = checks.number("end_label", rule(at, end), "of both Points a number is due")
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(
                f"end_label={self.end_label!r} of a step from t={at.t:g} to t={end.t:g}, where sigma is "
                f"{end.sigma:g}: {error}; end the run before, or give a function (at, end) -> number"
            ) from error
        return float(round(label)) if self.whole_label else label

    @property
    def _scale_rule(self) -> Callable[[Any], Any]:
        if callable(self.scale):
            return self.scale
        own = getattr(self.rule, "c_in", None)
        kind = self.scale or ("F" if own else "one")
        if kind == "F":
            return own or F().c_in
        return _over_alpha if kind == "sigma" else lambda at: 1.0


def _over_alpha(at: Any) -> Any:
    if isinstance(at, Point) and at.alpha == 0.0:
        raise ValueError(f"a network in VE coordinates reads x / alpha; alpha is 0 at t={at.t:g}")
    return 1.0 / at.alpha
