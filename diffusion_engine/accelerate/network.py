"""`accelerate`: finds the sites, checks them, measures, and keeps what is fastest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.library import register
from .check import compared, difference, tensors
from .find import Watch, find
from .functional import FunctionalSite
from .layers import Conv2dSite
from .site import Site, has_hooks

BUDGET = 3.0  # seconds of timing, at least one call of each candidate
ROUNDS = 15


class Accelerated:
    """A network with fused ops in it; `print` shows what was done. Threads may call the network, and
    `refresh`, at any time; not while one of them makes or restores it.

    module   the network, changed in place
    sites    what was replaced
    refused  {name: (kind, reason)} of what was not
    errors   {name: difference of a site from the original, relative to the largest element}
    times    {candidate: seconds of a call of the example, the median}
    chosen   the candidate that stayed
    """

    def __init__(
        self, module: nn.Module, sites: list[Site], refused: dict[str, tuple[str, str]]
    ) -> None:
        self.module, self.sites, self.refused = module, sites, refused
        self.errors: dict[str, float] = {}
        self.times: dict[str, float] = {}
        self.chosen = "original"
        self._channels_last = False
        self._inner: Callable[..., Any] | None = None
        self._strided: list[tuple[Tensor, tuple[int, ...]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward. Raises RuntimeError where it was changed since and this cannot follow."""
        if self.module.training:
            raise RuntimeError(
                "the accelerated network is in training mode: call eval(), or restore() it before training"
            )
        for site in self.sites:
            for covered in site.covers():
                if has_hooks(covered):
                    raise RuntimeError(
                        f"a hook was put on a {type(covered).__name__} of {site.name!r} after accelerate(), "
                        "which would not call it: restore(), then accelerate() again"
                    )
        if self._channels_last:
            args = tuple(_channels_last(arg) for arg in args)
            kwargs = {name: _channels_last(arg) for name, arg in kwargs.items()}
        return self._forward(*args, **kwargs)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        inner = self._inner or type(self.module).forward.__get__(self.module)
        return inner(*args, **kwargs)

    def _install(self, sites: list[Site], channels_last: bool) -> None:
        self.sites, self._channels_last = sites, channels_last
        for site in sites:
            site.install()
        # The network may be a site itself.
        self._inner = vars(self.module).get("forward")
        self.module.forward = self._entry
        if channels_last:
            self._restride()

    def _entry(self, *args: Any, **kwargs: Any) -> Any:
        return self(*args, **kwargs)

    def _restride(self) -> None:
        """Weights of convolutions that torch computes follow the format of its inputs."""
        packed = {site.module for site in self.sites if isinstance(site, Conv2dSite)}
        for module in self.module.modules():
            if isinstance(module, nn.Conv2d) and module not in packed:
                weight = module.weight
                self._strided.append((weight, weight.stride()))
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def restore(self) -> None:
        """Gives the network its own forwards and strides back. Not while a thread calls it."""
        vars(self.module).pop("forward", None)
        for site in self.sites:
            site.remove()
        for weight, strides in self._strided:
            if weight.stride() != strides:
                weight.data = torch.empty_strided(
                    weight.shape, strides, dtype=weight.dtype, device=weight.device
                ).copy_(weight.data)
        self._strided = []

    def refresh(self) -> None:
        """Takes over weights that were changed in place."""
        for site in self.sites:
            site.refresh()

    def __str__(self) -> str:
        lines = [f"{'place':48} {'what':24} {'difference':>10}"]
        for site in self.sites:
            lines.append(
                f"{site.name or '(network)':48} {site.kind:24} {self.errors[site.name]:10.1e}"
            )
        for name, (kind, reason) in self.refused.items():
            lines.append(f"{name or '(network)':48} {kind:24} left alone: {reason}")
        counts = Counter(site.kind for site in self.sites)
        done = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing replaced"
        times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in self.times.items())
        return "\n".join([*lines, f"{done}. One call: {times}; runs {self.chosen!r}."])


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value


def accelerated(module: nn.Module) -> Accelerated | None:
    """The handle of a network that is accelerated, None of another."""
    handle = getattr(vars(module).get("forward"), "__self__", None)
    return handle if isinstance(handle, Accelerated) else None


