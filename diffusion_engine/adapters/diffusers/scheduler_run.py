"""One run of a scheduler: where it is, as the host knows it, and the slots that its steps change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...executors.batch import plain
from ...ops.registry import resolve
from ...ops.step import StepArgs, Table
from ...plan.table import pack
from .course import Course, Leg
from .told import Asked

Generators = torch.Generator | Sequence[torch.Generator] | None
AGAIN = (
    "set_timesteps begins another run; two runs side by side in one thread need a scheduler each"
)


class Run:
    """The run that set_timesteps began in a thread. Not for several threads at a time.

    course     what it runs
    seeds      of the samples, for the engine's own noise; None where generators draw it
    timesteps  those of the course on a device
    begin      the call that set_begin_index names
    index      the call that the next step belongs to; None before the first
    """

    def __init__(self, course: Course, seeds: tuple[int, ...] | None, device: Any) -> None:
        self.course, self.seeds = course, seeds
        told = torch.from_numpy(course.labels)
        # A tensor of this run's own: a step knows its place by the address of its timestep.
        self.timesteps = told.clone() if device is None else told.to(device, copy=True)
        self.begin: int | None = None
        self.index: int | None = None
        self._told: list[float] = told.tolist()
        self._address, self._size = self.timesteps.data_ptr(), self.timesteps.element_size()
        self._bytes = self._size * len(self._told)
        self._state: State | None = None
        self._laws: dict[torch.device, tuple[Tensor, ...]] = {}

    def laws(self, device: torch.device) -> tuple[Tensor, ...]:
        """alpha and sigma of every call, float32."""
        if device not in self._laws:
            levels = [(at.alpha, at.sigma) for at in self.course.levels]
            self._laws[device] = torch.tensor(levels, dtype=torch.float32).to(device).unbind(1)
        return self._laws[device]

    def scaled(self, sample: Tensor, timestep: Any) -> Tensor:
        """The network's input of a call."""
        scales = self.course.scales
        return sample if scales is None else sample * scales[self._place(timestep)]

    def step(
        self, out: Tensor, timestep: Any, sample: Tensor, asked: Asked, given: Any
    ) -> tuple[Tensor, Tensor]:
        """The sample that the next call reads, and the estimate of x0.

        out      [B, C, *pixel] of the network, or 2C with a learned variance
        sample   [B, C, *pixel] that the network read
        asked    what else the caller names
        given    the normals, or whose they are: Generators; not read where the run has seeds

        Raises ValueError, and nothing has changed, where the timestep is not the next one's, and where the
        tensors are not those of the run.
        """
        index = self._place(timestep)
        state = self._state
        if state is None:
            state = State(self.course.leg(index, asked), index, asked, sample, self.seeds)
        elif asked != state.asked:
            raise ValueError(
                f"this run began with {dict(state.asked)} and goes on with {dict(asked)}: give every step "
                "the same eta and use_clipped_model_output"
            )
        made = state.step(index, out, sample, given)
        self._state, self.index = state, index + 1
        return made

    def _place(self, timestep: Any) -> int:
        """The call that a timestep belongs to: where it lies in `timesteps`, or the one of its value."""
        due = self.begin if self.index is None else self.index
        if due == len(self._told):
            raise ValueError(
                f"the run of {len(self._told)} timesteps is at its end, and step was called with "
                f"timestep={_said(timestep)}: {AGAIN}"
            )
        if isinstance(timestep, Tensor):
            # Where a timestep lies tells its place, without waiting for the device to tell its value.
            offset = timestep.data_ptr() - self._address
            if 0 <= offset < self._bytes:
                place = offset // self._size
                if due is None or place == due:
                    return place
                raise self._astray(self._told[place], due)
            if due is not None and timestep.device.type != "cpu":
                return due  # its value would have to be waited for
            value = float(timestep.flatten()[0])
        else:
            value = float(timestep)
        if due is None:
            return self._first_of(value)
        if value != self._told[due]:
            raise self._astray(value, due)
        return due

    def _first_of(self, value: float) -> int:
        """The first call of this timestep that begins a step."""
        found = [i for i, told in enumerate(self._told) if told == value]
        begins = [i for i in found if i in self.course.steps]
        if not found:
            near = min(self._told, key=lambda told: abs(told - value))
            raise ValueError(
                f"timestep={value:g} is none of this run's {len(self._told)}, of which {near:g} is the "
                "nearest: give one of scheduler.timesteps, which set_timesteps(timesteps=) chooses"
            )
        return (begins or found)[0]

    def _astray(self, value: float, due: int) -> ValueError:
        return ValueError(
            f"timestep={value:g} is out of order: the run is at {self._told[due]:g}, number {due} of "
            f"{len(self._told)}; {AGAIN}"
        )


