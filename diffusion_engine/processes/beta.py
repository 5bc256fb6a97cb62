"""Quantiles of the Beta distribution, in float64."""

from __future__ import annotations

import math

ROUNDS = 200  # of the continued fraction and of Newton's method; some ten are used


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b), for x below (a + 1) / (a + b + 2) (DLMF 8.17.22), from the front
    by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    whole = d
    for m in range(1, ROUNDS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        before = whole
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            whole *= c * d
        if abs(whole - before) <= 1e-16 * abs(whole):
            break
    return whole


def _log_density(a: float, b: float, x: float) -> float:
    """log of x^a (1 - x)^b / B(a, b)."""
    whole = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return whole + a * math.log(x) + b * math.log1p(-x)


def regularised(a: float, b: float, x: float) -> float:
    """I_x(a, b), the regularised incomplete beta function (DLMF 8.17), x in [0, 1]."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - regularised(b, a, 1.0 - x)
    return math.exp(_log_density(a, b, x)) * _fraction(a, b, x) / a


def quantile(p: float, a: float, b: float) -> float:
    """The x in [0, 1] with I_x(a, b) = p.

    Raises ValueError where p is no probability, or a or b is not above 0.
    """
    if not (0.0 <= p <= 1.0 and a > 0.0 and b > 0.0):
        raise ValueError(f"p={p:g}, a={a:g}, b={b:g}: p lies in 0 ... 1, and a and b are above 0")
    if p in (0.0, 1.0):
        return p
    if p > regularised(a, b, 0.5):  # the half in which x is small has it to all digits
        return 1.0 - _below_half(1.0 - p, b, a)
    return _below_half(p, a, b)


def _below_half(p: float, a: float, b: float) -> float:
    """A quantile of at most 1/2, by Newton's method on log I in log x, in which it is concave."""
    most = math.log(0.5)
    leading = (math.log(p * a) + math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)) / a
    u = min(leading, most)
    for _ in range(ROUNDS):
        x = math.exp(u)
        at = regularised(a, b, x)
        slope = math.exp(_log_density(a, b, x)) / (at * (1.0 - x))
        moved = min(u - math.log(at / p) / slope, most)
        if abs(moved - u) <= 1e-15 * max(1.0, abs(u)):
            break
        u = moved
    return math.exp(u)
