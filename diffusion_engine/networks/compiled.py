"""The network through torch.compile, as the executors call it."""

from __future__ import annotations

from threading import RLock
from typing import Any

import torch
from torch import Tensor

from .network import Condition, ScoreNetwork
from .wrapper import Wrapper

KINDS = 64  # kinds of calls that torch.compile makes kernels for; its own limit is 8
_compiling = RLock()  # torch.compile's limits may be those of the process


class Compiled(Wrapper):
    """A module that is compiled, anew for every batch size and kind of condition; one at a time.

    module   what is compiled; its weights are this one's
    options  of torch.compile
    """

    def __init__(self, module: Any, options: dict[str, Any] | None = None) -> None:
        super().__init__(module)
        self.options = options
        self._call = [torch.compile(module, dynamic=False, options=options)]  # no submodule
        self._met: set[tuple] = set()
        self.train(getattr(module, "training", False))

    def __reduce__(self) -> tuple:
        """A copy, here or in another process, compiles anew."""
        return type(self), (self.module, self.options)

    def forward(self, x: Tensor, label: Tensor, *given: Condition, **named: Tensor) -> Any:
        kind = (
            len(x),
            len(given),
            torch.get_num_threads(),
            *sorted(named),
        )  # what kernels are made for
        if kind in self._met:
            return self._call[0](x, label, *given, **named)
        from torch._dynamo import config
        from torch._dynamo.exc import FailOnRecompileLimitHit

        # Past its limit torch.compile would run eagerly without a word, and leave out hooks that are put on
        # later.
        guarded: dict[str, Any] = {
            "fail_on_recompile_limit_hit": True,
            "skip_nnmodule_hook_guards": False,
        }
        try:
            with _compiling, config.patch(recompile_limit=KINDS, **guarded):
                out = self._call[0](x, label, *given, **named)
        except FailOnRecompileLimitHit as error:
            raise ValueError(
                f"torch.compile has made kernels for {KINDS} kinds of calls and met another one, of batch "
                f"size {len(x)}: sample in fewer sizes (batch_size), or with compile=False"
            ) from error
        self._met.add(kind)
        return out

    def renew(self) -> None:
        """Has the next call of each kind look for hooks that were put on since."""
        self._met.clear()


def compiled(network: ScoreNetwork, device: torch.device) -> ScoreNetwork:
    """The network through torch.compile; on a GPU max-autotune, without CUDA graphs of its own."""
    if isinstance(network.module, Compiled):
        return network
    options: dict[str, Any] | None = None
    if device.type == "cuda":
        from torch._inductor import list_mode_options

        # What diffusers' own guide to fast inference turns on beside the mode.
        options = list_mode_options("max-autotune-no-cudagraphs") | {
            "conv_1x1_as_mm": True,
            "coordinate_descent_tuning": True,
            "coordinate_descent_check_all_directions": True,
            "epilogue_fusion": False,
        }
    return network.with_module(Compiled(network.module, options))
