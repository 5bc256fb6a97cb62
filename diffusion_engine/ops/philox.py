"""Counter-based normals: Philox4x32-10 and Box-Muller, the torch reference.

The word block of elements 4i ... 4i+3 is Philox of counter (i low, i high, key, m) under the
sample's seed (low, high), Salmon et al. 2011. Every other backend repeats these operations in this
order, each multiplication and addition rounded on its own, so that the bits agree.

What key and m name, so that no two uses share a draw:

    m = 0, 1   normals of the plan's row `key`; keys of a run from a given image have the bit IMAGE, those of
               one from a given state the bit STATE
    m = 2      the known region's normal of that row (inpainting)
    m = 3      the latent input of the network's call of that row
    m = 4, 5   node `key` of the sample's first, second Brownian path (brownian.py), which from an image is
               another (IMAGE) and from a state goes on
    m = 6      the coin of that row: what a driver accepts or rejects by
    m = 8 ... 12  what a likelihood draws, draw `key` of each kind (drivers/likelihood_divergence.py)
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

LATENT, PATH, COIN = 3, 4, 6
IMAGE, STATE = 0x40000000, 0x80000000  # an x made from the same seed has used the normals without
MASK = 0xFFFFFFFF
MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

# log on [sqrt(1/2), sqrt(2)), sin and cos on [-pi/4, pi/4]: Cephes' single precision polynomials.
LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
LN2_LOW, LN2_HIGH = -2.12194440e-4, 0.693359375
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
SQRT_HALF = 0x3F3504F3
TURN = 1.4629180792671596e-9  # 2 pi 2^-32


Word = TypeVar("Word", int, Tensor)


def philox(c0: Word, c1: Word, c2: Word, c3: Word, k0: Word, k1: Word) -> list[Word]:
    """Philox4x32-10 of a counter and a key; words are numbers or int64 tensors in [0, 2^32)."""
    for i in range(ROUNDS):
        if i:
            k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
        p0, p1 = c0 * MULTIPLIER[0], c2 * MULTIPLIER[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0,
            p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
    return [c0, c1, c2, c3]


def horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    y = torch.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y = y * x + c
    return y


def log_uniform(word: Tensor) -> Tensor:
    """ln((word + 1/2) / 2^32), float32; word int64 in [0, 2^32)."""
    u = word.float() * 2.0**-32 + 2.0**-33
    bits = u.view(torch.int32) - SQRT_HALF
    exponent = (bits >> 23).float()
    x = ((bits & 0x7FFFFF) + SQRT_HALF).view(torch.float32) - 1.0
    # Near 1 the float32 u has lost the digits of 1 - u; the integer still has them.
    complement = (MASK - word).to(torch.int32).float() * -(2.0**-32) - 2.0**-33
    x = torch.where(u >= 0.75, complement, x)
    z = x * x
    y = horner(x, LOG) * x * z + exponent * LN2_LOW
    y = y - z * 0.5
    return (x + y) + exponent * LN2_HIGH


def sincos(word: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of 2 pi word / 2^32, word int64 in [0, 2^32)."""
    quadrant = ((word + 0x20000000) & MASK) >> 30
    # What is left of the nearest quarter turn, in [-2^29, 2^29).
    rest = ((word + 0x20000000) & 0x3FFFFFFF) - 0x20000000
    a = rest.float() * TURN
    z = a * a
    sin = horner(z, SIN) * z * a + a
    cos = horner(z, COS) * z * z - z * 0.5 + 1.0
    odd = (quadrant & 1) == 1
    sin, cos = torch.where(odd, cos, sin), torch.where(odd, sin, cos)
    sin = torch.where(quadrant >= 2, -sin, sin)
    cos = torch.where((quadrant == 1) | (quadrant == 2), -cos, cos)
    return sin, cos


def exp(x: Tensor) -> Tensor:
    """Exponential of float32 x, clamped to [-87, 88]."""
    x = torch.where(x < -87.0, torch.full_like(x, -87.0), x)
    x = torch.where(x > 88.0, torch.full_like(x, 88.0), x)
    n = (x * 1.44269504088896341 + 12582912.0) - 12582912.0  # nearest integer
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    y = horner(r, EXP) * (r * r) + r + 1.0
    scale = ((torch.nan_to_num(n).to(torch.int32) + 127) << 23).view(torch.float32)
    return y * scale


def box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two normals of two words: sqrt(-2 ln u) (cos, sin)(2 pi b / 2^32), u = (a + 1/2) / 2^32."""
    square = log_uniform(a) * -2.0
    radius = square.double().sqrt().float()  # float64 makes the root correctly rounded
    sin, cos = sincos(b)
    return radius * cos, radius * sin


def normals(seed: Tensor, key: Tensor, m: int | Tensor, n: int) -> Tensor:
    """Standard normals of elements 0 ... n-1 of every sample.

    seed  [B] int64, the samples' seeds
    key   [B] integer, the rows' keys (only the low 32 bits count)
    m     which of a row's normals, 0 or above; [B] integer where samples differ
    Returns [B, n] float32.
    """
    group = torch.arange((n + 3) // 4, device=seed.device)
    c2 = key.long().view(-1, 1) & MASK
    c3 = m.long().view(-1, 1) if isinstance(m, Tensor) else m
    s = seed.view(-1, 1)
    zero = torch.zeros_like(c2)
    words = philox(
        (group & MASK) + zero, (group >> 32) + zero, c2 + 0 * group, c3 + 0 * (c2 + group),
        s & MASK, (s >> 32) & MASK,
    )  # fmt: skip
    pairs = (*box_muller(words[0], words[1]), *box_muller(words[2], words[3]))
    return torch.stack(pairs, dim=-1).flatten(1)[:, :n]


def uniform(seed: int, key: int, m: int = COIN) -> float:
    """(word + 1/2) / 2^32 of a sample's row, uniform in (0, 1).

    seed  of the sample, 0 ... 2^64 - 1
    key   of the row
    m     what it is for, see above
    """
    word = philox(0, 0, key & MASK, m, seed & MASK, seed >> 32 & MASK)[0]
    return (word + 0.5) * 2.0**-32
