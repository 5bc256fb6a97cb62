"""`Replacement`: a fused form in place of a module's forward; the module's type, name and parameters stay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


class Replacement:
    """A fused form of one module of a network, whose forward it replaces while it is installed.

    name    of the module in the network, "" for the network itself
    module  the module
    kind    what runs in its place, for the report
    """

    kind = ""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module

    def covers(self) -> Iterable[nn.Module]:
        """The modules whose own call is skipped, so that their hooks would be."""
        return ()

    def objection(self) -> str | None:
        """Why the module cannot be replaced, or None."""
        if "forward" in vars(self.module):
            return "its forward was replaced before; undo that first"
        if nn.utils.parametrize.is_parametrized(self.module):
            return "it is parametrized; torch.nn.utils.parametrize.remove_parametrizations it first"
        for covered in self.covers():
            if has_hooks(covered):
                return (
                    f"a hook on its {type(covered).__name__} would not be called; remove the hook"
                )
            if nn.utils.parametrize.is_parametrized(covered):
                return f"its {type(covered).__name__} is parametrized; remove the parametrization"
        return None

    def original(self, *args: Any, **kwargs: Any) -> Any:
        return type(self.module).forward(self.module, *args, **kwargs)

    def expected(self, result: Any) -> Any:
        """What `forward` returns where the module's own returned `result`."""
        return result

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def install(self) -> None:
        self.module.forward = self.forward  # type: ignore[method-assign]

    def remove(self) -> None:
        vars(self.module).pop("forward", None)


def has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def wants_original(module: nn.Module, x: Tensor, *others: Tensor | None) -> bool:
    """Whether a call on these tensors needs what the fused forms lack: derivatives, of them or of the
    module's parameters, autocast, dropout."""
    return (
        module.training
        or (torch.is_grad_enabled() and _derivatives(module, (x, *others)))
        or forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.is_autocast_enabled(x.device.type)
    )


def _derivatives(module: nn.Module, given: Iterable[Tensor | None]) -> bool:
    wanted = any(t.requires_grad for t in given if t is not None)
    return wanted or any(p.requires_grad for p in module.parameters())
