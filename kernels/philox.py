"""Normals inside a Triton kernel: Philox4x32-10 and Box-Muller, with the bits of noise.py.

Kernels that use these helpers are compiled with enable_fp_fusion=False: each product and each sum
is rounded on its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..ops import philox as reference

MULTIPLIER_0 = tl.constexpr(reference.MULTIPLIER[0])
MULTIPLIER_1 = tl.constexpr(reference.MULTIPLIER[1])
WEYL_0 = tl.constexpr(reference.WEYL[0])
WEYL_1 = tl.constexpr(reference.WEYL[1])
ROUNDS = tl.constexpr(reference.ROUNDS)
SQRT_HALF = tl.constexpr(reference.SQRT_HALF)
LN2_LOW = tl.constexpr(reference.LN2_LOW)
LN2_HIGH = tl.constexpr(reference.LN2_HIGH)
TURN = tl.constexpr(reference.TURN)
LOG = tl.constexpr(reference.LOG)
SIN = tl.constexpr(reference.SIN)
COS = tl.constexpr(reference.COS)
EXP = tl.constexpr(reference.EXP)
WORD = tl.constexpr(2.0**-32)
HALF_WORD = tl.constexpr(2.0**-33)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of a counter and a key, all uint32; scalars and tensors may mix."""
    for i in tl.static_range(ROUNDS):
        if i > 0:
            k0 += WEYL_0
            k1 += WEYL_1
        high_0, low_0 = tl.umulhi(c0, MULTIPLIER_0), c0 * MULTIPLIER_0
        high_1, low_1 = tl.umulhi(c2, MULTIPLIER_1), c2 * MULTIPLIER_1
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
    return c0, c1, c2, c3


@triton.jit
def horner(x, COEFFICIENTS: tl.constexpr, COUNT: tl.constexpr):
    y = x * COEFFICIENTS[0] + COEFFICIENTS[1]
    for i in tl.static_range(2, COUNT):
        y = y * x + COEFFICIENTS[i]
    return y


@triton.jit
def log_uniform(word):
    """ln((word + 1/2) / 2^32), word uint32."""
    u = word.to(tl.float32) * WORD + HALF_WORD
    bits = u.to(tl.int32, bitcast=True) - SQRT_HALF
    exponent = (bits >> 23).to(tl.float32)
    x = ((bits & 0x7FFFFF) + SQRT_HALF).to(tl.float32, bitcast=True) - 1.0
    # Near 1 the float32 u has lost the digits of 1 - u; the integer still has them.
    complement = (word ^ 0xFFFFFFFF).to(tl.int32, bitcast=True).to(tl.float32) * -WORD - HALF_WORD
    x = tl.where(u >= 0.75, complement, x)
    z = x * x
    y = horner(x, LOG, 9) * x * z + exponent * LN2_LOW
    y = y - z * 0.5
    return (x + y) + exponent * LN2_HIGH


@triton.jit
def sincos_turn(word):
    """Sine and cosine of 2 pi word / 2^32, word uint32."""
    shifted = word + 0x20000000
    quadrant = shifted >> 30
    # What is left of the nearest quarter turn, in [-2^29, 2^29).
    rest = (shifted & 0x3FFFFFFF).to(tl.int32, bitcast=True) - 0x20000000
    a = rest.to(tl.float32) * TURN
    z = a * a
    s = horner(z, SIN, 3) * z * a + a
    c = horner(z, COS, 3) * z * z - z * 0.5 + 1.0
    odd = (quadrant & 1) == 1
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    sine = tl.where(quadrant >= 2, -sine, sine)
    cosine = tl.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)
    return sine, cosine


@triton.jit
def exponential(x):
    """e^x of float32 x, clamped to [-87, 88]; comparisons let a nan through."""
    x = tl.where(x < -87.0, -87.0, x)
    x = tl.where(x > 88.0, 88.0, x)
    n = (x * 1.44269504088896341 + 12582912.0) - 12582912.0  # nearest integer
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    y = horner(r, EXP, 6) * (r * r) + r + 1.0
    power = tl.where(n == n, n, 0.0).to(tl.int32)
    return y * ((power + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def box_muller(a, b):
    radius = tl.sqrt_rn(log_uniform(a) * -2.0)
    sine, cosine = sincos_turn(b)
    return radius * cosine, radius * sine


@triton.jit
def normals(seed, key, m, c, px, program, channels, pixels,
            BLOCK: tl.constexpr, CHANNELS: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip
    """Standard normals of the lanes that `cover` named (c, px).

    seed int64; key, m uint32. ALIGNED: pixels is a multiple of 4.
    """
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    if CHANNELS > 0 and not ALIGNED:
        # The four elements of a word block may lie in two channels, so every lane makes its own.
        e = c * pixels + px
        w0, w1, w2, w3 = philox((e >> 2).to(tl.uint32), (e >> 34).to(tl.uint32), key, m, k0, k1)
        second = (e & 2) != 0
        even, odd = box_muller(tl.where(second, w2, w0), tl.where(second, w3, w1))
        return tl.where((e & 1) != 0, odd, even)
    else:
        group = tl.arange(0, BLOCK // 4)
        if CHANNELS == 0:  # c is the run's first element, a multiple of BLOCK: no carry
            low = (c >> 2).to(tl.uint32) + group.to(tl.uint32)
            high = (c >> 34).to(tl.uint32)
        else:
            across = tl.cdiv(channels, CHANNELS)
            channel = (program % across) * CHANNELS + group % CHANNELS
            pixel = (program // across) * (BLOCK // CHANNELS) + group // CHANNELS * 4
            number = (channel.to(tl.int64) * pixels + pixel) >> 2
            low, high = number.to(tl.uint32), (number >> 32).to(tl.uint32)
        w0, w1, w2, w3 = philox(low, high, key, m, k0, k1)
        z0, z1 = box_muller(w0, w1)
        z2, z3 = box_muller(w2, w3)
        z = tl.join(tl.join(z0, z2), tl.join(z1, z3))  # [group, 2, 2], in order when flattened
        if CHANNELS > 0:
            z = z.reshape(BLOCK // CHANNELS // 4, CHANNELS, 4).permute(0, 2, 1)
        return z.reshape(BLOCK)
