"""The slots that the steps of a scheduler's run change, and the noise that they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...executors.batch import plain
from ...ops.registry import resolve
from ...ops.step import StepArgs, Table
from ...plan.table import pack
from .course import Leg
from .told import Asked

Generators = torch.Generator | Sequence[torch.Generator] | None
# Bytes of the slots of ended runs that a scheduler keeps, and those that a run's count as at least, for
# they keep its plan.
KEPT, LEAST = 64 << 20, 4 << 20
AGAIN = (
    "set_timesteps begins another run; two runs side by side in one thread need a scheduler each"
)


class State:
    """The slots of a run, which its first sample made room for.

    key     tells those that can take each other's place, as `alike` does
    leg     the plan and its calls
    first   the call of the course that is the leg's first
    asked   what every step names
    size    bytes, or what small ones count as
    """

    def __init__(
        self,
        key: tuple,
        leg: Leg,
        first: int,
        asked: Asked,
        sample: Tensor,
        seeds: tuple[int, ...] | None,
    ) -> None:
        self.key, self.first, self.asked, self._calls = key, first, asked, leg.calls
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
                row=made(batch, dtype=torch.int32),
                seed=torch.tensor(signed, device=self._device),
                table=Table(coef, index, label),
                src=entries[:, None].expand(-1, outputs).contiguous(),
                noise=noise,
                denoised=self._denoised,
                normals=plan.normals,
                inputs=0,
                learned=plan.learned,
                ticket=made(batch, dtype=torch.int32),
            )
            self._launch = resolve("step", "auto", args)
        self._row, self.size = args.row, max(LEAST, sum(t.nbytes for t in args.tensors()))
        self.rewind()
        self._slots = slots.unbind()
        self._noise = () if noise is None else noise.unbind()
        self._blocks = 1 + max(max(row.channel_blocks, default=0) for row in plan.rows)

    def rewind(self) -> None:
        """To the first call. What the slots hold is not read: a plan reads what its rows have written."""
        self._row.fill_(1)  # row 0 makes what the caller has made

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
                draw(self._noise[m], out, given)
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


def alike(leg: Leg, sample: Tensor, seeds: tuple[int, ...] | None) -> tuple:
    """What tells the slots that can take each other's place."""
    # Of another stream too: nothing there waits for what the run before still does on its own.
    device = sample.device
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
    return leg, sample.shape, sample.dtype == torch.float64, device, stream, seeds


def draw(noise: Tensor, like: Tensor, given: Any) -> None:
    """Writes standard normals of the dtype of `like`, as diffusers draws them.

    given  the normals themselves, Generators of its device or the CPU, or None for torch's own
    """
    shape = noise.shape
    if isinstance(given, Tensor):
        if given.shape != shape:
            raise ValueError(
                f"variance_noise is {list(given.shape)}; give normals like sample, {list(shape)}"
            )
        noise.copy_(given)
        return
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
    first = many[0]
    here = first is None or first.device.type == like.device.type
    if len(many) == 1 and here and like.dtype == noise.dtype:
        noise.normal_(generator=first)  # what randn draws, where it is read
        return
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
    noise.copy_(made[0] if len(made) == 1 else torch.cat(made))
