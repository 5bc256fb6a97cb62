"""guided-diffusion's networks (Dhariwal & Nichol 2021): its checkpoints and classifiers, and its modules."""

from .network import guided_diffusion_network
from .reader import classifier_of, from_guided_diffusion

__all__ = ["classifier_of", "from_guided_diffusion", "guided_diffusion_network"]
