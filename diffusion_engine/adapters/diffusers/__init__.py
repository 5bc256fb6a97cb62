"""diffusers' networks, autoencoders and schedulers. EngineScheduler alone imports diffusers."""

from typing import TYPE_CHECKING, Any

from .like import Like as Like
from .like import like as like
from .networks import decoder_from_diffusers as decoder_from_diffusers
from .networks import from_diffusers as from_diffusers

if TYPE_CHECKING:
    from .scheduler import EngineScheduler as EngineScheduler


def __getattr__(name: str) -> Any:
    if name == "EngineScheduler":
        from .scheduler import EngineScheduler

        return EngineScheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
