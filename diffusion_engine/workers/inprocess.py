"""`InProcess`: a Service on an engine of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ..engine import Engine, EngineClosed, EngineError, QueueFull
from ..engine.ticket import Ticket
from ..networks.network import ScoreNetwork
from ..sampler import defaults
from ..solvers import SOLVERS
from .errors import NotReady, ServiceError
from .messages import About, Asked
from .offered import offered
from .serving import Run, Serving, translated

LOOK = 1.0  # seconds between two looks at the engine
PROMPT = (
    "a picture"  # of the first sample of a network that takes prompts: its encoder is there then
)
OTHERS = ("ddim", *SOLVERS)  # the first that a network takes which does not run its own default

log = logging.getLogger(__name__)


class InProcess:
    """Serves networks by an Engine of this process; of the tests, of notebooks and of Ray.

    networks  a ScoreNetwork, or several by name
    capacity  samples of one batch
    max_cost  entries x rows that one request may ask for, None for any
    warm      whether a sample of each network is made before requests are taken
    engine    the other arguments of Engine

    Raises ValueError where an argument makes no sense.
    """

    def __init__(
        self,
        networks: ScoreNetwork | Mapping[str, ScoreNetwork],
        capacity: int = 16,
        *,
        max_cost: int | None = None,
        warm: bool = True,
        **engine: Any,
    ) -> None:
        named = networks if isinstance(networks, Mapping) else {networks.name: networks}
        self._networks, self._warm = dict(named), warm
        self.engine = Engine(self._networks, capacity, **engine)
        self.models: Mapping[str, About] = {}
        self._max_cost, self._serving = max_cost, Serving(self.engine, {}, max_cost)
        self._closing = False

    async def start(self) -> None:
        """Returns when requests are taken. Raises ServiceError where a network cannot be served, and why."""
        found = {name: await asyncio.to_thread(self._about, name) for name in self._networks}
        self.models = found
        self._serving = Serving(self.engine, found, self._max_cost)

    async def close(self, drain: float = 30.0) -> None:
        """Takes nothing more, lets what was accepted end for so many seconds, and cancels the rest."""
        self._closing = True
        drained = asyncio.create_task(asyncio.to_thread(self.engine.close, True))
        await asyncio.wait([drained], timeout=drain)
        await asyncio.to_thread(self.engine.close, False)
        await drained

    def objection(self) -> str | None:
        """Why it takes no requests now; None where it does."""
        if self._closing:
            return "the service ends"
        if not self.models:
            return "the service has not started yet"
        error = self.engine.objection()
        return None if error is None or isinstance(error, QueueFull) else str(error)

    async def lost(self) -> str:
        """Returns where the engine broke down, and says why."""
        while not isinstance(error := self.engine.objection(), EngineClosed) or self._closing:
            await asyncio.sleep(LOOK)
        return str(error)

    async def submit(self, asked: Asked) -> Run:
        """Takes a request. Raises ValueError where it does not suit the network, TooLarge, Full and NotReady;
        GivenUp where its deadline cannot be met, and Failed where its network cannot be batched."""
        return self.put(asked, await self.check(asked))

    async def check(self, asked: Asked) -> Ticket:
        """A request that suits its network, for `put`; raises what `submit` raises then."""
        if reason := self.objection():
            raise NotReady(reason, None)
        return await self._serving.check(asked)

    def put(self, asked: Asked, ticket: Ticket, watched: bool = False) -> Run:
        """Runs a request that was checked; as Serving.put."""
        return self._serving.put(asked, ticket, watched)

    def snapshot(self) -> dict[str, Any]:
        """What it is doing, as JSON-able values."""
        seen = self.engine.snapshot()
        return {
            "waiting": seen["queued"],
            "running": seen["running"],
            "finished": {status: seen[status] for status in ("done", "failed", "cancelled")},
            "restarts": {},
            "workers": [{"state": "ready", "engine": seen}],
        }

    def _about(self, name: str) -> About:
        """What a network is like, which a sample of it shows."""
        network = self._networks[name]
        classes = network.classes or 0
        condition = PROMPT if network.text is not None else 0 if classes else None
        default = self._default(name, condition)
        shape = list(network.shape)
        decoded, form = shape, {}
        if self._warm:
            try:
                made = self.engine.submit(default, 1, network=name, condition=condition).result()
            except Exception as error:
                raise ServiceError(
                    f"the model {name!r} makes no samples: {translated(error)}"
                ) from error
            decoded = list(made.samples.shape[1:])
            form = {key: made.recipe[key] for key in ("network_form", "threads")}
        prediction = network.parameterisation.prediction
        return About(
            name=name,
            shape=shape,
            decoded=decoded,
            classes=classes,
            guided=network.parameterisation.unconditional,
            prediction=prediction if isinstance(prediction, str) else type(prediction).__name__,
            process=type(network.process).__name__,
            default=default,
            guidance=defaults.guidance(network, condition is not None),
            form=form,
            solvers=offered(self.engine, name, condition, default),
            text=network.text is not None,
            reads_scale=network.parameterisation.reads_scale,
        )

    def _default(self, name: str, condition: int | str | None) -> dict[str, Any]:
        """The keys of the Spec that says the least and suits a network."""
        reason, own = "", defaults.asked(self._networks[name])
        own.pop("guidance", None)  # About has it
        for spec in (own, *({"solver": other, "steps": defaults.STEPS} for other in OTHERS)):
            try:
                self.engine.checked(spec, 1, network=name, condition=condition)
                return spec
            except ImportError as error:  # what reads prompts is not installed
                raise ServiceError(f"the model {name!r} reads prompts, and {error}") from error
            except (ValueError, EngineError) as error:
                reason = reason or str(error)
        raise ServiceError(f"no solver suits the model {name!r}: {reason}")
