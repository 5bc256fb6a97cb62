"""The kernels of `group_norm` in Triton; group_norm.py says how they cover a map, and launches them."""

import triton
import triton.language as tl


@triton.jit
def _values(
    x_ptr, residual_ptr, b, c, px, valid, x_batch, x_channel, x_pixel, r_batch, r_channel, r_pixel
):
    """x + residual of a tile, 0 where it has no element."""
    h = tl.load(x_ptr + b * x_batch + c * x_channel + px * x_pixel, mask=valid, other=0.0).to(
        tl.float32
    )
    if residual_ptr is not None:
        at = residual_ptr + b * r_batch + c * r_channel + px * r_pixel
        h += tl.load(at, mask=valid, other=0.0).to(tl.float32)
    return h


@triton.jit
def _finish(h, distance, rstd, b, c, px, inside, valid, out_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr,
            summed_ptr, out_batch, out_channel, out_pixel, sum_batch, sum_channel, sum_pixel,
            weight_stride, bias_stride, scale_batch, scale_channel, shift_batch, shift_channel,
            SILU: tl.constexpr):  # fmt: skip
    """Writes a tile's result; c and rstd are columns, `inside` says which c there are, and distance is
    that from the mean."""
    if summed_ptr is not None:
        at = summed_ptr + b * sum_batch + c * sum_channel + px * sum_pixel
        tl.store(at, h.to(summed_ptr.dtype.element_ty), mask=valid)
    factor, offset = rstd + tl.zeros_like(c).to(tl.float32), tl.zeros_like(c).to(tl.float32)
    if weight_ptr is not None:
        factor *= tl.load(weight_ptr + c * weight_stride, mask=inside, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        offset += tl.load(bias_ptr + c * bias_stride, mask=inside, other=0.0).to(tl.float32)
    if scale_ptr is not None:
        at = scale_ptr + b * scale_batch + c * scale_channel
        more = 1.0 + tl.load(at, mask=inside, other=0.0).to(tl.float32)
        factor, offset = factor * more, offset * more
    if shift_ptr is not None:
        at = shift_ptr + b * shift_batch + c * shift_channel
        offset += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y = distance * factor + offset
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    at = out_ptr + b * out_batch + c * out_channel + px * out_pixel
    tl.store(at, y.to(out_ptr.dtype.element_ty), mask=valid)


@triton.jit
def _group(x_ptr, out_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, residual_ptr, summed_ptr,
           groups, size, pixels, eps, x_batch, x_channel, x_pixel, out_batch, out_channel, out_pixel,
           r_batch, r_channel, r_pixel, sum_batch, sum_channel, sum_pixel, weight_stride, bias_stride,
           scale_batch, scale_channel, shift_batch, shift_channel,
           SILU: tl.constexpr, C: tl.constexpr, P: tl.constexpr):  # fmt: skip
    """A whole group of `size` channels in one program."""
    b, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    inner = tl.arange(0, C)[:, None]
    c, px = (group * size + inner).to(tl.int64), tl.arange(0, P)[None, :].to(tl.int64)
    inside = inner < size
    valid = inside & (px < pixels)
    h = _values(
        x_ptr,
        residual_ptr,
        b,
        c,
        px,
        valid,
        x_batch,
        x_channel,
        x_pixel,
        r_batch,
        r_channel,
        r_pixel,
    )
    count = size * pixels
    mean = tl.sum(tl.sum(h, axis=1), axis=0) / count
    distance = tl.where(valid, h - mean, 0.0)
    # What rounding left of the mean, which has the values' size, is of the deviations' size.
    distance -= tl.sum(tl.sum(distance, axis=1), axis=0) / count
    distance = tl.where(valid, distance, 0.0)
    variance = tl.sum(tl.sum(distance * distance, axis=1), axis=0) / count
    rstd = 1.0 / tl.sqrt(variance + eps)
    _finish(h, distance, rstd, b, c, px, inside, valid, out_ptr, weight_ptr, bias_ptr, scale_ptr,
            shift_ptr, summed_ptr, out_batch, out_channel, out_pixel, sum_batch, sum_channel,
            sum_pixel, weight_stride, bias_stride, scale_batch, scale_channel, shift_batch,
            shift_channel, SILU)  # fmt: skip


@triton.jit
def _moments(x_ptr, residual_ptr, parts_ptr, channels, pixels, parts, x_batch, x_channel, x_pixel,
             r_batch, r_channel, r_pixel,
             C: tl.constexpr, P: tl.constexpr, TILES: tl.constexpr):  # fmt: skip
    """Of C channels over TILES tiles of P pixels: means and squared deviations to parts[b, 2, c, part]."""
    part, across = tl.program_id(0) % parts, tl.program_id(0) // parts
    blocks = tl.cdiv(channels, C)
    b = (across // blocks).to(tl.int64)
    c = ((across % blocks) * C + tl.arange(0, C)).to(tl.int64)
    inside = c < channels
    first = part * (P * TILES)
    mean, m2 = tl.zeros([C], tl.float32), tl.zeros([C], tl.float32)
    count = tl.full([], 0.0, tl.float32)
    for i in range(TILES):
        px = (first + i * P + tl.arange(0, P)).to(tl.int64)
        valid = inside[:, None] & (px < pixels)[None, :]
        n = tl.minimum(tl.maximum(pixels - first - i * P, 0), P).to(tl.float32)
        h = _values(x_ptr, residual_ptr, b, c[:, None], px[None, :], valid,
                    x_batch, x_channel, x_pixel, r_batch, r_channel, r_pixel)  # fmt: skip
        own = tl.sum(h, axis=1) / tl.maximum(n, 1.0)
        distance = tl.where(valid, h - own[:, None], 0.0)
        total, delta = tl.maximum(count + n, 1.0), own - mean
        mean += delta * (n / total)  # Chan, Golub and LeVeque 1979, equation 2.1
        m2 += tl.sum(distance * distance, axis=1) + delta * delta * (count * n / total)
        count += n
    tl.store(parts_ptr + (b * 2 * channels + c) * parts + part, mean, mask=inside)
    tl.store(parts_ptr + ((b * 2 + 1) * channels + c) * parts + part, m2, mask=inside)


@triton.jit
def _merge(parts_ptr, groups_ptr, groups, size, pixels, parts, span, eps,
           C: tl.constexpr, Q: tl.constexpr):  # fmt: skip
    """The parts of a group's channels, `span` pixels each, to its mean and 1 / deviation."""
    b, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    inner = tl.arange(0, C)[:, None]
    means = parts_ptr + ((b * 2 * groups + group) * size + inner) * parts
    squares = parts_ptr + (((b * 2 + 1) * groups + group) * size + inner) * parts
    mean, m2 = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
    count = tl.full([], 0.0, tl.float32)
    for first in range(0, parts, Q):
        part = first + tl.arange(0, Q)[None, :]
        valid = (inner < size) & (part < parts)
        n = tl.where(valid, tl.minimum(pixels - part * span, span), 0).to(tl.float32)
        own = tl.load(means + part, mask=valid, other=0.0)
        within = tl.load(squares + part, mask=valid, other=0.0)
        more = tl.sum(tl.sum(n, axis=1), axis=0)
        # A sum of means of the values' size loses digits; one of distances from a part's does not.
        pivot = tl.load(parts_ptr + (b * 2 * groups + group) * size * parts)
        middle = pivot + tl.sum(tl.sum(n * (own - pivot), axis=1), axis=0) / more
        distance = tl.where(valid, own - middle, 0.0)
        between = tl.sum(tl.sum(within + n * distance * distance, axis=1), axis=0)
        total, delta = count + more, middle - mean
        mean += delta * (more / total)  # Chan, Golub and LeVeque 1979, equation 2.1
        m2 += between + delta * delta * (count * more / total)
        count = total
    at = groups_ptr + (b * groups + group) * 2
    tl.store(at, mean)
    tl.store(at + 1, 1.0 / tl.sqrt(m2 / count + eps))


@triton.jit
def _apply(x_ptr, out_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, residual_ptr, summed_ptr, groups_ptr,
           groups, size, pixels, tiles, x_batch, x_channel, x_pixel, out_batch, out_channel, out_pixel,
           r_batch, r_channel, r_pixel, sum_batch, sum_channel, sum_pixel, weight_stride, bias_stride,
           scale_batch, scale_channel, shift_batch, shift_channel,
           SILU: tl.constexpr, C: tl.constexpr, P: tl.constexpr):  # fmt: skip
    """One tile of the result from the groups' moments."""
    tile, across = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    channels = groups * size
    blocks = tl.cdiv(channels, C)
    b = (across // blocks).to(tl.int64)
    c = ((across % blocks) * C + tl.arange(0, C)).to(tl.int64)[:, None]
    px = (tile * P + tl.arange(0, P)).to(tl.int64)[None, :]
    inside = c < channels
    valid = inside & (px < pixels)
    at = groups_ptr + (b * groups + c // size) * 2
    mean, rstd = tl.load(at, mask=inside, other=0.0), tl.load(at + 1, mask=inside, other=0.0)
    h = _values(
        x_ptr,
        residual_ptr,
        b,
        c,
        px,
        valid,
        x_batch,
        x_channel,
        x_pixel,
        r_batch,
        r_channel,
        r_pixel,
    )
    _finish(h, h - mean, rstd, b, c, px, inside, valid, out_ptr, weight_ptr, bias_ptr, scale_ptr,
            shift_ptr, summed_ptr, out_batch, out_channel, out_pixel, sum_batch, sum_channel,
            sum_pixel, weight_stride, bias_stride, scale_batch, scale_channel, shift_batch,
            shift_channel, SILU)  # fmt: skip
