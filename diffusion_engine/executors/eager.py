"""The loop: call the network, launch the step, next row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..ops.registry import resolve
from .run import Run


def execute(run: Run, backend: str = "auto", after: Callable[[int], None] | None = None) -> None:
    """Runs every sample to the end of its plan; the result is in slot 0.

    backend  of the step: "auto", "torch", "cpp", "triton" or "cuda"
    after    called with the row's index once its step has been launched
    """
    args, network = run.args, run.network
    step = resolve("step", backend, args)
    src, dst, net_in, label = args.src, args.dst, args.net_in, args.label
    assert src is not None and dst is not None and net_in is not None and label is not None
    called = in_src = in_dst = with_condition = None
    with torch.no_grad():
        for i in range(run.length):
            outs: tuple[Tensor, ...] = ()
            following = run.packing(i + 1)
            if called is not None:
                if called is not with_condition:
                    condition, with_condition = run.condition_of(called), called
                if called is not in_src:
                    _put(src, called.src(src.shape[1]))
                    in_src = called
                outs = network(net_in[: called.count], label[: called.count], condition)
                run.evaluations += called.count
            if following is not in_dst:
                _put(dst, following.dst(dst.shape[1]))
                in_dst = following
            run.fill_noise(i)
            step(outs)
            called = following
            if after is not None:
                after(i)


def _put(table: Tensor, values: np.ndarray) -> None:
    table.copy_(torch.from_numpy(values))
