"""Networks of this package, and those of its benchmarks in small."""

import torch

from .case import STEP, Case, times, whole


def digits():
    from diffusion_engine import zoo

    shape = zoo.load_network("digits").shape
    return Case(zoo.load("digits"), {"x": shape, "t": times, "y": whole(10)})


NETWORKS = {"the zoo's digits": digits}
