"""EDM's networks (Karras et al. 2022): its checkpoints, and modules with its calling convention."""

from .network import edm_network
from .reader import from_edm

__all__ = ["edm_network", "from_edm"]
