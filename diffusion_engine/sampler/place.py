"""`Place`: on which device a network runs, in what it is computed, and by which executor."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .. import checks
from ..backends import machine
from ..executors import Eager, Executor
from ..networks.placement import AUTO, compute_dtype, device_of, place
from . import named


@dataclass(frozen=True)
class Place:
    """Where and how a network runs.

    dtype   in which it is to be computed
    device  of it and of the states
    """

    dtype: torch.dtype
    device: torch.device
    executor: Executor

    @classmethod
    def of(
        cls,
        module: Any,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        backend: str = "auto",
        executor: str | Executor = "eager",
        threads: int | Mapping[int, int] | str | None = None,
    ) -> Place:
        """What was asked of a module, settled; Sampler explains the arguments.

        Raises ValueError where they do not go together, or the processor would emulate the dtype.
        """
        here = device_of(module, device).type == "cpu"
        asked = _asked(executor, dtype, here)
        chosen, where = place(module, asked, device)
        made = named.executor(
            executor, backend, threads, chosen if here else None, fallback=isinstance(dtype, str)
        )
        if here and asked == torch.bfloat16 and made.precision is None:
            _warn_emulated(module)
        return cls(chosen, where, made)

    @property
    def input_dtype(self) -> torch.dtype:
        """Of the network's weights and input, and of conditions that are not whole numbers."""
        return self.dtype if self.executor.precision is None else torch.float32


def _asked(executor: Any, dtype: Any, here: bool) -> Any:
    """The dtype that is asked for, of an executor that may leave no choice.

    here  whether it runs on the CPU
    """
    auto = here and isinstance(dtype, str) and dtype == AUTO
    if auto and (isinstance(executor, str) and named.COMPUTING.get(executor) == (torch.float32,)):
        return torch.float32
    if not isinstance(executor, Executor):
        return dtype
    own, unsaid = executor.precision, dtype is None or auto
    if own is None:  # those that record a network want float32 then
        return torch.float32 if auto and not isinstance(executor, Eager) else dtype
    if not unsaid and dtype != own:
        kind = type(executor).__name__
        raise ValueError(
            f"dtype={checks.said(dtype)} and {kind}(dtype={own}) contradict each other: leave dtype out, or "
            f"give it to {kind} alone"
        )
    return own


def _warn_emulated(module: Any) -> None:
    """Torch computes in bfloat16 on every processor: where it is slow, whoever asked for it is told."""
    here = machine.bf16()
    if not here.kind and compute_dtype(module, torch.bfloat16) != torch.bfloat16:
        warnings.warn(machine.emulated("dtype=torch.bfloat16"), RuntimeWarning, stacklevel=1)
