"""Finds the places of a network: by the classes of its modules, and by watching one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .conv3x3 import conv_site
from .diffusers import CLASSES
from .functional import FunctionalSite, plain_attention
from .layers import GroupNormSite, MultiheadAttentionSite, SiluSite
from .replacement import Site

# A functional site costs some 2 us for every call of a torch function inside it.
CALLS_PER_PLACE = 60


class Watch(TorchFunctionMode):
    """Records one call of a network: which modules ran, and what read the results of its norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[nn.Module] = []
        self.runs: dict[nn.Module, int] = defaultdict(int)
        self.calls: dict[nn.Module, int] = defaultdict(int)  # of torch functions, children's too
        self.places: dict[nn.Module, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.norms_of: dict[nn.Module, set[nn.Module]] = defaultdict(set)
        self.silus: dict[nn.Module, list[nn.Module | None]] = defaultdict(list)
        self.readers: dict[nn.Module, list[Any]] = defaultdict(list)
        self.results: list[tuple[Tensor, nn.Module | None]] = []  # kept, so that no id is reused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._note(func, args, kwargs)
        out = func(*args, **kwargs)
        if func is F.group_norm:
            inside = self.stack[-1] if self.stack else None
            self.results.append((out, inside if isinstance(inside, nn.GroupNorm) else None))
        return out

    def _note(self, func: Any, args: Any, kwargs: Any) -> None:
        for module in self.stack:
            self.calls[module] += 1
        read = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        read += [
            t for a in args if isinstance(a, (list, tuple)) for t in a if isinstance(t, Tensor)
        ]
        for result, norm in self.results:
            if any(t is result for t in read):
                silu = self.stack[-1] if func is F.silu and self.stack else None
                if norm is not None:
                    self.readers[norm].append(silu if isinstance(silu, nn.SiLU) else None)
                if func in (F.silu, torch.addcmul) and not isinstance(silu, nn.SiLU):
                    self.places[self.stack[-1]]["group_norm + SiLU"] += 1
                    self.norms_of[self.stack[-1]] |= set() if norm is None else {norm}
        if func is F.silu and self.stack and isinstance(self.stack[-1], nn.SiLU):
            norms = [norm for result, norm in self.results if args[0] is result]
            self.silus[self.stack[-1]].append(norms[0] if norms else None)
        attends = func is F.scaled_dot_product_attention and plain_attention(*args, **kwargs)
        if attends and self.stack:
            self.places[self.stack[-1]]["attention"] += 1

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


def by_class(name: str, module: nn.Module) -> Site | None:
    kind: Callable[[str, Any], Site] | None = None
    where = f"{type(module).__module__}.{type(module).__name__}"
    if where in CLASSES:
        kind = CLASSES[where]
    elif type(module).forward is nn.GroupNorm.forward:
        kind = GroupNormSite
    elif type(module).forward is nn.Conv2d.forward:
        kind = conv_site
    elif type(module).forward is nn.MultiheadAttention.forward:
        kind = MultiheadAttentionSite
    return None if kind is None else kind(name, module)


def find(network: nn.Module, watch: Watch) -> tuple[list[Site], dict[str, tuple[str, str]]]:
    """The sites of a network that was watched, outer ones first, and {name: (kind, reason)} of those
    refused."""
    names = {module: name for name, module in network.named_modules()}
    sites: list[Site] = []
    refused: dict[str, tuple[str, str]] = {}

    def offer(site: Site) -> None:
        reason = site.objection()
        if reason is None and not watch.runs[site.module]:
            reason = "the example does not reach it"
        if reason is None:
            sites.append(site)
        else:
            refused[site.name] = (site.kind, reason)

    for module, name in names.items():
        if (site := by_class(name, module)) is not None:
            if isinstance(site, GroupNormSite):
                _pair(site, watch, names)
            offer(site)
    taken = {site.module for site in sites}
    for module, places in watch.places.items():
        cheap = watch.calls[module] <= CALLS_PER_PLACE * sum(places.values())
        if cheap and module not in taken and names.get(module):
            offer(FunctionalSite(names[module], module, places))
    return [site for site in sites if site.module not in _inside(sites, watch)], refused


def _pair(site: GroupNormSite, watch: Watch, names: dict[nn.Module, str]) -> None:
    silu = watch.silu_of(site.module)
    if silu is None or silu not in names:
        return
    site.silu = SiluSite(names[silu], silu)
    if site.objection() is not None or site.silu.objection() is not None:
        site.silu = None  # the norm alone


def _inside(sites: list[Site], watch: Watch) -> set[nn.Module]:
    """The norms that a larger site computes."""
    found: set[nn.Module] = set()
    for site in sites:
        if isinstance(site, FunctionalSite):
            found |= watch.norms_of[site.module]
        elif not isinstance(site, GroupNormSite):
            found |= {module for module in site.covers() if isinstance(module, nn.GroupNorm)}
    return found
