"""Requests of every kind at random, as an engine of several networks takes them."""

import math
from functools import lru_cache

import torch
from analytic import suited

from diffusion_engine import Sampler
from diffusion_engine.processes import VP
from diffusion_engine.sampler.request import Request

SOLVERS = sorted(suited(VP()))
OPTIONS = {"ald": {"n_steps": 3}}  # of a hundred calls a level
# What `submit` takes beside what `sample` does.
QUEUED = ("spec", "network", "adapter", "priority", "key")


class Draw:
    """random_requests' source.

    rng        draws
    networks   by name and adapter: what a request runs on
    steps      at most
    decoder    of the engine
    executor   that makes a request alone
    kinds      of KINDS that may come
    """

    def __init__(self, rng, networks, steps, decoder=None, executor="eager", kinds=None):
        self.rng, self.networks, self.steps = rng, networks, steps
        self.kinds = KINDS if kinds is None else {name: KINDS[name] for name in kinds}
        self._sampler = lru_cache(64)(
            lambda of, solver, steps: Sampler(
                networks[of],
                solver,
                steps,
                decoder=decoder,
                executor=executor,
                **OPTIONS.get(solver, {}),
            )
        )

    def request(self, network):
        """What is submitted, drawn: a plain request and what suits it of the rest."""
        rng, n = self.rng, self.rng.choice((1, 1, 1, 2, 3))
        few, solver = math.ceil(self.steps ** rng.random()), rng.choice(SOLVERS)  # most are short
        about = {
            "spec": {"solver": {"name": solver, "options": OPTIONS.get(solver, {})}, "steps": few},
            "network": network,
            "condition": [rng.randrange(10) for _ in range(n)],
            "guidance": [rng.choice((1.0, 1.0, 2.0, 4.5)) for _ in range(n)],
            "seeds": [rng.randrange(2**40) for _ in range(n)],
            "priority": rng.randrange(3),
            "key": rng.choice("abc"),
        }
        for kind in self.kinds.values():
            if rng.random() < 0.2:
                more = about | kind(self, about)
                about = more if self.objection(more) is None else about
        if about.get("noise") is tensor:
            about["noise"] = self._normals(about)
        return about

    def sampler(self, about):
        """What makes a request alone."""
        of, spec = (about["network"], about.get("adapter")), about["spec"]
        return self._sampler(of, spec["solver"]["name"], spec["steps"])

    def objection(self, about):
        """Why a sampler does not make a request; None where it does."""
        try:
            self.plans(about)
        except ValueError as error:
            return str(error)
        return None

    def plans(self, about):
        sampler = self.sampler(about)
        return sampler.planned(Request.of(sampler, **alone(about)))

    def images(self, about, count):
        shape = self.networks[about["network"], None].shape
        return torch.randn(count, *shape, generator=self.generator())

    def generator(self):
        return torch.Generator().manual_seed(self.rng.randrange(2**40))

    def _normals(self, about):
        """[rows, draws, n, *shape], for the rows of the request's plans."""
        rows, n = max(len(plan.rows) for plan in self.plans(about)), len(about["seeds"])
        draws = 3 if "mask" in about else 2
        return self.images(about, rows * draws * n).unflatten(0, (rows, draws, n))


def alone(about):
    """The part of a request that a sampler takes."""
    return {name: value for name, value in about.items() if name not in QUEUED}


def kinds(about):
    """Which of KINDS a request is."""
    noise = about.get("noise")
    of_noise = {str: "path", torch.Tensor: "tensor", Normals: "function"}
    return {
        *({"mask": "region", "x": "image"}.get(name, name) for name in about),
        of_noise.get(type(noise)),
    } & KINDS.keys()


class Normals:
    """Normals of a function, which depend on row, m and the sample's seed."""

    def __init__(self, shape, key):
        self.shape, self.key = shape, key

    def __call__(self, row, m, seeds):
        made = [
            torch.Generator().manual_seed(self.key ^ (s + (row << 44) + (m << 60))) for s in seeds
        ]
        return torch.stack([torch.randn(self.shape, generator=one) for one in made])


def tensor(row, m, seeds):
    """Stands for a tensor until the rows are known."""
    raise NotImplementedError


def _region(draw, about):
    mask = draw.images(about, len(about["seeds"]))
    mask = (mask > 0).float() if draw.rng.random() < 0.7 else mask.sigmoid()
    return {"mask": mask, "known": draw.images(about, draw.rng.choice((1, len(mask))))}


def _image(draw, about):
    x = draw.images(about, len(about["seeds"]))
    return {"x": x} | draw.rng.choice(({"start": 0.4}, {"noised": True}))


def _function(draw, about):
    shape = draw.networks[about["network"], None].shape
    return {"noise": Normals(shape, draw.rng.randrange(2**40))}


def _record(draw, about):
    return {"record": draw.rng.choice((("log_prob",), ("trajectory", "noise"), RECORDS))}


def _adapter(draw, about):
    return {"adapter": "lora"}


RECORDS = ("log_prob", "trajectory", "noise")
KINDS = {
    "adapter": _adapter,
    "region": _region,
    "image": _image,
    "path": lambda draw, about: {"noise": "brownian"},
    "function": _function,
    "tensor": lambda draw, about: {"noise": tensor},
    "record": _record,
}


def random_requests(draw, count, digits):
    """(what is submitted, how many requests before it one is cancelled or None).

    digits  how many go to the digits network
    """
    networks, rng = ["digits"] * digits + ["exact"] * (count - digits), draw.rng
    rng.shuffle(networks)
    return [
        (draw.request(network), rng.randrange(1, 20) if rng.random() < 0.1 else None)
        for network in networks
    ]
