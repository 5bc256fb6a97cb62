"""Tensors [B, C, *pixel] as kernels address them: a base, and one stride for samples, channels and pixels."""

from __future__ import annotations

from collections.abc import Mapping

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


def layout_objection(
    images: Mapping[str, Tensor | None], small: Mapping[str, Tensor | None]
) -> str | None:
    """Why kernels cannot address images [B, C, *pixel] and small, contiguous tensors; or None."""
    for name, tensor in images.items():
        if tensor is not None and strides(tensor) is None:
            return scattered(name, tensor)
    for name, tensor in small.items():
        if tensor is not None and not tensor.is_contiguous():
            return f"{name} is not contiguous: strides {list(tensor.stride())}"
    return None


def dense(tensor: Tensor) -> bool:
    """Whether [B, C, *pixel] lies densely in (channel, pixel) order, so that the two are one axis."""
    found, pixels = strides(tensor), tensor.shape[2:].numel()
    if found is None:
        return False
    _, channel, pixel = found
    return (pixel == 1 or pixels == 1) and (channel == pixels or tensor.shape[1] == 1)


def axes(image: Tensor, merged: bool) -> tuple[int, int]:
    """Channels and pixels of [B, C, *pixel]; one channel where the two are merged to one axis."""
    channels, pixels = image.shape[1], image.shape[2:].numel()
    return (1, channels * pixels) if merged else (channels, pixels)
