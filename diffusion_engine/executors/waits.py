"""Finds the operations of torch that wait for the device, which a captured graph may not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their results, or the shapes of these, are known only once the device has computed them.
READ_BACK = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique", "_unique2",
    "unique_consecutive", "unique_dim", "bincount", "histogram",
}  # fmt: skip
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Unrecordable(RuntimeError):
    """Work that cannot be recorded; the message says what it did."""


class _Waits(TorchDispatchMode):
    """Raises at an operation that waits; of this thread alone, unlike torch.cuda's sync debug mode."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        out = func(*args, **(kwargs or {}))
        if name in READ_BACK or (name in MASKED and _masks(args)) or _leaves_the_device(args, out):
            raise Unrecordable(f"it called {func}, which waits for the device")
        return out


def refuse_waits(body: Callable[[], object]) -> None:
    """Does the work. Raises Unrecordable at the first operation that waits for the device."""
    with _Waits():
        body()


def _masks(args: Any) -> bool:
    """Whether an index is a mask: how many elements it picks is then read back."""
    kinds = (torch.bool, torch.uint8)
    return any(isinstance(t, Tensor) and t.dtype in kinds for t in tree_leaves(args[1]))


def _leaves_the_device(args: Any, out: Any) -> bool:
    """Whether something was copied to the host, or from it by a pageable copy."""
    found = {t.device.type for t in tree_leaves((args, out)) if isinstance(t, Tensor) and t.ndim}
    return len(found) > 1
