"""Variational diffusion models (Kingma et al. 2021): their networks, noise schedules and decoder."""

from .network import ScoreUNet
from .read import from_vdm, vdm_network
from .schedule import MonotoneGamma, decode

__all__ = ["MonotoneGamma", "ScoreUNet", "decode", "from_vdm", "vdm_network"]
