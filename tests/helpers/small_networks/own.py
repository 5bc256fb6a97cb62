"""Networks of this package: the zoo's, those with closed forms, and those of the benchmarks in their size."""

import torch

from .case import Case, times, whole


def digits():
    from diffusion_engine import zoo

    shape = zoo.load_network("digits").shape
    return Case(zoo.load("digits"), {"x": shape, "t": times, "y": whole(10)})


def mixture():
    """Reckons in float64."""
    from diffusion_engine.testing import Mixture

    network = Mixture().network(_vp(), (5,))
    return Case(network.module, {"x": (5,), "label": times})


def labelled():
    from diffusion_engine.testing.labelled import labelled_mixture

    network = labelled_mixture(shape=(5,))
    return Case(network.module, {"x": (5,), "t": times, "y": whole(4)})


def generator():
    from diffusion_engine.processes import Discrete
    from diffusion_engine.testing import GaussianGenerator

    return Case(GaussianGenerator(Discrete.few(4)), {"x": (5,), "label": whole(4), "z": (5,)})


def _vp():
    from diffusion_engine.processes import VP

    return VP()


def _workload(name):
    from benchmarks.runs.workloads import WORKLOADS

    workload = WORKLOADS[name]

    def timestep(batch, numbers):
        return torch.randint(0, 1000, (batch,), generator=numbers)

    return Case(workload.network(), {"x": workload.shape, "t": timestep})


NETWORKS = {
    "the zoo's digits": digits,
    "testing's Mixture": mixture,
    "testing's LabelledMixture": labelled,
    "testing's GaussianGenerator": generator,
    "the benchmarks' W1, DDPM": lambda: _workload("W1"),
    "the benchmarks' W2, DDPM++": lambda: _workload("W2"),
}
