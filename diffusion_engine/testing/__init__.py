"""Networks with a closed form, to check solvers and samplers against."""

from .cld import cld_gaussian, cld_mixture
from .consistency import ConsistencyFunction
from .ddgan import GaussianGenerator
from .exact_networks import exact_network
from .gaussian import Gaussian
from .labelled import LabelledMixture, labelled_mixture
from .mixture import Mixture
from .quantiles import MixtureFlowMap, MixtureGenerator, MixtureStudent

__all__ = [
    "ConsistencyFunction",
    "Gaussian",
    "GaussianGenerator",
    "LabelledMixture",
    "Mixture",
    "MixtureFlowMap",
    "MixtureGenerator",
    "MixtureStudent",
    "cld_gaussian",
    "cld_mixture",
    "exact_network",
    "labelled_mixture",
]