class State:
    """The slots of a run, which its first sample made room for.

    leg     the plan and its calls
    first   the call of the course that is the leg's first
    asked   what every step names
    """

    def __init__(
        self, leg: Leg, first: int, asked: Asked, sample: Tensor, seeds: tuple[int, ...] | None
    ) -> None:
        self.first, self.asked, self._calls = first, asked, leg.calls
        self._solver, plan = leg.solver, leg.plan
        self._shape, self._device = sample.shape, sample.device
        if sample.ndim < 2:
            raise ValueError(f"sample has shape {list(sample.shape)}; give [batch, channels, ...]")
        if seeds is not None and len(seeds) != len(sample):
            raise ValueError(
                f"seeds has {len(seeds)} entries and sample {len(sample)}: one for each"
            )
        batch, outputs = len(sample), max(plan.outputs, 1)
        dtype = torch.float64 if sample.dtype == torch.float64 else torch.float32
        with plain():
            coef, index, label = (
                torch.from_numpy(column).to(self._device)
                for column in pack(plan, torch.empty((), dtype=dtype).numpy().dtype)
            )

            def made(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
                return torch.zeros(shape, dtype=dtype, device=sample.device)

            entries = torch.arange(batch, dtype=torch.int32, device=self._device)
            signed = [s - (s >> 63 << 64) for s in seeds or [0] * batch]
            drawn = plan.normals if seeds is None else 0
            slots = made(plan.slots, *sample.shape)
            noise = made(drawn, *sample.shape, dtype=torch.float32) if drawn else None
            self._denoised = made(*sample.shape)
            args = StepArgs(
                slots=slots,
                row=made(batch, dtype=torch.int32) + 1,  # row 0 makes what the caller has made
                seed=torch.tensor(signed, device=self._device),
                table=Table(coef, index, label),
                src=entries[:, None].repeat(1, outputs),
                noise=noise,
                denoised=self._denoised,
                normals=plan.normals,
                inputs=0,
                learned=plan.learned,
                ticket=made(batch, dtype=torch.int32),
            )
            self._launch = resolve("step", "auto", args)
        self._slots = slots.unbind()
        self._noise = () if noise is None else noise.unbind()
        self._blocks = 1 + max(max(row.channel_blocks, default=0) for row in plan.rows)

    def step(self, index: int, out: Tensor, sample: Tensor, given: Any) -> tuple[Tensor, Tensor]:
        """One call's row; Run.step has the arguments."""
        if sample.shape != self._shape or sample.device != self._device:
            raise ValueError(
                f"sample is {list(sample.shape)} on {sample.device}, and this run's are {list(self._shape)} "
                f"on {self._device}: {AGAIN}"
            )
        self._check(out)
        call = self._calls[index - self.first]
        if self._noise:
            for m in call.draws:
                self._noise[m].copy_(normals(out, self._shape, given))
        self._slots[call.read].copy_(sample)
        self._launch((out,))
        made, denoised, dtype = self._slots[call.then], self._denoised, sample.dtype
        if dtype == made.dtype:
            return made.clone(), denoised.clone()
        return made.to(dtype), denoised.to(dtype)

    def _check(self, out: Tensor) -> None:
        """Raises ValueError where the step cannot read what the network returned."""
        channels, shape = self._shape[1], out.shape
        if shape != self._shape:
            alike = len(shape) == len(self._shape) and shape[2:] == self._shape[2:]
            if not (alike and shape[0] == self._shape[0] and shape[1] == 2 * channels):
                raise ValueError(
                    f"model_output is {list(shape)} and sample {list(self._shape)}: give as many channels, "
                    "or twice as many with a learned variance behind the prediction"
                )
        if shape[1] < self._blocks * channels:
            raise ValueError(
                f"{self._solver} reads a learned variance, and model_output has {shape[1]} channels, as many "
                "as sample: give the variance behind the prediction, or another variance_type"
            )
        if out.device != self._device:
            raise ValueError(
                f"model_output is on {out.device} and sample on {self._device}: move one"
            )
        if out.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "model_output requires a derivative, and step gives none: call the network and step under "
                "torch.no_grad()"
            )


def _said(timestep: Any) -> str:
    return (
        "a tensor on a device"
        if isinstance(timestep, Tensor) and timestep.is_cuda
        else f"{float(timestep):g}"
    )


def normals(like: Tensor, shape: Sequence[int], given: Any) -> Tensor:
    """Standard normals of the dtype of `like`, as diffusers draws them.

    given  the normals themselves, Generators of its device or the CPU, or None for torch's own
    """
    if isinstance(given, Tensor):
        if given.shape != shape:
            raise ValueError(
                f"variance_noise is {list(given.shape)}; give normals like sample, {list(shape)}"
            )
        return given
    many = [given] if given is None or isinstance(given, torch.Generator) else list(given)
    if len(many) not in (1, shape[0]):
        raise ValueError(
            f"generator has {len(many)} entries and sample {shape[0]}: give one, or one for each"
        )
    for one in many:
        if one is not None and one.device.type not in ("cpu", like.device.type):
            raise ValueError(
                f"generator is on {one.device} and sample on {like.device}: give one there or on the CPU"
            )
    drawn = shape if len(many) == 1 else (1, *shape[1:])
    made = [
        torch.randn(
            drawn,
            generator=one,
            dtype=like.dtype,
            device=like.device if one is None else one.device,
        )
        for one in many
    ]
    return made[0] if len(made) == 1 else torch.cat(made)
