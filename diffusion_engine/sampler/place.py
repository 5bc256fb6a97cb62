"""`Place`: on which device a network runs, in what it is computed, and by which executor."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .. import checks
from ..backends import machine
from ..executors import Executor
from ..native import Native
from ..networks.placement import compute_dtype, place
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
        asked = _asked(executor, dtype)
        chosen, where = place(module, asked, device)
        here = where.type == "cpu"
        falls = isinstance(dtype, str)
        made = named.executor(executor, backend, threads, chosen if here else None, falls)
        if here and asked == torch.bfloat16 and made.precision is None:
            _warn_emulated(module)
        return cls(chosen, where, made)

    @property
    def input_dtype(self) -> torch.dtype:
        """Of the network's weights and input, and of conditions that are not whole numbers."""
        return self.dtype if self.executor.precision is None else torch.float32


def _asked(executor: Any, dtype: Any) -> Any:
    """The dtype that is asked for, where an executor has one of its own."""
    own = executor.precision if isinstance(executor, Executor) else None
    unsaid = dtype is None or (isinstance(dtype, str) and dtype == "auto")
    if own is None:
        return (
            torch.float32
            if isinstance(executor, Native) and dtype is not None and unsaid
            else dtype
        )
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
