"""`Accelerated`: a network with fused ops in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..backends.checksum import checksums
from ..networks.contents import Contents
from .conv2d import FusedConv2d
from .form import Form
from .replacement import Replacement, has_hooks


class Accelerated:
    """A network with fused ops in it; `print` shows what was done.

    module        the network, changed in place
    replacements  what runs in the place of its modules' forwards
    refused       {name: (kind, objection)} of modules that were left alone
    errors        {name: difference of a replacement from the original, relative to the largest element}
    dropped       {candidate: why it was not timed}
    batch         samples of the example
    times         {candidate: seconds of a call of the example, the median}; empty where it was known which is
                  the fastest
    chosen        the candidate that stayed

    Threads may call the network, and `refresh`, at any time; not while one of them makes or restores it.
    """

    def __init__(
        self,
        module: nn.Module,
        replacements: list[Replacement],
        refused: dict[str, tuple[str, str]],
    ) -> None:
        self.module, self.replacements, self.refused = module, replacements, refused
        self.errors: dict[str, float] = {}
        self.dropped: dict[str, str] = {}
        self.batch = 1
        self.times: dict[str, float] = {}
        self.chosen = "original"
        self._channels_last = False
        self._inner: Callable[..., Any] | None = None
        self._strided: list[tuple[Tensor, tuple[int, ...]]] = []
        self._found = list(replacements)
        self._names = dict(module.named_modules())
        self._wired = _wired(module)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_wired": None}  # dicts of the modules, which a copy has others of

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward.

        Raises RuntimeError where the network was changed since and this cannot follow.
        """
        if self.module.training:
            raise RuntimeError(
                "the accelerated network is in training mode: call eval(), or restore() it before training"
            )
        if self._wired is None:
            self._wired = _wired(self.module)
        if not torch.compiler.is_compiling() and not self._wired.same():
            raise RuntimeError(
                f"{self._moved()} after accelerate(), whose fused forms were found without: restore(), "
                "then accelerate() again"
            )
        for replacement in self.replacements:
            for covered in replacement.covers():
                if has_hooks(covered):
                    raise RuntimeError(
                        f"a hook was put on a {type(covered).__name__} of {replacement.name!r} after "
                        "accelerate(), which would not call it: restore(), then accelerate() again"
                    )
        if self._channels_last:
            args = tuple(_channels_last(arg) for arg in args)
            kwargs = {name: _channels_last(arg) for name, arg in kwargs.items()}
        return self._forward(*args, **kwargs)

    def _moved(self) -> str:
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

    def _install(self, replacements: list[Replacement], channels_last: bool) -> None:
        self.replacements, self._channels_last = replacements, channels_last
        for replacement in replacements:
            replacement.install()
        # The network's own forward may be replaced too.
        self._inner = vars(self.module).get("forward")
        self.module.forward = self._entry
        if channels_last:
            self._restride()

    def _entry(self, *args: Any, **kwargs: Any) -> Any:
        return self(*args, **kwargs)

    def _restride(self) -> None:
        """Puts weights of convolutions that torch computes into the format of its inputs."""
        packed = {
            replacement.module
            for replacement in self.replacements
            if isinstance(replacement, FusedConv2d)
        }
        for module in self.module.modules():
            if isinstance(module, nn.Conv2d) and module not in packed:
                weight = module.weight
                self._strided.append((weight, weight.stride()))
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def restore(self) -> None:
        """Gives the network its own forwards and strides back. Not while a thread calls it."""
        vars(self.module).pop("forward", None)
        for replacement in self.replacements:
            replacement.remove()
        for weight, strides in self._strided:
            if weight.stride() != strides:
                weight.data = torch.empty_strided(
                    weight.shape, strides, dtype=weight.dtype, device=weight.device
                ).copy_(weight.data)
        self._strided = []

    def refresh(self) -> None:
        """Packs weights again that were changed, in whatever way.

        Checksums are compared, as a change through numpy or `.data` shows no other way.
        """
        packed = self._packed()
        sums = checksums(replacement.module.weight for replacement in packed)
        for replacement, total in zip(packed, sums, strict=True):
            replacement.refresh(total)

    def release(self) -> None:
        """Lets go of the packed weights; the next call packs them again."""
        for replacement in self._packed():
            replacement.packs = None

    @property
    def form(self) -> Form:
        """What stayed, as recipes and later processes know it."""
        return Form.of(self.chosen, self._found)

    @property
    def bytes(self) -> int:
        """Of the packed weights."""
        return sum(form.nbytes for held in self._packed() for form in held.packed.values())

    def _packed(self) -> list[FusedConv2d]:
        return [r for r in self.replacements if isinstance(r, FusedConv2d) and r.packed]

    def __str__(self) -> str:
        lines = [f"{'place':48} {'what':24} {'difference':>10}"]
        for replacement in self.replacements:
            name, error = replacement.name, self.errors[replacement.name]
            lines.append(f"{name or '(network)':48} {replacement.kind:24} {error:10.1e}")
        for name, (kind, objection) in self.refused.items():
            lines.append(f"{name or '(network)':48} {kind:24} left alone: {objection}")
        for name, reason in self.dropped.items():
            lines.append(f"{name:48} {'(whole network)':24} left out: {reason}")
        counts = Counter(replacement.kind for replacement in self.replacements)
        done = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing replaced"
        times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in self.times.items())
        why = f"One call of {self.batch}: {times}" if times else "Measured before"
        return "\n".join([*lines, f"{done}. {why}; runs {self.chosen!r}."])


def _wired(module: nn.Module) -> Contents:
    return Contents([vars(m)["_modules"] for m in module.modules()])


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value


def accelerated(module: nn.Module) -> Accelerated | None:
    """The handle of a module that is accelerated, None of another."""
    handle = getattr(vars(module).get("forward"), "__self__", None)
    return handle if isinstance(handle, Accelerated) else None
