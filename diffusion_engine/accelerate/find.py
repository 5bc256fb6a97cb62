"""Finds what can be replaced in a network: by the classes of its modules, and by watching one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .attention import FusedMultiheadAttention
from .conv3x3 import fused_conv
from .diffusers import CLASSES
from .group_norm import FusedGroupNorm, FusedSiLU
from .replacement import Replacement


class Watch(TorchFunctionMode):
    """Records one call of a network: which modules ran, and what read the results of its norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[nn.Module] = []
        self.runs: dict[nn.Module, int] = defaultdict(int)
        self.silus: dict[nn.Module, list[nn.Module | None]] = defaultdict(list)
        self.readers: dict[nn.Module, list[Any]] = defaultdict(list)
        self.results: list[tuple[Tensor, nn.Module]] = []  # kept, so that no id is reused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._note(func, args, kwargs)
        out = func(*args, **kwargs)
        if func is F.group_norm and isinstance(norm := self._inside(), nn.GroupNorm):
            self.results.append((out, norm))
        return out

    def _inside(self) -> nn.Module | None:
        """The module whose forward is running."""
        return self.stack[-1] if self.stack else None

    def _note(self, func: Any, args: Any, kwargs: Any) -> None:
        read = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        read += [
            t for a in args if isinstance(a, (list, tuple)) for t in a if isinstance(t, Tensor)
        ]
        inside = self._inside()
        silu = inside if func is F.silu and isinstance(inside, nn.SiLU) else None
        for result, norm in self.results:
            if any(t is result for t in read):
                self.readers[norm].append(silu)
        if silu is not None:
            norms = [norm for result, norm in self.results if args[0] is result]
            self.silus[silu].append(norms[0] if norms else None)

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        def enter(module: nn.Module, args: Any) -> None:
            self.stack.append(module)
            self.runs[module] += 1

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            self.stack.pop()

        # On the network's own modules: those that other threads call meanwhile are none of its.
        own = [m for m in network.modules() if not isinstance(m, torch.jit.ScriptModule)]
        hooks = [m.register_forward_pre_hook(enter, prepend=True) for m in own]
        hooks += [m.register_forward_hook(leave, prepend=True, always_call=True) for m in own]
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def silu_of(self, norm: nn.Module) -> nn.Module | None:
        """The SiLU module that alone reads the norm's results and reads nothing else."""
        readers = self.readers[norm]
        if len(readers) != self.runs[norm] or len(set(readers)) != 1 or readers[0] is None:
            return None
        silu = readers[0]
        return silu if all(source is norm for source in self.silus[silu]) else None


def by_class(name: str, module: nn.Module) -> Replacement | None:
    """The replacement of a module, or None where its class has none."""
    kind: Callable[[str, Any], Replacement] | None = None
    where = f"{type(module).__module__}.{type(module).__name__}"
    if where in CLASSES:
        kind = CLASSES[where]
    elif type(module).forward is nn.GroupNorm.forward:
        kind = FusedGroupNorm
    elif type(module).forward is nn.Conv2d.forward:
        kind = fused_conv
    elif type(module).forward is nn.MultiheadAttention.forward:
        kind = FusedMultiheadAttention
    return None if kind is None else kind(name, module)


def find(network: nn.Module, watch: Watch) -> tuple[list[Replacement], dict[str, tuple[str, str]]]:
    """The replacements in a network that was watched, outer ones first, and {name: (kind, objection)} of
    those that are not possible."""
    names = {module: name for name, module in network.named_modules()}
    found: list[Replacement] = []
    refused: dict[str, tuple[str, str]] = {}
    for module, name in names.items():
        if (replacement := by_class(name, module)) is None:
            continue
        if isinstance(replacement, FusedGroupNorm):
            _pair(replacement, watch, names)
        objection = replacement.objection()
        if objection is None and not watch.runs[module]:
            objection = "the example does not reach it"
        if objection is None:
            found.append(replacement)
        else:
            refused[name] = (replacement.kind, objection)
    inside = _norms_inside(found)
    return [one for one in found if one.module not in inside], refused


def _pair(norm: FusedGroupNorm, watch: Watch, names: dict[nn.Module, str]) -> None:
    silu = watch.silu_of(norm.module)
    if silu is None or silu not in names:
        return
    norm.silu = FusedSiLU(names[silu], silu)
    if norm.objection() is not None or norm.silu.objection() is not None:
        norm.silu = None  # the norm alone


def _norms_inside(found: list[Replacement]) -> set[nn.Module]:
    """The norms that larger replacements compute."""
    larger = [one for one in found if not isinstance(one, FusedGroupNorm)]
    return {m for one in larger for m in one.covers() if isinstance(m, nn.GroupNorm)}
