"""Tensors [B, C, *pixel] as kernels address them: a base, and one stride for samples, channels and pixels."""

from __future__ import annotations

from torch import Tensor


def strides(tensor: Tensor) -> tuple[int, int, int] | None:
    """Strides of [B, C, *pixel] with the pixels as one dimension; None where they are not one."""
    pixel = following = None
    for size, stride in zip(reversed(tensor.shape[2:]), reversed(tensor.stride()[2:]), strict=True):
        if size == 1:
            continue
        if pixel is None:
            pixel = stride
        elif stride != following:
            return None
        following = stride * size
    return tensor.stride(0), tensor.stride(1), 1 if pixel is None else pixel


def scattered(name: str, tensor: Tensor) -> str:
    """The objection to a tensor whose pixels are no single dimension."""
    return (
        f"the pixels of {name} have no single stride: shape {list(tensor.shape)}, "
        f"strides {list(tensor.stride())}; make it contiguous or channels last"
    )
