"""The loop under k-diffusion's functions: seats of a batch whose outputs the user's model makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ... import checks
from ...executors import Capacity, Eager, Job
from ...executors.batch import Batch
from ...sampler.jobs import Shared
from ...solvers import Solver
from .noise import BrownianTreeNoiseSampler, Drawn, NoiseSampler
from .tables import Draws, Table, levels, network_of, once, table_of

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
EXECUTOR = Eager()  # keeps small batches from run to run
Callback = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Asked:
    """What every function is given.

    model       model(x, sigma [B], **extra_args) -> denoised like x
    x           [B, C, *pixel], the noised state at sigmas[0]
    sigmas      [n + 1] descending; a last 0 is clean data
    callback    called with x, i, sigma, sigma_hat and denoised after the first call of every step
    disable     of tqdm's bar; None shows it on a terminal
    apart       the unconditional estimate of the last call, for solvers that name it (CFG++)
    """

    model: Callable[..., Tensor]
    x: Tensor
    sigmas: Tensor
    extra_args: Mapping[str, Any] | None = None
    callback: Callback | None = None
    disable: bool | None = None
    apart: Callable[[], Tensor] | None = None

    def __post_init__(self) -> None:
        checks.function("model", self.model, "give a denoiser (x, sigma, **extra_args) -> denoised")
        if not isinstance(self.x, Tensor) or self.x.dtype not in DTYPES or self.x.ndim < 2:
            got = checks.said(self.x)
            if isinstance(self.x, Tensor):
                got = f"{list(self.x.shape)} {self.x.dtype}"
            raise ValueError(f"x={got}: give the noised state, [B, C, *pixel] of floats")
        if self.callback is not None:
            checks.function("callback", self.callback, "give a function of a dict, or None")
        if self.extra_args is not None and not isinstance(self.extra_args, Mapping):
            raise ValueError(
                f"extra_args={checks.said(self.extra_args)}: give the model's keywords as a dict, or None"
            )

    @property
    def memory_format(self) -> torch.memory_format:
        last = self.x.ndim == 4 and self.x.is_contiguous(memory_format=torch.channels_last)
        return (
            torch.channels_last if last and not self.x.is_contiguous() else torch.contiguous_format
        )


def run(
    asked: Asked,
    rule: Solver,
    noise: NoiseSampler | None = None,
    *,
    multistep: bool = False,
    draws: Draws = once,
) -> Tensor:
    """x after the steps of a solver, [B, C, *pixel] in x's dtype; `table_of` has the other arguments."""
    sigmas = levels(asked.sigmas)
    if len(set(sigmas)) < 2 and (multistep or len(sigmas) < 2):
        return asked.x
    table = table_of(rule, sigmas, multistep, draws)
    with EXECUTOR.batch(*_room(asked, table, noise)) as batch:
        seats = [batch.admit(job) for job in _jobs(asked, table, noise)]
        batch.step(())  # the row that takes x
        with tqdm(total=len(sigmas) - 1, disable=asked.disable) as bar:
            for done in _steps(asked, table, batch):
                bar.update(done - bar.n)
            bar.update(len(sigmas) - 1 - bar.n)
        return batch.read(seats).to(asked.x.dtype)


def _room(asked: Asked, table: Table, noise: NoiseSampler | None) -> tuple[Any, Capacity]:
    """What stands for the model, and room for its samples."""
    x = asked.x
    double = x.dtype == torch.float64
    wide = torch.float64 if double else torch.float32
    network = network_of(tuple(x.shape[1:]), label_dtype=wide, memory_format=asked.memory_format)
    paths = isinstance(noise, BrownianTreeNoiseSampler)
    return network, Capacity.of(
        network, [table.plan], len(x), device=x.device, dtype=x.dtype, state_dtype=wide,
        given=noise is not None and not paths, brownian=paths,
    )  # fmt: skip


def _jobs(asked: Asked, table: Table, noise: NoiseSampler | None) -> list[Job]:
    """A job for every sample."""
    each = asked.x.detach().unbind()
    if isinstance(noise, BrownianTreeNoiseSampler):
        return [
            Job(table.plan, seed, x=x, brownian=True)
            for seed, x in zip(noise.seeds, each, strict=True)
        ]
    if noise is None or not table.places:
        return [Job(table.plan, 0, x=x) for x in each]
    shared = Shared(Drawn(noise, table, asked.x), asked.x.shape)
    return [Job(table.plan, 0, x=x, noise=partial(shared, i)) for i, x in enumerate(each)]


def _steps(asked: Asked, table: Table, batch: Batch) -> Iterator[int]:
    """Makes the calls and steps of a batch; yields how many of the sigmas' steps came to their end."""
    extra, tell = dict(asked.extra_args or {}), _teller(asked, table)
    for row, step in enumerate(table.steps, 1):
        given = batch.inputs()
        assert given is not None, "every row but the first has a call"
        # Views of their own, which a model may mark for a derivative.
        x, sigma = given[0].detach(), given[1].detach().to(asked.x.dtype)
        both = asked.apart is not None and len(given[0]) > len(asked.x)
        if both:  # of two branches, which have the same input, the model makes both in one call
            x, sigma = x[: len(asked.x)], sigma[: len(asked.x)]
        denoised = called(asked, x, sigma, extra)
        outputs = torch.cat((denoised, asked.apart())) if both else denoised  # type: ignore[misc]
        if tell is not None and step >= 0:
            tell(row, step, x, denoised)
        batch.step((outputs.detach(),))
        if step >= 0:
            yield step


def called(asked: Asked, x: Tensor, sigma: Tensor, extra: Mapping[str, Any]) -> Tensor:
    """What the model says of x. Raises ValueError where that is no tensor like x."""
    denoised = asked.model(x, sigma, **extra)
    if not isinstance(denoised, Tensor) or denoised.shape != asked.x.shape:
        got = list(denoised.shape) if isinstance(denoised, Tensor) else checks.said(denoised)
        raise ValueError(
            f"the model returned {got}; it returns denoised, {list(asked.x.shape)} as x is"
        )
    return denoised


def _teller(asked: Asked, table: Table) -> Callable[[int, int, Tensor, Tensor], None] | None:
    """What calls the callback after the first call of a step."""
    callback = asked.callback
    if callback is None:
        return None
    x = asked.x
    sigmas: Sequence[Tensor] = torch.as_tensor(asked.sigmas, device=x.device).unbind()
    hats = [row.call.at.ratio for row in table.plan.rows if row.call is not None]
    raised = x.new_tensor(hats, dtype=sigmas[0].dtype).unbind()

    def tell(row: int, step: int, x: Tensor, denoised: Tensor) -> None:
        callback(
            {
                "x": x.clone(),
                "i": step,
                "sigma": sigmas[step],
                "sigma_hat": raised[row - 1],
                "denoised": denoised,
            }
        )

    return tell
