"""The network through torch.compile, as the executors call it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..network import Condition, ScoreNetwork

KINDS = 64  # batch sizes that torch.compile makes kernels for; its own limit is 8


@dataclass(frozen=True, eq=False)
class Compiled(ScoreNetwork):
    """A ScoreNetwork whose module is compiled, anew for every batch size."""

    _met: set[int] = field(init=False, default_factory=set)

    def __call__(self, x: Tensor, label: Tensor, condition: Condition | None) -> tuple[Tensor, ...]:
        if len(x) in self._met:
            return super().__call__(x, label, condition)
        from torch._dynamo import config

        # Past its limit torch.compile would run eagerly without a word.
        with config.patch(recompile_limit=KINDS, fail_on_recompile_limit_hit=True):
            outs = super().__call__(x, label, condition)
        self._met.add(len(x))
        return outs


def compiled(network: ScoreNetwork) -> ScoreNetwork:
    """The network through torch.compile; on a GPU max-autotune, without CUDA graphs of its own."""
    options: dict[str, Any] = {}
    if torch.cuda.is_available():
        from torch._inductor import list_mode_options

        # What diffusers' own guide to fast inference turns on beside the mode.
        options = list_mode_options("max-autotune-no-cudagraphs") | {
            "conv_1x1_as_mm": True,
            "coordinate_descent_tuning": True,
            "coordinate_descent_check_all_directions": True,
            "epilogue_fusion": False,
        }
    module = torch.compile(network.module, dynamic=False, options=options or None)
    return Compiled(**{**vars(network), "module": module})
