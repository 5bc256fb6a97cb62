"""How a user's module runs: on which device, in which dtype, and in eval mode."""

from __future__ import annotations

import copy
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import nn

from .. import checks
from ..backends import machine
from .network import ScoreNetwork

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
AUTO = "auto"


def place(
    module: Any, dtype: torch.dtype | str | None, device: torch.device | str | None
) -> tuple[torch.dtype, torch.device]:
    """The dtype that a module is to compute in and its device: its own, unless told others.

    dtype  "auto": on a CPU bfloat16 where that is multiplied in tiles (AMX), else float32; elsewhere, and of
           what no copy can be cast, as None
    """
    where = device_of(module, device)
    if isinstance(dtype, str) and dtype == AUTO:
        dtype = None
        if where.type == "cpu" and first_weight(module) is not None and casting(module) is None:
            dtype = torch.bfloat16 if machine.bf16().kind == machine.TILES else torch.float32
    return compute_dtype(module) if dtype is None else _dtype(dtype), where


def device_of(module: Any, device: torch.device | str | None) -> torch.device:
    """The device of a module: its own, unless told another. Raises ValueError where it has no values."""
    weights = first_weight(module)
    if weights is not None and weights.is_meta:
        raise ValueError(
            "the network's weights are on the device 'meta', which holds no values: give them some with "
            "module.to_empty(device='cpu') and load_state_dict"
        )
    if device is not None:
        return _device(device)
    return torch.device("cpu") if weights is None else weights.device


def named_dtype(name: str | None) -> torch.dtype | str | None:
    """A dtype by its name, as place takes it: "auto" and None stay. Raises ValueError where it is none."""
    return name if name is None or name == AUTO else _dtype(name)


def moved(network: ScoreNetwork, dtype: torch.dtype, device: torch.device) -> ScoreNetwork:
    """The network on a device and in a dtype; a changed module is a copy.

    Raises ValueError where no copy of the module would compute so.
    """
    module, weights = network.module, first_weight(network.module)
    if not isinstance(module, nn.Module) or weights is None:
        return network
    stays = _stays(module, dtype)
    if stays and weights.device == device:
        return network
    if (cast := casting(module)) is not None:
        raise ValueError(
            f"hooks cast this module's layers to {cast}, which no copy takes along: leave dtype and device "
            "out, and move the module or change its layerwise casting yourself"
        )
    made = copy.deepcopy(module).to(device)
    return network.with_module(made if stays else made.to(dtype))


def moved_bytes(network: ScoreNetwork, dtype: torch.dtype, device: torch.device) -> int:
    """What the copy that `moved` makes takes, 0 where it makes none."""
    module, weights = network.module, first_weight(network.module)
    if not isinstance(module, nn.Module) or weights is None:
        return 0
    stays = _stays(module, dtype)
    if stays and weights.device == device:
        return 0
    sizes = (
        t.numel() * (dtype.itemsize if t.is_floating_point() and not stays else t.element_size())
        for t in (*module.parameters(), *module.buffers())
    )
    return sum(sizes)


def _stays(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether weights stay as they are stored: also those in fewer bits, which their layers know to read."""
    return compute_dtype(module, dtype) == dtype or (casting(module) is None and narrow(module))


def first_weight(module: Any) -> torch.Tensor | None:
    """Of a torch.nn.Module; None where there is none."""
    return next(module.parameters(), None) if isinstance(module, nn.Module) else None


def narrow(module: nn.Module) -> bool:
    """Whether some weights are stored in fewer bits than any network computes in."""
    return any(p.dtype not in DTYPES for p in module.parameters())


def casting(module: Any) -> torch.dtype | None:
    """What hooks of diffusers' enable_layerwise_casting cast to before a layer computes."""
    for part in module.modules() if isinstance(module, nn.Module) else ():
        registry = getattr(part, "_diffusers_hook", None)
        for hook in getattr(registry, "hooks", {}).values():
            if isinstance(dtype := getattr(hook, "compute_dtype", None), torch.dtype):
                return dtype
    return None


def compute_dtype(module: Any, given: torch.dtype | None = None) -> torch.dtype:
    """What a module computes in, which its weights may not be stored in: that of its layerwise casting, or
    of its first weight of 16 bits or more. Of another callable, float32.

    given  the answer where all weights are stored in fewer bits
    Raises ValueError where nothing says it.
    """
    if (cast := casting(module)) is not None:
        return cast
    stored = [p.dtype for p in module.parameters()] if isinstance(module, nn.Module) else []
    computing = next((dtype for dtype in stored if dtype in DTYPES), given)
    if stored and computing is None:
        raise ValueError(
            f"all weights of the network are stored as {stored[0]}, which nothing computes in: say dtype=, "
            "that of its input, such as torch.bfloat16"
        )
    return computing or torch.float32


def _dtype(given: Any) -> torch.dtype:
    """One a network can compute in, or the name of one."""
    known = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
    found = known.get(given.removeprefix("torch.")) if isinstance(given, str) else given
    if found not in DTYPES:
        *others, last = known
        raise ValueError(
            f"dtype={checks.said(given)}: a network computes in {', '.join(others)} or {last}; or say 'auto'"
        )
    return found


def _device(given: Any) -> torch.device:
    """One that torch can use here."""
    try:
        place = torch.device(given)
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", torch.cuda.current_device())
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = textwrap.shorten(str(error), 80, placeholder=" ...")
        raise ValueError(
            f"device={checks.said(given)} cannot be used here ({reason}); give 'cpu', or a GPU of this "
            "machine as 'cuda' or 'cuda:0'"
        ) from error
    return place


_lock = RLock()  # in the midst of it garbage may be collected that has a module in eval mode
_woken: Counter[nn.Module] = Counter()  # modules put into eval mode, and by how many runs


@contextmanager
def evaluating(*modules: Any) -> Iterator[None]:
    """Modules that were left in training mode are in eval mode meanwhile, until the last thread is done;
    parts in training mode of one that is not stay so."""
    mine: list[nn.Module] = []
    with _lock:
        for module in modules:
            if isinstance(module, nn.Module) and (module.training or _woken):
                whole = module.training or module in _woken
                mine += [p for p in module.modules() if p in _woken or (whole and p.training)]
        _woken.update(mine)
        for part in mine:
            vars(part)["training"] = (
                False  # as Module.__setattr__ would, which looks for tensors first
            )
    try:
        yield
    finally:
        with _lock:
            for part in mine:
                _woken[part] -= 1
                if not _woken[part]:
                    del _woken[part]
                    vars(part)["training"] = True
