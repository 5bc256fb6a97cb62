"""The phi functions of exponential integrators, phi_k(z) = sum over n of z^n / (n + k)!."""

from __future__ import annotations

import math
from collections.abc import Callable

FAR = 32.0  # from here on no difference of the recursion is small against its terms


def phi(k: int, z: float) -> float:
    """phi_0 = e^z and phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z, to 1e-15 of itself.

    Near 0 by series whose terms have one sign: for z < 0 that of e^z / (k - 1)! sum of (-z)^n / (n! (n + k)).

    k  0 to 9
    """
    if k == 0:
        return math.exp(z)
    if abs(z) > FAR:
        return (phi(k - 1, z) - 1.0 / math.factorial(k - 1)) / z
    if z < 0.0:
        return math.exp(z) / math.factorial(k - 1) * _series(-z, lambda n: 1.0 / (n + k))
    return _series(z, lambda n: math.factorial(n) / math.factorial(n + k))


def _series(z: float, weight: Callable[[int], float]) -> float:
    """The sum over n of weight(n) z^n / n!, z >= 0."""
    terms: list[float] = []
    power, n = 1.0, 0
    while n <= z or power > 1e-20 * terms[0]:
        terms.append(weight(n) * power)
        n += 1
        power *= z / n
    return math.fsum(terms)
