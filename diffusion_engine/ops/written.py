"""What every op asks of the tensors that it writes."""

from __future__ import annotations

from torch import Tensor


def check_written(op: str, **tensors: Tensor | None) -> None:
    """Raises ValueError where elements of a tensor share memory, as those of an expanded one do."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if any(n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True)):
            raise ValueError(
                f"{op} writes {name}, whose elements share memory: shape {list(tensor.shape)}, strides "
                f"{list(tensor.stride())}; make it contiguous"
            )
