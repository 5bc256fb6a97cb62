"""A sampling engine for diffusion models: every sampler is a table, one fused kernel runs it.

Names are loaded when they are first used, so that the command line can settle OpenMP's waiting
policy before torch reads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import processes
    from .adapters.diffusers import decoder_from_diffusers, from_diffusers
    from .adapters.onnx import from_onnx
    from .client import AsyncClient, Client
    from .drivers.likelihood import Likelihood, likelihood
    from .drivers.likelihood_bound import VariationalBound, variational_bound
    from .engine import Engine
    from .networks.classifier import with_classifier
    from .networks.decoder import Decoder
    from .networks.linearize import linearized
    from .networks.network import ScoreNetwork
    from .networks.parameterisation import Parameterisation
    from .networks.text import TextEncoder
    from .plan import Call, Plan, Row
    from .plan.guidance import classifier_free, classifier_guidance, compose, inpaint, scale_of_w
    from .processes.grids import GRIDS
    from .profiling import Profile, profile
    from .sampler.progress import Progress
    from .sampler.result import Result
    from .sampler.sampler import Sampler
    from .sampler.spec import Recipe, Spec
    from .solvers import SOLVERS, Solver

__all__ = [
    "GRIDS",
    "SOLVERS",
    "AsyncClient",
    "Call",
    "Client",
    "Decoder",
    "Engine",
    "Likelihood",
    "Parameterisation",
    "Plan",
    "Profile",
    "Progress",
    "Recipe",
    "Result",
    "Row",
    "Sampler",
    "ScoreNetwork",
    "Solver",
    "Spec",
    "TextEncoder",
    "VariationalBound",
    "classifier_free",
    "classifier_guidance",
    "compose",
    "decoder_from_diffusers",
    "from_diffusers",
    "from_onnx",
    "inpaint",
    "likelihood",
    "linearized",
    "processes",
    "profile",
    "scale_of_w",
    "variational_bound",
    "with_classifier",
]

_MODULES = {
    "adapters.diffusers": ("decoder_from_diffusers", "from_diffusers"),
    "adapters.onnx": ("from_onnx",),
    "client": ("AsyncClient", "Client"),
    "drivers.likelihood": ("Likelihood", "likelihood"),
    "drivers.likelihood_bound": ("VariationalBound", "variational_bound"),
    "engine": ("Engine",),
    "networks.classifier": ("with_classifier",),
    "networks.decoder": ("Decoder",),
    "processes.grids": ("GRIDS",),
    "plan.guidance": ("classifier_free", "classifier_guidance", "compose", "inpaint", "scale_of_w"),
    "networks.linearize": ("linearized",),
    "networks.network": ("ScoreNetwork",),
    "networks.parameterisation": ("Parameterisation",),
    "networks.text": ("TextEncoder",),
    "plan": ("Call", "Plan", "Row"),
    "profiling": ("Profile", "profile"),
    "sampler.result": ("Result",),
    "sampler.progress": ("Progress",),
    "sampler.sampler": ("Sampler",),
    "sampler.spec": ("Recipe", "Spec"),
    "solvers": ("SOLVERS", "Solver"),
}


def __getattr__(name: str) -> Any:
    if name == "processes":
        return import_module(".processes", __name__)
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
