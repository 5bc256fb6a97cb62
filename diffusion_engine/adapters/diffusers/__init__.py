"""diffusers' networks, autoencoders and schedulers. diffusers itself is not imported."""

from .networks import decoder_from_diffusers as decoder_from_diffusers
from .networks import from_diffusers as from_diffusers
