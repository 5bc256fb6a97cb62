"""An `Engine` behind messages: what a worker does with a request, and what comes back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..drivers import kind
from ..engine import (
    Cancelled,
    Engine,
    EngineClosed,
    EngineError,
    Event,
    Handle,
    NonFinite,
    QueueFull,
)
from ..engine.calls import out_of_memory
from ..engine.ticket import Ticket
from ..executors.course import LeadError
from .errors import Failed, Full, GivenUp, NotReady, ServiceError, TooLarge
from .frames import LIMITS
from .messages import About, Asked, Made, Told

INLINE = 1 << 20  # elements of a result that is made on the loop
MANY = 64  # samples of a request that is checked beside the loop, as one with prompts is
ROOM = 64  # rows and previews that wait for who reads events
AGAIN = 1.0  # seconds until a full engine may have room
TENSORS = ("x", "mask", "known", "measurement", "noise", "condition", "negative")

log = logging.getLogger(__name__)


class Device(RuntimeError):
    """The device answers nothing more until its process ends: an error of CUDA that stays."""


class Serving:
    """Takes what is asked to an engine.

    engine    that runs it
    about     its networks, by name
    max_cost  entries x rows of one request, None for any
    """

    def __init__(
        self, engine: Engine, about: dict[str, About], max_cost: int | None = None
    ) -> None:
        self.engine, self.about, self.max_cost = engine, about, max_cost

    async def check(self, asked: Asked) -> Ticket:
        """A request that suits its network, for `put`. Raises ValueError where it does not, and TooLarge,
        NotReady and Failed."""
        if asked.model not in self.about:
            known = ", ".join(sorted(self.about))
            raise ValueError(f"no model is named {asked.model!r}; choose {known}")
        about = self.about[asked.model]
        given, many = keywords(asked, about), len(asked.seeds) > MANY or about.text
        try:
            if many:
                ticket = await asyncio.to_thread(self.engine.checked, **given)
            else:
                ticket = self.engine.checked(**given)
        except Exception as error:
            raise translated(error) from error
        if self.max_cost is not None and ticket.work > self.max_cost:
            raise TooLarge(
                f"the request costs {ticket.work} (entries x rows of all samples) and at most "
                f"{self.max_cost} are taken; ask for fewer samples or steps"
            )
        largest = max(self.about[asked.model].decoded, ticket.capacity.shape, key=math.prod)
        size, most = (
            4 * ticket.n * math.prod(largest),
            LIMITS.tensors // 2,
        )  # latents may come beside
        if size > most:
            raise TooLarge(
                f"samples of {size} bytes, and an answer has at most {most}; ask for fewer"
            )
        return ticket

    def put(self, asked: Asked, ticket: Ticket, watched: bool = False) -> Run:
        """Runs a request that was checked. Raises Full, NotReady, and GivenUp where there is not the time.

        watched  whether its events are kept from the first one on for who reads them, as where it has
                 previews
        """
        run = Run(asked.id, ticket, watched or asked.preview > 0)
        try:
            self.engine.put(
                ticket,
                priority=asked.priority,
                deadline=asked.deadline,
                key=asked.key,
                preview=asked.preview,
            )
        except Exception as error:
            raise translated(error) from error
        return run


def keywords(asked: Asked, about: About) -> dict[str, Any]:
    """A request as `Engine.checked` takes it. Raises ValueError where a tensor has no place in one."""
    if unknown := asked.tensors.keys() - {*TENSORS}:
        raise ValueError(f"a request takes no tensors {sorted(unknown)}; give {', '.join(TENSORS)}")
    for name in ("condition", "negative"):
        if getattr(asked, name) is not None and name in asked.tensors:
            raise ValueError(f"{name} is given by names and as a tensor; give one of them")
    named = ("seeds", "condition", "negative", "guidance", "compose", "start")
    given = {name: value for name in named if (value := getattr(asked, name)) is not None}
    given |= {name: torch.from_numpy(_writable(array)) for name, array in asked.tensors.items()}
    if asked.noised:
        given["noised"] = True
    spec = asked.spec if "solver" in asked.spec else about.default | asked.spec
    if (driver := spec.get("driver")) != about.default.get("driver"):
        _check_driver(driver)
    return {"spec": spec, "network": asked.model, "adapter": asked.adapter} | given


def _check_driver(given: Any) -> None:
    """Raises ValueError where a driver is none that clients may name."""
    name: Any = given.get("name") if isinstance(given, Mapping) else given
    if name is not None and not kind(name).served:
        raise ValueError(
            f"driver {name!r} is not served: its options may hold a worker between two rows for as long as "
            "they like; use Sampler(driver=...), or `diffusion-engine sample --driver`"
        )
    options = given.get("options") if isinstance(given, Mapping) else None
    if isinstance(options, Mapping) and options.get("across"):
        raise ValueError(
            f"driver {name!r}: across=True is of torchrun, and a server is one process"
        )


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()  # torch knows no others


def translated(error: BaseException) -> Exception:
    """An engine's error as a service's; Device where only another process helps."""
    if isinstance(error, (ServiceError, Device)):
        return error
    if isinstance(error, LeadError):
        return Failed(str(error))
    if isinstance(error, ValueError):
        return ValueError(str(error))
    if isinstance(error, QueueFull):
        return Full(str(error), AGAIN)
    if isinstance(error, EngineClosed):
        return NotReady(str(error), None)
    if isinstance(error, Cancelled):
        return GivenUp(str(error))
    if isinstance(error, NonFinite):
        return Failed(str(error))
    if out_of_memory(error):
        return Failed(
            "memory ran out in a call of the network; ask for fewer samples or smaller ones"
        )
    if sticks(error):
        return Device(str(error).partition("\n")[0])
    if isinstance(error, EngineError):
        return Failed(str(error))
    # What a network raises may name what is nobody's business: that stays in the log.
    log.error("a network raised", exc_info=error)
    return Failed(f"the network raised {type(error).__name__}")


def sticks(error: BaseException) -> bool:
    """Whether it is an error after which a device answers nothing more."""
    kinds: tuple[type, ...] = (getattr(torch, "AcceleratorError", Device), Device)
    found = isinstance(error, kinds) or "CUDA error" in str(error)
    cause = error.__cause__
    return (found and not out_of_memory(error)) or (cause is not None and sticks(cause))


class Run:
    """A request in an engine, as `service.Running` has it.

    kept  whether its events wait for their first reader
    """

    def __init__(self, name: str, ticket: Ticket, kept: bool) -> None:
        handle = ticket.handle
        self.id, self.cost, self.rows = name, ticket.work, handle.rows
        self._handle, self._decoder = handle, ticket.sampler.decoder
        self._kept = handle.events(ROOM) if kept else None
        small = ticket.n * math.prod(ticket.capacity.shape) <= INLINE
        self._inline = small and self._decoder is None and ticket.sampler.device.type == "cpu"
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Future[Made] = self._loop.create_future()
        self._making: asyncio.Task[None] | None = None
        handle.add_done_callback(self._tell)

    @property
    def status(self) -> str:
        return self._handle.status

    async def result(self) -> Made:
        """The samples, when they are done. Raises ServiceError."""
        return await asyncio.shield(self._made)

    async def events(self, room: int = ROOM) -> AsyncIterator[Told]:
        """What becomes of it, to its end; previews of latents as pictures, small where the decoder has a
        linear map for them."""
        events, self._kept = self._kept or self._handle.events(room), None
        with events:
            async for event in events:
                yield await self._told(event)

    def cancel(self, reason: str) -> bool:
        """Gives it up. False where it has ended already."""
        return not self._handle.ended and self._handle.cancel(reason)

    def _tell(self, handle: Handle) -> None:
        """On the engine's thread: it has ended."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        """On the loop: makes the result, beside the loop where that may take long."""
        if not self._inline:
            self._making = self._loop.create_task(self._make())
            return
        try:
            self._made.set_result(self._take())
        except Exception as error:
            self._fail(error)

    async def _make(self) -> None:
        try:
            made = await asyncio.to_thread(self._take)
        except Exception as error:
            self._fail(error)
        else:
            self._made.set_result(made)

    def _fail(self, error: Exception) -> None:
        self._made.set_exception(translated(error))
        self._made.exception()  # nobody may wait for it

    def _take(self) -> Made:
        result = self._handle.result()
        queued, seconds = self._handle.times
        return Made(
            samples=array(result.samples),
            seeds=result.seeds,
            nfe=result.nfe,
            evaluations=result.evaluations,
            recipe=result.recipe,
            finite=result.finite,
            seconds=seconds,
            queued=queued,
            latents=None if result.latents is None else array(result.latents),
            reports=result.reports,
        )

    async def _told(self, event: Event) -> Told:
        denoised, shown = event.denoised, None
        if denoised is not None and self._decoder is not None:
            shown = await asyncio.to_thread(self._decoded, denoised)
        elif denoised is not None:
            shown = array(denoised)
        return Told(event.kind, event.sample, event.row, event.rows, shown)

    def _decoded(self, denoised: Tensor) -> np.ndarray:
        assert self._decoder is not None
        show = self._decoder.preview or self._decoder
        with torch.no_grad():
            return array(show(denoised[None])[0])


def array(tensor: Tensor) -> np.ndarray:
    """A tensor as the server has it."""
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()
