"""What is seen of a pipeline's run between its steps, and who may end it: the bar and the user's callback."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Any

from torch import Tensor

from ....processes import Point
from ....sampler.progress import Progress

INSTEAD = "Call the pipeline itself, with EngineScheduler as its scheduler"


class Stopped(Exception):
    """The run ends here, with this state of the scheduler."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


class Watch:
    """Called after each step of a run.

    pipe      what callbacks are given
    callback  the user's, or None
    tensors   what it is given beside the latents, which is the same at every step
    bar       of the pipeline, or None
    times     the scheduler's timestep of each step; the run ends after the last of them
    points    the state after each step
    scaled    whether the scheduler's state is x / alpha
    guided    whether a guidance scale that changes would change the run
    """

    def __init__(
        self,
        pipe: Any,
        callback: Any,
        tensors: Mapping[str, Any],
        bar: Any,
        times: tuple[Any, ...],
        points: tuple[Point, ...],
        scaled: bool,
        guided: bool,
    ) -> None:
        self._pipe, self._callback, self._tensors, self._bar = pipe, callback, tensors, bar
        self._times, self._points, self._scaled = times, points, scaled
        self._guided, self._scale = guided, getattr(pipe, "_guidance_scale", None)
        self._step = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, and the run ends by itself."""
        shown = self._bar is not None and not self._bar.shown.disable
        return self._callback is None and not shown and len(self._times) == len(self._points)

    def __call__(self, progress: Progress) -> None:
        i, self._step = self._step, self._step + 1
        if self._bar is not None:
            self._bar.shown.update()
        last = self._step == len(self._times)
        if self._callback is None and not last:
            return
        at = self._points[i]
        x = progress.x / at.alpha if self._scaled else progress.x.clone()
        changed = {} if self._callback is None else self._changed(i, x)
        if changed and (changed.keys() != {"latents"} or not last):
            raise ValueError(
                f"callback_on_step_end returned other {min(changed)}: the engine's loop takes nothing from "
                f"it but the latents of the last step. {INSTEAD}"
            )
        early = last and self._step < len(self._points)
        if changed or early or getattr(self._pipe, "_interrupt", False):
            raise Stopped(changed.get("latents", x))

    def _changed(self, i: int, x: Tensor) -> Mapping[str, Any]:
        """Calls the callback; what it returned, or left, otherwise than it was given."""
        given = {"latents": x, **self._tensors}
        before = {name: _version(one) for name, one in given.items()}
        made = self._callback(self._pipe, i, self._times[i], dict(given))
        if not isinstance(made, Mapping):
            raise ValueError(
                f"callback_on_step_end returned {type(made).__name__}: return the dict that it was given"
            )
        changed = {
            name: made.get(name, one)
            for name, one in given.items()
            if made.get(name, one) is not one or _version(one) != before[name]
        }
        if self._guided and self._pipe._guidance_scale != self._scale:
            changed["guidance_scale"] = self._pipe._guidance_scale
        return changed


def _version(given: Any) -> int:
    """How often a tensor was written to, where it knows."""
    return given._version if isinstance(given, Tensor) and not given.is_inference() else 0


def locals_of(code: CodeType, names: list[str]) -> dict[str, Any]:
    """Locals of the function that called us, however far up: diffusers gives callbacks its own by name.

    Raises ValueError on one that is not there before the first step.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    found = {} if frame is None else frame.f_locals
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"callback_on_step_end_tensor_inputs names {missing[0]!r}, which the pipeline's own steps make: "
            "leave it out"
        )
    return {name: found[name] for name in names}
