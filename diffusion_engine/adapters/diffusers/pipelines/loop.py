"""A call of a pipeline while it runs: its settings become a sampler's, and its callbacks are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ....processes import Point
from ....sampler.sampler import Sampler
from .asked import Kind
from .called import Call
from .setting import Setting
from .watch import Stopped, Watch, locals_of
from .whole import Bar, Schedule, noise_of

STEP = ("eta", "use_clipped_model_output")  # what pipelines pass on to their scheduler's step


class Loop:
    """One call of a pipeline.

    sampler   makes a sampler for a call with a setting
    pipe      a copy of the user's, whose parts may be replaced
    asked     the call's arguments
    """

    def __init__(
        self,
        sampler: Callable[[Call, Setting], Sampler],
        kind: Kind,
        pipe: Any,
        asked: Mapping[str, Any],
        schedule: Schedule,
    ) -> None:
        self._sampler, self._kind, self._pipe, self._asked = sampler, kind, pipe, asked
        self._schedule = schedule
        self._bar: Bar | None = None
        self._region: dict[str, Tensor] = {}

    def watch(self) -> None:
        """Has the pipeline's copy say what it prepares, and show our progress."""
        own, made = vars(self._pipe), self._pipe.progress_bar

        def progress_bar(iterable: Any = None, total: int | None = None) -> Bar:
            self._bar = Bar(made, iterable, total)
            return self._bar

        own["progress_bar"] = progress_bar
        if not hasattr(self._pipe, "prepare_mask_latents"):
            return
        latents, mask = self._pipe.prepare_latents, self._pipe.prepare_mask_latents

        def prepare_latents(*args: Any, **kwargs: Any) -> Any:
            outputs = latents(*args, **kwargs)
            # With those of the image, behind latents and noise, there is a region to keep.
            if len(outputs) == 3:
                self._region |= {"noise": outputs[1], "known": outputs[2]}
            return outputs

        def prepare_mask_latents(*args: Any, **kwargs: Any) -> Any:
            kept, *others = mask(*args, **kwargs)
            self._region["mask"] = kept.clone()  # its own, which is written to
            return self._region["mask"], *others

        own.update(prepare_latents=prepare_latents, prepare_mask_latents=prepare_mask_latents)

    def made(self, call: Call) -> Tensor:
        """The end of the run that begins with a call, as the scheduler's samples are."""
        branches = self._branches()
        n = len(call.x) // branches
        step = {name: self._asked[name] for name in STEP if self._asked.get(name)}
        setting = Setting.of(self._pipe, self._kind, call, self._schedule, step)
        sampler, latents = self._sampler(call, setting), setting.state(call.x[:n])
        start = sampler.points[0]
        x = latents * start.alpha if setting.found.scaled else latents
        region, watch = self._kept(n), self._watch(sampler, setting, branches > 1)
        end = sampler.points[-1]
        try:
            samples = sampler.sample(
                x=x, noised=True, batch_size=n, progress=False, **self._drawn(latents, x, start),
                on_step=None if watch.idle else watch, **self._guided(setting.branches(call, n)), **region,
            ).samples  # fmt: skip
            if setting.found.scaled and end.sigma > 0.0:
                samples = samples / end.alpha
        except Stopped as stopped:
            samples = stopped.x
            if region:
                self._region["mask"].fill_(1.0)  # the pipeline puts nothing back
                region = {}
        if not region:
            self._pipe._interrupt = True  # pipelines that may be stopped spend nothing on the rest
        return samples

    def _branches(self) -> int:
        """How many branches a call of the network has."""
        own = getattr(self._pipe, "do_classifier_free_guidance", None)
        if own is None:
            own = self._kind.text_first and self._asked.get("guidance_scale", 1.0) > 1.0
        return 2 if own else 1

    def _guided(self, each: list[dict[str, Tensor]]) -> dict[str, Any]:
        if len(each) == 1:
            return {"condition": each[0]} if each[0] else {}
        # Of few enough bits that the weights add up to 1: of others the rest is the null condition's.
        scale = round(float(self._asked["guidance_scale"]) * 2**40) / 2**40
        text, other = each if self._kind.text_first else each[::-1]
        return {"compose": [(other, 1.0 - scale), (text, scale)]}

    def _kept(self, n: int) -> dict[str, Any]:
        """The region that the pipeline puts back after each of its steps."""
        if "known" not in self._region:
            return {}
        return {"mask": self._region["mask"][:n], "known": self._region["known"]}

    def _drawn(self, latents: Tensor, x: Tensor, start: Point) -> dict[str, Any]:
        """Whose normals they are: the scheduler's generators', or those of seeds."""
        if self._schedule.seeds is None:
            return {"noise": self._noise(latents, x, start)}
        if self._region:
            raise ValueError(
                "the scheduler has seeds, and the region that is kept is noised by generator: give "
                "EngineScheduler no seeds"
            )
        return {"seeds": self._schedule.seeds}

    def _noise(self, latents: Tensor, x: Tensor, start: Point) -> Callable[[int, int, Any], Tensor]:
        """Normals as the scheduler draws them; the region's are those that it was noised with.

        Before the first call the pipeline puts nothing back: x there is as it is.
        """
        drawn, region = noise_of(self._asked.get("generator"), latents), self._region

        def noise(row: int, m: int, seeds: Any) -> Tensor:
            if m < 2:
                return drawn(row, m, seeds)
            return region["noise"] if row else (x - start.alpha * region["known"]) / start.sigma

        return noise

    def _watch(self, sampler: Sampler, setting: Setting, guided: bool) -> Watch:
        """What is done after each step."""
        callback = self._asked.get("callback_on_step_end")
        wanted = self._asked.get("callback_on_step_end_tensor_inputs") or ()
        code = inspect.unwrap(type(self._pipe).__call__).__code__
        names = [name for name in wanted if name != "latents"]
        tensors = {} if callback is None else locals_of(code, names)
        times = setting.until(self._asked.get("denoising_end"), self._schedule.scheduler)
        self._pipe._num_timesteps = len(times)  # callbacks are called once a step
        return Watch(
            self._pipe,
            callback,
            tensors,
            self._bar,
            times,
            sampler.points[1:],
            setting.found.scaled,
            guided,
        )
