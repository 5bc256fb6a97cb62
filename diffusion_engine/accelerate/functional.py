"""The site of modules that call torch's functions themselves: F.silu after a norm, attention."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..ops.functional import group_norm
from .check import tensors
from .layers import attend, attends, normalizes
from .replacement import Site, wants_original


class Norm:
    """A group norm that has not been computed: what reads it first decides what is computed with it.

    The user's code holds `result`, whose memory is filled where something else than the functions
    below reads it.
    """

    def __init__(self, x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float,
                 scale: Tensor | None = None, shift: Tensor | None = None) -> None:  # fmt: skip
        self.given = (x, groups, weight, bias, eps)
        self.scale, self.shift = scale, shift

    def promise(self) -> Tensor:
        result = torch.empty_like(self.given[0])
        result._norm = self  # type: ignore[attr-defined]
        self.result = weakref.ref(result)
        return result

    def compute(self, silu: bool = False, out: Tensor | None = None) -> Tensor:
        return group_norm(*self.given, silu=silu, scale=self.scale, shift=self.shift, out=out)

    def keep(self) -> None:
        """Fills the memory of the promised result, if anyone still holds it."""
        result = self.result()
        if result is not None and promised(result) is self:
            del result._norm  # type: ignore[attr-defined]
            self.compute(out=result)

    def adapted(self, shift: Tensor, scale: Tensor) -> Norm | None:
        """addcmul(shift, norm, scale) of adaptive group norm, where both are one value a channel."""
        x = self.given[0]
        pixels = x.ndim - 2
        per_channel = (*x.shape[:2], *[1] * pixels)
        if self.scale is not None or shift.shape != per_channel or scale.shape != per_channel:
            return None
        return Norm(*self.given, scale=scale.flatten(1) - 1.0, shift=shift.flatten(1))


def promised(value: Any) -> Norm | None:
    return getattr(value, "_norm", None)


def _values(args: Iterable[Any]) -> Iterator[Any]:
    for arg in args:
        if isinstance(arg, (list, tuple)):
            yield from arg
        else:
            yield arg


class Fuse(TorchFunctionMode):
    """While it is entered, norm + (scale, shift +) SiLU and attention run by the fused ops."""

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[Norm] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.norms and (done := self._consume(func, args, kwargs)) is not None:
            return done
        if func is F.group_norm and (norm := _norm(*args, **kwargs)) is not None:
            self.norms.append(norm)
            return norm.promise()
        if func is F.scaled_dot_product_attention and plain_attention(*args, **kwargs):
            return _attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _consume(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """The result of a function of a promised norm; None where it has to be called."""
        if func is F.silu and (norm := promised(args[0])) is not None:
            if kwargs.get("inplace") or len(args) > 1:
                del args[0]._norm
                return norm.compute(silu=True, out=args[0])
            return norm.compute(silu=True)
        if func is torch.addcmul and len(args) == 3 and not kwargs:
            norm = promised(args[1])
            if norm is not None and (adapted := norm.adapted(args[0], args[2])) is not None:
                self.norms.append(adapted)
                return adapted.promise()
        for value in _values((*args, *kwargs.values())):
            if (norm := promised(value)) is not None:
                norm.keep()
        return None

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        norms, self.norms = self.norms, []
        for norm in norms:
            norm.keep()


def _norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
          eps: float = 1e-5) -> Norm | None:  # fmt: skip
    """The arguments have F.group_norm's names."""
    if not normalizes(input):
        return None
    return Norm(input, num_groups, weight, bias, eps)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                     dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
                     enable_gqa: bool = False) -> bool:  # fmt: skip
    """Whether an F.scaled_dot_product_attention of these is the op's function."""
    plain = attn_mask is None and dropout_p == 0.0 and not is_causal
    return plain and attends(query, key, value)


def _attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, scale: float | None = None,
            **others: Any) -> Tensor:  # fmt: skip
    return attend(query, key, value, scale)


class FunctionalSite(Site):
    """A module whose own forward calls the functions; its children keep their sites."""

    def __init__(self, name: str, module: nn.Module, kinds: Iterable[str] = ()) -> None:
        super().__init__(name, module)
        self.kind = "functional " + ", ".join(sorted(kinds))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = list(tensors([args, kwargs]))
        if torch.compiler.is_compiling() or not given or wants_original(self.module, *given):
            return self.original(*args, **kwargs)
        with Fuse():
            return self.original(*args, **kwargs)
