"""Convolutions as those of pictures: signals, transposed ones, whose phases are plain ones, and volumes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import operations as ops
from ..values import Value, channels_last, contiguous
from .rows import layer, many, pair, rows


def any_of_them(low: Any, given: Any, target: Any) -> Any:
    """`convolution`, which any of them is where torch has taken layers apart."""
    if given.transposed:
        return transposed(low, given, target)
    rule = volume if len(given.input.shape) == 5 else convolution
    return rule(low, given, target)


def convolution(low: Any, given: Any, target: Any) -> Any:
    """Of signals and pictures, with zeros around; its weight is a constant."""
    x, weight, bias = given.input, given.weight, given.bias
    spatial = len(x.shape) - 2
    if not layer(x, weight, bias) or spatial not in (1, 2) or isinstance(given.padding, str):
        return NotImplemented
    lead = (1,) * (2 - spatial)
    stride, dilation = (pair(v, spatial, 1) for v in (given.stride, given.dilation))
    padding = pair(given.padding, spatial, 0)
    kernel = weight.reshape(*weight.shape[:2], *lead, *weight.shape[2:])
    size = (*lead, *x.shape[2:])
    out_size = _size(size, kernel.shape[2:], stride, padding, dilation)
    shape = (x.shape[0], weight.shape[0], *out_size[2 - spatial :])
    out = Value.new(shape, channels_last(shape))
    low.emit(
        ops.Conv(
            rows(low, out), rows(low, x), kernel, size, out_size, stride, padding, dilation, given.groups,
            epilogue=ops.Epilogue(bias),
        )
    )  # fmt: skip
    return out


def _size(size: Any, taps: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, ...]:
    """Of what a convolution makes."""
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, taps, stride, padding, dilation, strict=True)
    )


def transposed(low: Any, given: Any, target: Any) -> Any:
    """Each of stride x stride phases of the result is a convolution with every stride-th tap."""
    x, weight, bias = given.input, given.weight, given.bias
    spatial = len(x.shape) - 2
    if not layer(x, weight, bias) or spatial not in (1, 2):
        return NotImplemented
    if set(many(given.dilation, spatial)) != {1}:
        return NotImplemented
    lead, stride = (1,) * (2 - spatial), pair(given.stride, spatial, 1)
    padding, extra = (pair(v, spatial, 0) for v in (given.padding, given.output_padding))
    kernel = low.derived(
        f"transposed in {given.groups}", weight, lambda w: _turned(w, given.groups, lead)
    )
    size = (*lead, *x.shape[2:])
    taps = kernel.shape[2:]
    if any(k < s for k, s in zip(taps, stride, strict=True)):
        return NotImplemented
    out_size = [
        (n - 1) * s - 2 * p + k + e
        for n, s, p, k, e in zip(size, stride, padding, taps, extra, strict=True)
    ]
    shape = (x.shape[0], kernel.shape[0], *out_size[2 - spatial :])
    out, x_rows = Value.new(shape, channels_last(shape)), rows(low, x)
    picture = out.meta.unsqueeze(2) if spatial == 1 else out.meta
    for first in range(stride[0]):
        for second in range(stride[1]):
            axes = [
                _phase(r, s, p, k)
                for r, s, p, k in zip((first, second), stride, padding, taps, strict=True)
            ]
            part = picture[:, :, first :: stride[0], second :: stride[1]]
            if 0 in part.shape:
                continue
            _one_phase(low, out.view(part), x_rows, size, kernel, stride, axes, bias, given.groups)
    return out


def _turned(weight: Tensor, groups: int, lead: tuple[int, ...]) -> Tensor:
    """[in, out / groups, *taps] as [out, in / groups, kh, kw], the last tap first."""
    inside, outside, *taps = weight.shape
    made = weight.reshape(groups, inside // groups, outside, *lead, *taps).transpose(1, 2)
    return made.reshape(groups * outside, inside // groups, *lead, *taps).flip(2, 3).contiguous()


def _phase(phase: int, stride: int, padding: int, taps: int) -> tuple[slice, int]:
    """Of the turned taps those that the phase reads, and how many zeros are before its first pixel."""
    first = (phase + padding) % stride
    count = -(-(taps - first) // stride)
    last = taps - 1 - first  # of the turned taps the one that reads the nearest pixel
    return slice(last - (count - 1) * stride, last + 1, stride), count - 1 - (
        phase + padding - first
    ) // stride


def _one_phase(
    low: Any, part: Value, x: Value, size: Any, kernel: Tensor, stride: Any, axes: Any, bias: Any, groups: int
) -> None:  # fmt: skip
    (down, top), (across, left) = axes
    weight = low.derived(
        f"taps {down} {across}", kernel, lambda w: w[:, :, down, across].contiguous()
    )
    count = tuple(part.shape[2:])
    whole = (
        part.shape[1:] == part.meta.shape[1:] and part.strides[2] == part.strides[3] * part.shape[3]
    )
    target = part
    if not (whole or part.shape[2] == 1):
        target = Value.new(part.shape, channels_last(part.shape))
    # What a negative padding would skip is skipped in the picture.
    skip = [max(0, -n) for n in (top, left)]
    source, inner = x, tuple(size)
    if any(skip):
        picture = x.meta.unflatten(1, inner)[:, skip[0] :, skip[1] :]
        inner = tuple(picture.shape[1:3])
        source = x.view(picture)
        copy = Value.new(picture.shape, contiguous(picture.shape))
        low.emit(ops.Copy(copy, source))
        source = copy.view(copy.meta.flatten(1, 2))
    padding = (max(0, top), max(0, left))
    low.emit(
        ops.Conv(
            rows(low, target), source, weight, inner, count, (1, 1), padding, (1, 1), groups,
            epilogue=ops.Epilogue(bias),
        )
    )  # fmt: skip
    if target is not part:
        low.emit(ops.Copy(part, target))


def volume(low: Any, given: Any, target: Any) -> Any:
    """Of [B, C, T, H, W]: a convolution of pictures whose channels are those of all frames that it reads."""
    x, weight, bias = given.input, given.weight, given.bias
    if not layer(x, weight, bias) or isinstance(given.padding, str):
        return NotImplemented
    stride, padding, dilation = (many(v, 3) for v in (given.stride, given.padding, given.dilation))
    taps = weight.shape[2]
    if taps > 1 and given.groups > 1:
        return NotImplemented
    out_size = _size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    batch, frames = x.shape[0], out_size[0]
    plain = taps == 1 and padding[0] == 0 and stride[0] == 1
    source = x if plain else _frames(low, x, frames, taps, stride[0], padding[0], dilation[0])
    kernel = low.derived("frames", weight, lambda w: w.transpose(1, 2).flatten(1, 2).contiguous())
    shape = (batch, weight.shape[0], *out_size)
    out = Value.new(shape, channels_last(shape))
    low.emit(
        ops.Conv(
            _pictures(low, out), _pictures(low, source), kernel, tuple(x.shape[3:]), out_size[1:],
            stride[1:], padding[1:], dilation[1:], given.groups, epilogue=ops.Epilogue(bias),
        )
    )  # fmt: skip
    return out


def _frames(
    low: Any, x: Value, frames: int, taps: int, stride: int, padding: int, dilation: int
) -> Value:
    """[B, taps x C, frames, H, W]: beside each other what each frame of the result reads."""
    batch, channels, count, *size = x.shape
    if padding:
        shape = (batch, channels, count + 2 * padding, *size)
        wide = Value.new(shape, channels_last(shape))
        low.emit(ops.Pad(wide, x, (0, 0, padding, 0, 0)))
        x = wide
    shape = (batch, taps * channels, frames, *size)
    made = Value.new(shape, channels_last(shape))
    for tap in range(taps):
        at = tap * dilation
        read = x.meta[:, :, at : at + stride * (frames - 1) + 1 : stride]
        low.emit(ops.Copy(made.view(made.meta.narrow(1, tap * channels, channels)), x.view(read)))
    return made


def _pictures(low: Any, x: Value) -> Value:
    """[B, C, T, H, W] as [B x T, H x W, C]."""
    moved = x.meta.permute(0, 2, 3, 4, 1)
    if x.strides[1] == 1 or x.shape[1] == 1:
        try:
            return x.view(moved.view(-1, x.shape[3] * x.shape[4], x.shape[1]))
        except RuntimeError:
            pass
    return _pictures(low, low.copied(x, last=True))
