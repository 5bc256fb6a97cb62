"""diffusers' networks, autoencoders and schedulers. diffusers itself is not imported."""

from .like import Like as Like
from .like import like as like
from .networks import decoder_from_diffusers as decoder_from_diffusers
from .networks import from_diffusers as from_diffusers
