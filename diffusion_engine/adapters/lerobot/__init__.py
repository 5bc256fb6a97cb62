"""Diffusion policies of lerobot: a U-Net over time that makes a robot's next actions (Chi et al. 2023)."""

from .network import ConditionalUnet1d
from .policy import Policy
from .read import from_lerobot, lerobot_network, policy_from_lerobot

__all__ = ["ConditionalUnet1d", "Policy", "from_lerobot", "lerobot_network", "policy_from_lerobot"]
