"""Networks with a closed form, to check solvers and samplers against."""

from .cld import cld_gaussian, cld_mixture

__all__ = ["cld_gaussian", "cld_mixture"]
