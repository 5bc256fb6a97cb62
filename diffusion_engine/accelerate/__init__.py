"""`accelerate(module)` puts the fused ops into a network; `restore()` takes them out again.

    from diffusion_engine.accelerate import accelerate

    fused = accelerate(unet, x, t)      # in place; the arguments are an example call
    print(fused)                        # what was replaced, what was not and why
    fused.restore()

Modules keep their types, names, parameters and state_dict; their `forward` is replaced. Each place is
compared with the original on the example before it is used, and the network is timed as it was, fused,
and fused in channels_last: the fastest stays. A call that needs derivatives, autocast or a
torch.func transform runs the original forwards. Several threads may call the network.
"""

from __future__ import annotations

from .network import Accelerated, accelerate, accelerated

__all__ = ["Accelerated", "accelerate", "accelerated"]
