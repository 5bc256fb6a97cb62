"""diffusers' networks, autoencoders and schedulers. EngineScheduler alone imports diffusers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .like import Like as Like
from .like import like as like
from .networks import decoder_from_diffusers as decoder_from_diffusers
from .networks import from_diffusers as from_diffusers

if TYPE_CHECKING:
    from .pipelines import EnginePipeline as EnginePipeline
    from .pipelines import accelerate_pipeline as accelerate_pipeline
    from .pipelines import run as run
    from .scheduler import EngineScheduler as EngineScheduler

LATER = {
    "EngineScheduler": "scheduler",
    "EnginePipeline": "pipelines",
    "accelerate_pipeline": "pipelines",
    "run": "pipelines",
}


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(import_module(f".{LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
