"""diffusers' pipelines with the engine's loop in place of their own.

A pipeline prepares latents and conditions, loops over timesteps and decodes. Its first call of the network
holds all that the loop depends on; the whole run is made there, and what is left of the pipeline's own loop
passes its result on.
"""

from .pipeline import EnginePipeline as EnginePipeline
from .pipeline import accelerate_pipeline as accelerate_pipeline
from .pipeline import run as run
