"""openai/consistency_models' networks (Song et al. 2023): its checkpoints, and its modules."""

from .network import consistency_models_network
from .reader import from_consistency_models

__all__ = ["consistency_models_network", "from_consistency_models"]
