"""`accelerate(module)` puts the fused ops into a network; `restore()` takes them out again.

    from diffusion_engine.accelerate import accelerate

    fused = accelerate(unet, x, t)      # in place; the arguments are an example call
    print(fused)                        # what was replaced, what was not and why
    fused.restore()

Modules keep their types, names, parameters and state_dict; their `forward` is replaced. Each replacement is
compared with the original on the example before it is used, and the network is timed as it was, fused,
and fused in channels_last: the fastest stays, on a GPU that of replayed graphs. A call that a replacement
does not take, or that needs derivatives (of parameters too), autocast or a torch.func transform, runs the
original forward. What a module's own forward computes with torch's functions is left alone.

A call raises RuntimeError where modules were replaced since, a hook would not be called, or a weight that is
packed is another or has another version. Weights that were written through numpy or `.data` show neither:
call `refresh()` of the result. `Sampler(accelerate=True)` does so itself, by checksums, before every run.
Several threads may call the network.
"""

from __future__ import annotations

from .handle import Accelerated, accelerated
from .network import accelerate

__all__ = ["Accelerated", "accelerate", "accelerated"]
