"""`Served`: a network of the engine, placed when it is first asked for, with its samplers and its lanes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from threading import RLock
from typing import Any

from ..executors import Batch, Capacity
from ..executors.lru import Lru
from ..guiders import GUIDERS
from ..networks.network import ScoreNetwork
from ..networks.placement import evaluating
from ..networks.wrapper import unwrapped
from ..ops import layout
from ..sampler.place import Place
from ..sampler.request import Request
from ..sampler.runner import distinct
from ..sampler.sampler import PLACE, Sampler
from ..sampler.spec import Spec
from ..solvers import solver
from .errors import EngineClosed, EngineError
from .lane import Lane
from .probe import Probe, Promised, first_call
from .ticket import Signature, Ticket
from .weights import Weights

ROWS = 4096  # of plans, some 1.5 MB
SAMPLERS = 256  # of specs that a network keeps
WRAPPED = 8  # idle batches of networks that drivers have in the place of its own


class Served:
    """Submitting threads ask for tickets; the lanes are the engine's thread's alone.

    capacity  samples of one batch
    fixed     whether its calls have one size
    probing   whether the network is tried in batches before samples share one
    how       the arguments of Sampler that say where and how networks run
    lanes     by adapter and capacity
    weights   what they run on
    turned    when one of them had its last turn, on the engine's clock
    """

    def __init__(
        self,
        name: str,
        own: ScoreNetwork,
        capacity: int,
        fixed: bool,
        how: Mapping[str, Any],
        probing: bool = True,
    ) -> None:
        self.name, self.own, self.capacity, self.fixed = name, own, capacity, fixed
        self.probing, self.probes = probing, dict[tuple, Probe]()
        place = Place.of(own.module, **{n: how[n] for n in PLACE & how.keys()})
        self._how: dict[str, Any] = {n: how[n] for n in how.keys() - PLACE}
        self._how |= {"dtype": place.dtype, "device": place.device, "executor": place.executor}
        self.weights, self.turned = Weights(own, place), 0.0
        self.lanes: dict[Signature, Lane] = {}
        self._closed = False
        self._first: Sampler | None = None
        self._samplers: Lru[str, Sampler] = Lru(SAMPLERS)
        self._entered = ExitStack()
        self._lock = RLock()

    @property
    def busy(self) -> bool:
        return any(lane.busy for lane in self.lanes.values())

    @property
    def bytes(self) -> int:
        """Of weights that are copies, and of batches."""
        batches = sum(lane.batch.bytes for lane in list(self.lanes.values()))
        return self.weights.held + self.packed + batches

    @property
    def packed(self) -> int:
        """Of weights that the executor keeps for batches."""
        networks = {
            id(n): n for lane in list(self.lanes.values()) if (n := lane.batch.stages.network)
        }
        return sum(self.first.executor.packed(network) for network in networks.values())

    def ticket(
        self, spec: Spec, n: int | None, given: Mapping[str, Any], under: str | None = None
    ) -> Ticket:
        """A request, checked.

        Raises ValueError where it does not suit the network or its batches, and EngineClosed.
        """
        with self._lock:  # for no longer than this: a large request takes long
            if self._closed:
                raise EngineClosed("the engine is closed; make another")
            adapter = None if under is None else self.weights.named(under)
            sampler = self.sampler(spec)
        said = spec.request().items()
        asked = {name: v for name, v in said if v is not None and v is not False}
        request = Request.of(sampler, n, **asked | dict(given))
        plans, network = sampler.planned(request), sampler.network
        one = request.part(0, 1)
        led = [job for course in sampler.led(one, plans[:1]) for job in course.jobs]
        jobs = led[:1] or sampler.jobs(one, plans[:1])
        capacity = sampler.capacity(network, one, jobs, denoised=True)
        widest = max(distinct(plans), key=lambda plan: (plan.entries, len(plan.rows)))
        room = roomy(capacity, self.capacity, network.parameterisation.unconditional)
        if objection := room.plan_objection(widest):
            raise ValueError(f"the request does not fit the engine's batch: {objection}")
        if request.sized:
            raise ValueError(
                "bucket and calls belong to a replay; an engine chooses its calls itself"
            )
        ticket = Ticket(self, sampler, request, replace(room, fixed=self.fixed), plans, adapter)
        self.check(self.probes.get(_calls(ticket)))
        return ticket

    def sampler(self, spec: Spec) -> Sampler:
        """The sampler of a spec. Raises ValueError where it does not suit the network."""
        with self._lock:
            key = spec.model_dump_json()
            made = self._samplers.get(key)
            if made is None:
                made = self._made(spec)
                self._samplers.put(key, made, 1)
            return made

    def _made(self, spec: Spec) -> Sampler:
        asked = spec.arguments()
        dtype, driver = asked.pop("dtype"), asked.pop("driver")
        # Made here: an option is never an argument of Sampler, such as compile.
        rule = solver(spec.solver.name, **spec.solver.options)
        if self._first is None:
            first = Sampler(self.own, rule, **asked, **self._how)
            first.ready(self.capacity * first.plan().entries)
            module = first.network.module
            self._entered.enter_context(evaluating(module, unwrapped(module)))
            self._first = first
            self.weights.settle(first.network)
        first = self._first
        if dtype not in (None, first.dtype):
            raise ValueError(
                f"the spec asks for {dtype} and this engine runs {self.name!r} in {first.dtype}; leave dtype "
                "out, or serve the network a second time under another name"
            )
        if driver is None and spec.solver == first.spec.solver and not self._samplers:
            return first
        shared: dict[str, Any] = {
            "dtype": first.place.dtype, "device": first.device, "executor": first.executor,
            "batch_size": first.batch_size, "decoder": first.decoder,
        }  # fmt: skip
        return Sampler(first.network, rule, driver=driver, **asked, **shared)

    def check(self, probe: Probe | None) -> None:
        """Raises EngineError where samples cannot share a batch."""
        if probe is not None and probe.reason and self.capacity > 1:
            raise EngineError(probe.reason)

    def open(self, ticket: Ticket) -> tuple[Batch, Probe | None]:
        """A batch for a request and those like it, and what is known of the network in it. Raises EngineError
        where samples cannot share a batch."""
        capacity, executor, network = ticket.capacity, self.first.executor, ticket.network
        executor.ready(network, capacity)
        probe = self._probe(ticket, network)
        self.check(probe)
        if probe is not None and self.fixed:
            capacity = replace(capacity, room=probe.settle(capacity.room))
        batch = executor.open(network, capacity)
        if probe is not None:
            probe.sizes |= {batch.stages.size(count) for count in range(1, capacity.room + 1)}
        return batch, probe

    def untried(self, ticket: Ticket) -> bool:
        """Whether `open` calls the network."""
        asks = self.probing or self.first.executor.invariant
        return asks and _calls(ticket) not in self.probes

    def _probe(self, ticket: Ticket, network: ScoreNetwork) -> Probe | None:
        key = _calls(ticket)
        if self.untried(ticket):
            executor, room = self.first.executor, ticket.capacity.room
            made = first_call(executor, ticket.capacity, ticket.job(0))
            if made is None:
                return None
            if executor.exact(network, made[0]):
                self.probes[key] = Promised(network, made[0], [room])
            elif self.probing:
                call = executor.calling(network)
                self.probes[key] = probe = Probe(network, *made, sizes=[room], call=call)
                probe.meet()
        return self.probes.get(key)

    @property
    def first(self) -> Sampler:
        """The sampler whose network runs."""
        assert self._first is not None
        return self._first

    @property
    def network(self) -> ScoreNetwork:
        """What runs."""
        return self.first.network

    def load(self) -> float:
        """Brings the weights back; the seconds that it took."""
        took = self.weights.load()
        for lane in self.lanes.values():  # recorded steps read weights where they were
            lane.batch.stages.forget()
        return took

    def renew(self) -> None:
        """Weights were changed."""
        for lane in self.lanes.values():
            lane.batch.stages.renew()

    def stale(self) -> list[Lane]:
        """Idle batches to which nobody comes with their adapter any more, or is likely to with their driver,
        whose every option makes another network."""
        idle = [(wraps, lane) for (*_, wraps), lane in self.lanes.items() if not lane.busy]
        gone = [lane for _, lane in idle if not self.weights.takes(lane.adapter)]
        wrapped = sorted((lane for wraps, lane in idle if wraps), key=lambda lane: lane.turned)
        return gone + wrapped[: max(0, len(wrapped) - WRAPPED)]

    def shut(self, lane: Lane) -> None:
        """Lets go of a batch, and of what is known of a network that was its alone."""
        for signature, found in list(self.lanes.items()):
            if found is lane:
                del self.lanes[signature]
                if (wraps := signature[-1]) is not None:
                    self.probes = {k: p for k, p in self.probes.items() if k[0] is not wraps}
                if not self.lanes:  # the last to read what the executor keeps of the weights
                    lane.batch.stages.forget()

    def close(self) -> None:
        """Lets go of all, for good."""
        with self._lock:
            self._closed = True
            self.lanes.clear()
            self.probes.clear()
            self.weights.drop()
            self._samplers = Lru(SAMPLERS)
            self._first = None
            self._entered.close()


def roomy(capacity: Capacity, samples: int, guided: bool) -> Capacity:
    """Room for requests of one image size, kind of condition and kind of step: what else differs between
    solvers, step counts and guidance fits into it.

    samples  that call the network together; as many again have a seat, where the next one makes its row 0
             while the last one makes its last
    guided   whether the network has an unconditional branch
    """
    entries = max(capacity.entries, 2 if guided else 1)
    rows = max(ROWS, 1 << (2 * capacity.rows - 1).bit_length())
    return replace(
        capacity,
        seats=2 * samples,
        rows=rows,
        room=samples * entries,
        slots=max(capacity.slots, layout.SLOTS),
        outputs=capacity.outputs // capacity.entries * entries,
        entries=entries,
        normals=layout.NORMALS,
        branches=max(capacity.branches, entries),
        draws=layout.NORMALS + 1 if capacity.draws else 0,
        guiders=tuple(sorted(GUIDERS)) if capacity.guiders else (),
    )


def _calls(ticket: Ticket) -> tuple:
    """What calls of a network have in common."""
    c = ticket.capacity
    return (
        ticket.wraps,
        c.shape,
        c.inputs,
        c.dtype,
        c.label_dtype,
        c.memory_format,
        c.condition,
        c.latent,
        c.ends,
        c.device,
    )
