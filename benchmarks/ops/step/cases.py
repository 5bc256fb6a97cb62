"""The cases of the op `step`, their buffers, and the engine's step of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.ops import layout as at
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import StepArgs, Table
from diffusion_engine.plan import Plan, Row
from diffusion_engine.plan.table import packed
from diffusion_engine.processes import Discrete

from ...shapes import Shape

STEPS = 50
MIDDLE = 25  # the row that is timed: its timestep is 500 of 1000
SCALE = 3.0  # of guidance


@dataclass(frozen=True)
class Case:
    """One row of a plan.

    solver     and its clipping, guidance
    scheduler  of diffusers that makes the same step
    net        whether the next network input is written as well, a copy in the network's dtype
    """

    name: str
    solver: str
    scheduler: str
    clip: bool = False
    net: bool = False
    guided: bool = False

    @cached_property
    def plan(self) -> Plan:
        """A run over timesteps 980, 960 ... 0, as diffusers spaces them, of a network giving eps."""
        network = ScoreNetwork(lambda x, label: x, Discrete.linear(), (1,), prediction="eps")
        times = [1000.0 / STEPS * i for i in reversed(range(STEPS))]
        sampler = Sampler(
            network,
            self.solver,
            times=[*times, network.process.clean.t],
            guidance=SCALE if self.guided else 1.0,
            clip=(-1.0, 1.0) if self.clip else None,
        )
        return sampler.plan()

    @property
    def row(self) -> Row:
        return self.plan.rows[MIDDLE]

    @property
    def timestep(self) -> int:
        assert self.row.call is not None
        return int(self.row.call.label)

    @property
    def outputs(self) -> int:
        return len(self.row.q)

    @property
    def history(self) -> bool:
        return 1 in self.row.new

    @property
    def noisy(self) -> bool:
        return self.row.draws(0)

    def bytes(self, network: torch.dtype) -> int:
        """Per element, each tensor counted once a direction: x in and out, a past estimate in and
        out, the outputs in, the next input out. Normals cost none."""
        state = 8 + 8 * self.history
        return state + network.itemsize * (self.outputs + self.net)

    def denoised(self, x: Tensor, eps: list[Tensor]) -> Tensor:
        """The estimate of x0 in float64."""
        total = self.row.p[0] * x.double()
        for q, output in zip(self.row.q, eps, strict=True):
            total = total + q * output.double()
        return total.clamp(-1.0, 1.0) if self.clip else total

    def expected(self, x: Tensor, eps: list[Tensor], past: Tensor, z: Tensor) -> Tensor:
        """The new x in float64."""
        new = self.row.new[0]
        total = new["S0"] * x.double() + new["D"] * self.denoised(x, eps)
        return total + new["S1"] * past.double() + new["z0"] * z.double()


CASES = (
    Case("ddim", "ddim", "DDIMScheduler"),
    Case("ddim-net", "ddim", "DDIMScheduler", net=True),
    Case("ddim-clip", "ddim", "DDIMScheduler", clip=True),
    Case("ddpm", "ddpm", "DDPMScheduler"),
    Case("ddpm-clip", "ddpm", "DDPMScheduler", clip=True),
    Case("dpmpp_2m", "dpmpp_2m", "DPMSolverMultistepScheduler"),
    Case("ddim-cfg", "ddim", "DDIMScheduler", guided=True),
)


def dense(shape: Shape, layout: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor [..., C, H, W] in a layout."""
    if layout == "contiguous":
        return torch.empty(shape, dtype=dtype, device=device)
    *lead, channels, height, width = shape
    made = torch.empty((*lead, height, width, channels), dtype=dtype, device=device)
    return made.movedim(-1, -3)


def flat(tensor: Tensor, layout: str) -> Tensor:
    """A view of all elements as one axis, in memory order."""
    return (tensor if layout == "contiguous" else tensor.movedim(-3, -1)).view(-1)


class Buffers:
    """The tensors that a case reads and writes; those of one case start with equal values.

    slots [K, B, ...]: x and, where the case has one, a past estimate; eps: the network's output,
    [outputs * B, ...]; net: its next input; spare and z: scratch of the peers
    """

    def __init__(
        self, case: Case, shape: Shape, layout: str, dtype: torch.dtype, device: torch.device
    ) -> None:
        def made(*lead: int, kind: torch.dtype = torch.float32) -> Tensor:
            return dense((*lead, *shape[1:]), layout, kind, device)

        batch = shape[0]
        self.case, self.layout = case, layout
        self.slots = made(case.plan.slots, batch)
        self.eps = made(case.outputs * batch, kind=dtype)
        self.net = made(batch, kind=dtype) if case.net else None
        self.spare, self.z = made(batch).zero_(), made(batch).zero_()
        generator = torch.Generator(device).manual_seed(1)
        self.slots.normal_(generator=generator).mul_(0.7)  # pixels of about unit size
        self.eps.normal_(generator=generator)
        self.first = self.slots.clone(memory_format=torch.preserve_format)

    def reset(self) -> None:
        self.slots.copy_(self.first)

    @property
    def x(self) -> Tensor:
        return self.slots[0]

    @property
    def past(self) -> Tensor:
        return self.slots[-1]

    @property
    def branches(self) -> list[Tensor]:
        return list(self.eps.chunk(self.case.outputs))


def engine(buffers: Buffers, backend: str) -> Callable[[], None]:
    """The step of the case's row on a set, with the status flags a run keeps.

    The row follows itself, so that every launch does the same work.
    """
    case, slots = buffers.case, buffers.slots
    batch, device = slots.shape[1], slots.device
    coef, index, label = map(torch.from_numpy, packed(case.plan.rows, np.dtype(np.float32)))
    index[MIDDLE, at.NEXT] = MIDDLE

    def ints(values: Tensor) -> Tensor:
        return values.to(device, torch.int32)

    entries = torch.arange(case.outputs * batch).view(case.outputs, batch).T.contiguous()
    args = StepArgs(
        slots=slots,
        row=ints(torch.full((batch,), MIDDLE)),
        seed=torch.arange(batch, device=device),
        table=Table(coef.to(device), index.to(device), label.to(device)),
        src=ints(entries),
        dst=ints(entries) if case.net else None,
        net_in=buffers.net,
        status=ints(torch.zeros(batch)),
        ticket=ints(torch.zeros(batch)),
        normals=case.plan.normals,
        inputs=int(case.net),
    )
    launch, outs = resolve("step", backend, args), (buffers.eps,)
    return lambda: launch(outs)
