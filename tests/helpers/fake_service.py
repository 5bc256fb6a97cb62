"""A `Service` without torch or a process: for routes, limits, cancels and what goes wrong."""

import asyncio

import numpy as np

from diffusion_engine.workers.errors import Full, GivenUp, NotReady
from diffusion_engine.workers.messages import About, Made, Offered, Told

SHAPE = (1, 8, 8)


def about(name="digits", shape=SHAPE, classes=10, guided=True, **more):
    default = {"solver": "ddim", "steps": 4}
    calls = {"ddim": 1, "heun": 2, "ald": 100}
    solvers = {solver: Offered(n, 1, solver == "ald") for solver, n in calls.items()}
    more |= {"solvers": solvers}
    return About(name, list(shape), list(shape), classes, guided, "eps", "vp", default, **more)


class FakeRun:
    """A request that ends when the service says so."""

    def __init__(self, service, asked):
        self.asked, self.service = asked, service
        self.id, self.status = asked.id, "queued"
        self.rows = int(asked.spec.get("steps", 4)) + 1
        self.cost = self.rows * len(asked.seeds)
        self.reason = None
        self.ended = asyncio.Event()
        self.task = asyncio.create_task(self.run())

    async def run(self):
        await self.service.open.wait()
        await asyncio.sleep(self.service.slow)
        if self.status == "queued":
            self.status = "done" if self.service.fails is None else "failed"
        self.ended.set()
        self.service.running.discard(self)

    async def result(self):
        await self.ended.wait()
        if self.status == "cancelled":
            raise GivenUp(f"the request was given up: {self.reason}")
        if self.status == "failed":
            raise self.service.fails
        about, n = self.service.models[self.asked.model], len(self.asked.seeds)
        seeds = np.array(self.asked.seeds, np.uint64)
        rng = [np.random.Generator(np.random.Philox(int(seed))) for seed in seeds]
        samples = np.stack([r.uniform(-1, 1, about.decoded).astype(np.float32) for r in rng])
        recipe = {
            "seeds": self.asked.seeds,
            "condition": self.asked.condition,
            "solver": self.asked.spec,
        }
        recipe |= {"compose": None, "guidance": [1.0] * n, "calls": None}
        return Made(samples, self.asked.seeds, self.rows, self.cost, recipe, [True] * n, 0.1, 0.01)

    async def events(self, room=64):
        yield Told("queued")
        yield Told("started")
        about = self.service.models[self.asked.model]
        for sample in range(len(self.asked.seeds)):
            for row in range(1, self.rows + 1):
                seen = self.asked.preview and row % self.asked.preview == 0
                noise = np.random.default_rng(row)  # no compression makes it small
                picture = noise.random(about.decoded, np.float32) if seen else None
                yield Told("preview" if seen else "row", sample, row, self.rows, picture)
        await self.ended.wait()
        yield Told(self.status)

    def cancel(self, reason):
        if self.ended.is_set():
            return False
        self.status, self.reason = "cancelled", reason
        self.service.cancelled.append(self.id)
        self.ended.set()
        self.service.running.discard(self)
        self.task.cancel()
        return True


class FakeService:
    """open: whether requests end; most: requests at a time; fails: how they end; slow: seconds of each."""

    def __init__(self, *models, most=64, slow=0.0):
        self.about = {a.name: a for a in models or (about(),)}
        self.models, self.most, self.slow, self.fails = {}, most, slow, None
        self.open, self.running, self.cancelled, self.asked, self.made = (
            asyncio.Event(),
            set(),
            [],
            [],
            [],
        )
        self.gone = asyncio.Event()
        self.open.set()
        self.reason = "the service has not started yet"
        self.refuses = None

    async def start(self):
        self.models, self.reason = self.about, None

    async def lost(self):
        await self.gone.wait()
        return "no worker starts any more"

    async def close(self, drain=30.0):
        self.reason = "the service ends"
        if self.running:
            await asyncio.wait([run.task for run in self.running], timeout=drain)
        for run in list(self.running):
            run.cancel("the service ended")

    def objection(self):
        return self.reason

    async def submit(self, asked):
        if self.reason:
            raise NotReady(self.reason, 1.0)
        if self.refuses is not None:
            raise self.refuses
        if len(self.running) >= self.most:
            raise Full(f"{self.most} requests are here; try again when some have ended", 1.5)
        self.asked.append(asked)
        run = FakeRun(self, asked)
        self.running.add(run)
        self.made.append(run)
        return run

    def snapshot(self):
        spread = {"edges": [0.1 * i for i in range(1, 9)], "counts": [0, 1, 0, 0, 0, 0, 2, 0, 1]}
        engine = {"rows": 7, "occupied": 2, "seats": 8, "row_s": {"count": 4, "mean": 0.5} | spread}
        return {
            "waiting": 0, "running": len(self.running), "restarts": {"died": 1},
            "finished": {"done": 3, "failed": 0, "cancelled": len(self.cancelled)},
            "workers": [{"state": "ready", "device": "cpu", "engine": engine}],
        }  # fmt: skip