def accelerate(module: nn.Module, *args: Any, **kwargs: Any) -> Accelerated:
    """Replaces what has a fused form in a network, in place, and returns the handle.

    module        in eval mode, with its weights in place
    args, kwargs  an example call, of the shapes that matter: it decides which places are reached,
                  checks each against the original, and is what is timed

    On a CPU convolutions keep a packed form of their weights beside them: 1 to 4 times their memory.

    Raises ValueError where the network is in training mode or accelerated already, the example is
    missing, or the fused network as a whole differs from the original; the network is then as before.
    """
    _check(module, args, kwargs)
    register()
    with torch.no_grad():
        watch = Watch()
        with watch.watching(module):
            want = module(*args, **kwargs)
        handle = Accelerated(module, *find(module, watch))
        del watch
        _check_sites(handle, args, kwargs)
        try:
            _choose(handle, want, args, kwargs)
        except BaseException:
            handle.restore()
            raise
    return handle


def _check(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    if accelerated(module) is not None:
        raise ValueError("the network is accelerated already; restore() it to do so again")
    if not isinstance(module, nn.Module):
        raise ValueError(f"accelerate takes a torch.nn.Module, got {type(module).__name__}")
    if "forward" in vars(module):
        raise ValueError("the network's forward was replaced by another tool; undo that first")
    inner = [name for name, child in module.named_modules() if accelerated(child) is not None]
    if inner:
        raise ValueError(
            f"{inner[0]!r} inside the network is accelerated already; restore() that first"
        )
    if module.training:
        raise ValueError("the network is in training mode; call eval() first")
    if not any(True for _ in tensors([args, kwargs])):
        raise ValueError(
            "accelerate checks and times the network on an example: give it the arguments of a call, "
            "accelerate(module, x, label)"
        )


def _check_sites(handle: Accelerated, args: tuple, kwargs: dict[str, Any]) -> None:
    """Leaves the sites that agree with the original."""
    with compared(handle.sites) as found:
        handle.module(*args, **kwargs)
    sites, handle.sites = handle.sites, []
    for site in sites:
        if site not in found:
            handle.refused[site.name] = (site.kind, "only places around it call it")
        elif not found[site][0] <= found[site][1]:
            reason = f"differs from the original by {found[site][0]:.1e} of its largest element"
            handle.refused[site.name] = (site.kind, reason)
        else:
            handle.sites.append(site)
            handle.errors[site.name] = found[site][0]


def _candidates(sites: list[Site]) -> dict[str, tuple[list[Site], bool]]:
    """What to time: name -> (sites, channels_last). Functional sites cost Python time, so that small
    networks may be faster without them."""
    modules = [site for site in sites if not isinstance(site, FunctionalSite)]
    sets = {"fused": sites} if len(modules) == len(sites) else {"fused": sites, "modules": modules}
    found = {name: (chosen, False) for name, chosen in sets.items()}
    return found | {f"{name}, channels_last": (chosen, True) for name, chosen in sets.items()}


def _choose(handle: Accelerated, want: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """Times the network as it was and with each candidate, and leaves the fastest."""

    def call() -> Any:
        out = handle.module(*args, **kwargs)
        for device in {t.device for t in tensors(out) if t.device.type == "cuda"}:
            torch.cuda.synchronize(device)
        return out

    everything = handle.sites
    candidates = _candidates(everything)
    for chosen in candidates.values():
        handle._install(*chosen)
        _agree(call(), want)  # weights are packed and forms chosen in this call
        handle.restore()
    spent: dict[str, list[float]] = {name: [] for name in ("original", *candidates)}
    start = time.perf_counter()
    while not spent["original"] or (
        time.perf_counter() - start < BUDGET and len(spent["original"]) < ROUNDS
    ):
        for name, seconds in spent.items():
            if name != "original":
                handle._install(*candidates[name])
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
            handle.restore()
    handle.times = {name: median(seconds) for name, seconds in spent.items()}
    handle.chosen = min(handle.times, key=lambda name: handle.times[name])
    sites, channels_last = candidates.get(handle.chosen, ([], False))
    for site in everything:
        if site not in sites:
            handle.refused[site.name] = (site.kind, "the network is faster without")
    handle._install(sites, channels_last)


def _agree(got: Any, want: Any) -> None:
    error, allowed = difference(got, want)
    if not error <= 10 * allowed:
        raise ValueError(
            f"the fused network differs from the original by {error:.1e} of its largest output; "
            "it is as it was before. Places agreed one by one, so their order may matter: report the network"
        )
