"""`accelerate`: finds the sites, checks them, measures, and keeps what is fastest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..backends.checksum import checksums
from ..executors.capture import first_line
from ..networks.contents import Contents
from ..ops.library import register
from .check import compared, difference, tensors
from .choose import Candidates, candidates, seconds
from .find import Watch, find
from .layers import Conv2dSite
from .replacement import Site, has_hooks


class Accelerated:
    """A network with fused ops in it; `print` shows what was done. Threads may call the network, and
    `refresh`, at any time; not while one of them makes or restores it.

    module   the network, changed in place
    sites    what was replaced
    refused  {name: (kind, reason)} of what was not
    errors   {name: difference of a site from the original, relative to the largest element}
    dropped  {candidate: why it was not timed}
    batch    samples of the example
    times    {candidate: seconds of a call of the example, the median}
    chosen   the candidate that stayed
    """

    def __init__(
        self, module: nn.Module, sites: list[Site], refused: dict[str, tuple[str, str]]
    ) -> None:
        self.module, self.sites, self.refused = module, sites, refused
        self.errors: dict[str, float] = {}
        self.dropped: dict[str, str] = {}
        self.batch = 1
        self.times: dict[str, float] = {}
        self.chosen = "original"
        self._channels_last = False
        self._inner: Callable[..., Any] | None = None
        self._strided: list[tuple[Tensor, tuple[int, ...]]] = []
        self._names = dict(module.named_modules())
        self._wired = _wired(module)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_wired": None}  # dicts of the modules, which a copy has others of

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward. Raises RuntimeError where it was changed since and this cannot follow."""
        if self.module.training:
            raise RuntimeError(
                "the accelerated network is in training mode: call eval(), or restore() it before training"
            )
        if self._wired is None:
            self._wired = _wired(self.module)
        if not torch.compiler.is_compiling() and not self._wired.same():
            raise RuntimeError(
                f"{self._replaced()} after accelerate(), whose fused forms were found without: restore(), "
                "then accelerate() again"
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

    def _replaced(self) -> str:
        """The first module that is not where it was."""
        now = dict(self.module.named_modules())
        for name in [*self._names, *now]:
            if name not in now:
                return f"{name!r} was taken out of the network"
            if now[name] is not self._names.get(name):
                return f"a {type(now[name]).__name__} was put at {name!r} of the network"
        return "modules of the network changed their order"

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._inner is not None:
            return self._inner(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

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
        """Takes over weights that were changed, in whatever way: those that are packed are compared by
        checksums. A change through numpy or `.data` shows no other way."""
        packed = [site for site in self.sites if isinstance(site, Conv2dSite) and site.packed]
        sums = checksums(site.module.weight for site in packed)
        for site, total in zip(packed, sums, strict=True):
            site.refresh(total)

    def __str__(self) -> str:
        lines = [f"{'place':48} {'what':24} {'difference':>10}"]
        for site in self.sites:
            lines.append(
                f"{site.name or '(network)':48} {site.kind:24} {self.errors[site.name]:10.1e}"
            )
        for name, (kind, reason) in self.refused.items():
            lines.append(f"{name or '(network)':48} {kind:24} left alone: {reason}")
        for name, reason in self.dropped.items():
            lines.append(f"{name:48} {'(whole network)':24} left out: {reason}")
        counts = Counter(site.kind for site in self.sites)
        done = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing replaced"
        times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in self.times.items())
        return "\n".join(
            [*lines, f"{done}. One call of {self.batch}: {times}; runs {self.chosen!r}."]
        )


def _wired(module: nn.Module) -> Contents:
    return Contents([vars(m)["_modules"] for m in module.modules()])


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
    return accelerate_as(module, None, args, kwargs)


def accelerate_as(
    module: nn.Module, before: Accelerated | None, args: tuple, kwargs: dict[str, Any]
) -> Accelerated:
    """`accelerate` with the candidate that was chosen before, where there is that one still."""
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
            _choose(handle, before, want, args, kwargs)
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
        if reason := found.objection(site):
            handle.refused[site.name] = (site.kind, reason)
        else:
            handle.sites.append(site)
            handle.errors[site.name] = found.differences[site][0]


def _choose(
    handle: Accelerated, before: Accelerated | None, want: Any, args: tuple, kwargs: dict[str, Any]
) -> None:
    """Times the network as it was and with each candidate, and leaves the fastest, or the one before."""
    everything, x = handle.sites, next(tensors([args, kwargs]))
    handle.batch = len(x) if x.ndim else 1
    chosen = None if before is None else before.chosen

    def call() -> Any:
        return handle.module(*args, **kwargs)

    found: Candidates = {"original": ([], False)} | candidates(everything, x.device)
    if chosen in found:
        found = {name: form for name, form in found.items() if name in ("original", chosen)}
    suited = {"original": found.pop("original")}
    for name, form in found.items():
        try:
            handle._install(*form)
            _agree(call(), want)  # weights are packed and forms chosen in this call
            suited[name] = form
        except Exception as error:  # of the network itself in channels_last, such as of a view
            handle.dropped[name] = first_line(error)
        finally:
            handle.restore()
    if handle.dropped and len(suited) == 1:
        raise ValueError(
            "; ".join(f"{name}: {reason}" for name, reason in handle.dropped.items())
            + ". The network is as it was before"
        )

    def prepare(name: str) -> Callable[[], Any]:
        if name != "original":
            handle._install(*suited[name])
        weights = [weight.data for weight, _ in handle._strided]

        def undo(kept: list[Tensor] = weights) -> None:  # by a graph of this form, which reads them
            handle.restore()

        return undo

    if before is not None and chosen in suited:
        handle.times, handle.chosen = before.times, before.chosen
    else:
        handle.times = seconds(suited, prepare, call, x.device)
        handle.chosen = min(handle.times, key=lambda name: handle.times[name])
    sites, channels_last = suited[handle.chosen]
    for site in everything:
        if site not in sites:
            handle.refused[site.name] = (site.kind, "the network is faster without")
    handle._install(sites, channels_last)


def _agree(got: Any, want: Any) -> None:
    error, allowed = difference(got, want)
    if not error <= 10 * allowed:
        raise ValueError(
            f"the fused network differs from the original by {error:.1e} of its largest output. Places "
            "agreed one by one, so their order may matter: report the network"
        )
