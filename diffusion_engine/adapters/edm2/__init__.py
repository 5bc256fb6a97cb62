"""EDM2's networks (Karras et al. 2024): its checkpoints; `edm_network` takes its modules."""

from .reader import from_edm2

__all__ = ["from_edm2"]
