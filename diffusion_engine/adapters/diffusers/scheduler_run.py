"""One run of a scheduler: where it is, as the host knows it, and the slots that its steps change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...executors.lru import Lru
from .course import Course
from .state import AGAIN, State, alike
from .told import Asked


class Run:
    """The run that set_timesteps began in a thread. Not for several threads at a time.

    course     what it runs
    seeds      of the samples, for the engine's own noise; None where generators draw it
    ended      slots of runs that have ended: this one takes those of its like, and leaves its own there
    timesteps  those of the course on a device
    begin      the call that set_begin_index names
    index      the call that the next step belongs to; None before the first
    """

    def __init__(
        self,
        course: Course,
        seeds: tuple[int, ...] | None,
        device: Any,
        ended: Lru[tuple, State],
    ) -> None:
        self.course, self.seeds, self._ended = course, seeds, ended
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
            state = self._begun(index, asked, sample)
        elif asked != state.asked:
            raise ValueError(
                f"this run began with {dict(state.asked)} and goes on with {dict(asked)}: give every step "
                "the same eta and use_clipped_model_output"
            )
        made = state.step(index, out, sample, given)
        self._state, self.index = state, index + 1
        if self.index == len(self._told):
            self._ended.put(state.key, state, state.size)
            self._state = None
        return made

    def _begun(self, index: int, asked: Asked, sample: Tensor) -> State:
        """Slots for a run that begins at a call: those of one that has ended, or new ones."""
        leg = self.course.leg(index, asked)
        key = alike(leg, sample, self.seeds)
        state = self._ended.take(key)
        if state is None:
            return State(key, leg, index, asked, sample, self.seeds)
        state.rewind()
        return state

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


def _said(timestep: Any) -> str:
    return (
        "a tensor on a device"
        if isinstance(timestep, Tensor) and timestep.is_cuda
        else f"{float(timestep):g}"
    )
