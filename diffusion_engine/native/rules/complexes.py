"""Complex numbers, as rotary embeddings have them: pairs of floats in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..operations import Copy
from ..values import Value, contiguous
from .elementwise import mapped, rule


def multiply(low: Any, given: Any, target: Any) -> Any:
    """Of floats as of other functions; of two complex tensors, one of which may be a constant, by parts."""
    a, b = given.self, given.other
    if a.dtype != torch.complex64:
        return rule(low, given, target)
    if not all(isinstance(t, (Value, Tensor)) and t.dtype == torch.complex64 for t in (a, b)):
        return NotImplemented
    (a_real, a_imaginary), (b_real, b_imaginary) = _parts(a), _parts(b)
    one = ("multiply", ("input", 0), ("input", 1))
    other = ("multiply", ("input", 2), ("input", 3))
    real = mapped(low, ("subtract", one, other), [a_real, b_real, a_imaginary, b_imaginary])
    imaginary = mapped(low, ("add", one, other), [a_real, b_imaginary, a_imaginary, b_real])
    shape = (*real.shape, 2)
    out = Value.new(shape, contiguous(shape))
    for i, part in enumerate((real, imaginary)):
        low.emit(Copy(out.view(out.meta.select(-1, i)), part))
    return out.view(torch.view_as_complex(out.meta))


def _parts(given: Value | Tensor) -> list[Any]:
    """Real and imaginary part."""
    if isinstance(given, Value):
        pairs = torch.view_as_real(given.meta)
        return [given.view(pairs.select(-1, i)) for i in range(2)]
    return list(torch.view_as_real(given.resolve_conj()).unbind(-1))
