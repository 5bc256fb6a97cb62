"""The drivers that lead seats, each in a run of a second: a line here, and tests of engines take it."""

import math
import threading
from typing import Any, NamedTuple

import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.drivers import DRIVERS, driver, kind
from diffusion_engine.processes import EDM

TIMEOUT, SHAPE = 100.0, (3, 5, 7)
NONE: dict[str, Any] = {}


def gaussians(x, sigma, y):
    """E[x0 | x] of N(m, 0.5^2), m by class, in operations that round each sample alike in any batch."""
    mean, sigma = (v.to(x.dtype).view(-1, *[1] * (x.ndim - 1)) for v in (0.2 * y - 1.0, sigma))
    return mean + (x - mean) * (0.25 / (0.25 + sigma * sigma))


def network_of(module):
    return ScoreNetwork(module, EDM(), SHAPE, prediction="x0", label="sigma", null=5, classes=10)


EXACT = network_of(gaussians)


class Led(NamedTuple):
    """A driver with options that keep its run short.

    seats    that one sample takes
    request  beside seeds and conditions
    """

    name: str
    options: dict[str, Any] = NONE
    solver: str = "dpmpp_2m"
    steps: int = 4
    seats: int = 1
    request: dict[str, Any] = NONE

    @property
    def driver(self):
        return {"name": self.name, "options": self.options}

    def asked(self, shape):
        """Two samples of a network of this shape."""
        made = {"seeds": [3, 4], "condition": [5, 6], "guidance": 2.0} | self.request
        if "operator" in self.options:
            made["measurement"] = torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape)
        return made

    @property
    def spec(self):
        return {"solver": self.solver, "steps": self.steps, "driver": self.driver}

    @property
    def single(self):
        """Whether each sample has a seat and a course of its own."""
        return self.seats == 1 and not driver(self.name, **self.options).together

    def sampler(self, network, **how):
        return Sampler(network, self.solver, self.steps, driver=self.driver, **how)

    def __str__(self):
        return "-".join([self.name, *map(str, self.options.values()), self.solver])


MEASURED = {"operator": {"name": "inpainting", "box": [1, 1, 2, 3]}}
LED = (
    Led("adaptive", {"rtol": 0.05, "atol": 0.05}),
    Led("ddrm", MEASURED),
    Led("daps", MEASURED | {"ode_steps": 2, "langevin": 2}),
    Led("tds", MEASURED, request={"guidance": 1.0}),
    Led("annealed_mcmc", {"sampler": "uhmc", "steps": 1}),
    Led("dpm_adaptive", {"order": 2, "eta": 0.5, "rtol": 0.2}),
    Led("dpm_adaptive", {"rule": "batch", "rtol": 0.2}),
    Led("predictor_corrector", {"corrector": "langevin", "snr": 0.1}, "heun", 3),
    Led("predictor_corrector", {"rule": "batch", "snr": 0.1}, "dpmpp_2m_sde"),
    Led("paradigms", {"window": 3}, "dpmpp_2m", 6, seats=3),
    Led("parataa", {"window": 4}, "euler_ancestral", 6, seats=4),
)


def leading():
    """The names of the package's drivers that lead."""
    return {name for name in DRIVERS if kind(name).leads}


class Gate:
    """The same network, which stands still within a call that a test names.

    holds  that call, counted from 1
    """

    def __init__(self, holds):
        self.calls, self.holds = 0, holds
        self.reached, self.open = threading.Event(), threading.Event()
        self.network = network_of(self.run)

    def run(self, x, sigma, y):
        self.calls += 1
        if self.calls == self.holds:
            self.reached.set()
            if not self.open.wait(TIMEOUT):
                raise TimeoutError("nobody opened the network")
        return gaussians(x, sigma, y)
