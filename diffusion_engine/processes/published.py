"""Grids by the names that tools for images have them under. n times go from noise, and clean data ends them.

Where a grid is given by shares of the time, the share w of a process is the time t_max w: sigma of flow
matching, which most were made for, and the timestep of a discrete table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from .. import checks
from . import gits as published_gits
from .beta import quantile
from .discrete import Discrete
from .ends import between_ends, noisy_end, ratio_ends, table_of, whole_where_apart
from .gaussian import Array, GaussianProcess, Point

# Levels sigma / alpha of ten steps (Sabour et al. 2024, arXiv 2404.14507, table 3).
AYS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


def remaining(n: int) -> Array:
    """1 - i / n of n times."""
    return 1.0 - np.arange(n) / n


def beta(process: GaussianProcess, n: int, a: float = 0.6, b: float = 0.6) -> Array:
    """Quantiles at 1 - i / n of the Beta distribution of times (Lee et al. 2024, arXiv 2407.12173).

    Whole timesteps of a discrete table, as long as these stay apart.

    a, b  of the distribution, above 0: below 1 there are more times at both ends
    """
    a, b = checks.number("a", a), checks.number("b", b)
    shares = np.array([quantile(p, a, b) for p in remaining(n)])
    return whole_where_apart(process, process.t_min + (process.t_max - process.t_min) * shares)


def beta_sigmas(process: GaussianProcess, n: int, a: float = 0.6, b: float = 0.6) -> list[Point]:
    """Levels g = g_min + (g_max - g_min) q, q the quantiles at n even places from 1 to 0: diffusers'
    use_beta_sigmas."""
    high, low = ratio_ends(process)
    shares = [quantile(p, a, b) for p in np.linspace(1.0, 0.0, n)]
    return between_ends(process, low + (high - low) * np.array(shares))


def kl_optimal(process: GaussianProcess, n: int) -> list[Point]:
    """g = tan(w atan(g_max) + (1 - w) atan(g_min)), w from 1 to 0: optimal for Gaussian data (Sabour et al.
    2024, arXiv 2404.14507, theorem 3.1). g_max may be infinite."""
    high, low = process.noisiest.ratio, noisy_end(process).ratio
    return between_ends(process, np.tan(np.linspace(math.atan(high), math.atan(low), n)))


def simple(process: GaussianProcess, n: int) -> Array:
    """Of a table every count / n-th timestep from the last, rounded up; else even shares 1 - i / n."""
    if not isinstance(process, Discrete):
        return process.t_max * remaining(n)
    count = table_of(process, "simple", n)
    return count - 1.0 - np.floor(np.arange(n) * count / n)


def sgm_uniform(process: GaussianProcess, n: int) -> Array:
    """n + 1 times evenly spaced in t but for the last: generative-models' spacing, whose timesteps are cut to
    whole ones there and not here."""
    return np.linspace(process.t_max, process.t_min, n + 1)[:-1]


def linear_quadratic(
    process: GaussianProcess, n: int, threshold: float = 0.025, linear: int | None = None
) -> Array:
    """Shares 1 - s(i), small even steps first, then a parabola that goes on with their slope (Polyak et al.
    2024, Movie Gen, arXiv 2410.13720):

        s(i) = c i / L + (1 - c n / L) (max(i - L, 0) / (n - L))^2

    threshold  c, the share that the even steps cover, between 0 and L / n
    linear     L, how many these are, 1 to n - 1; None takes half of n
    """
    if n == 1:
        return np.array([process.t_max])
    length = n // 2 if linear is None else checks.whole("linear", linear, 1, "1 to n - 1 steps")
    if length >= n or not 0.0 < threshold < length / n:
        raise ValueError(
            f"threshold={threshold:g} and linear={length} of {n} steps: the even steps are fewer than all, "
            "and cover more than 0 and less than their share of the steps"
        )
    i = np.arange(float(n))
    bend = np.maximum(i - length, 0.0) / (n - length)
    s = threshold * i / length + (1.0 - threshold * n / length) * bend**2
    return process.t_max * (1.0 - s)


def bong_tangent(process: GaussianProcess, n: int, slope: float = 8.0) -> Array:
    """Shares along two arc tangents that meet at 1/2 (RES4LYF). With N = n + 2, m = floor(0.6 N) and
    A(u) = atan(slope u / N):

        w(i) = (1 + (A(m - i) - A(1)) / (A(m) - A(1))) / 2      i < m - 1
        w(i) = (1 - A(i - m + 1) / A(N - m - 1)) / 2            i >= m - 1
    """
    if n == 1:  # the first branch needs two
        return np.array([process.t_max])
    count, slope = n + 2, checks.number("slope", slope)
    m = 3 * count // 5
    i = np.arange(n)

    def arc(u: Array | float) -> Array:
        return np.arctan(slope * np.asarray(u, np.float64) / count)

    first = 1.0 + (arc(m - i) - arc(1)) / (arc(m) - arc(1))
    second = 1.0 - arc(i - m + 1) / arc(count - m - 1)
    return process.t_max * np.where(i < m - 1, first, second) / 2.0


def log_linear(levels: Sequence[float], n: int) -> Array:
    """n levels at even places of falling ones, linear in their logarithms between them: as AYS's authors make
    other numbers of steps."""
    places = np.linspace(0.0, len(levels) - 1.0, n)
    return np.exp(np.interp(places, np.arange(float(len(levels))), np.log(levels)))


def ays(process: GaussianProcess, n: int, model: str = "sd15") -> list[Point]:
    """The first n of n + 1 levels "align your steps" (Sabour et al. 2024, arXiv 2404.14507, table 3).

    model  whose they are: "sd15", "sdxl" or "svd"; of another process they are the same sigma / alpha
    """
    levels = AYS[checks.one_of("model", model, tuple(AYS))]
    return [process.at_ratio(g) for g in log_linear(levels, n + 1)[:-1]]


def gits(process: GaussianProcess, n: int, coefficient: float = 1.2) -> list[Point]:
    """The first n of n + 1 levels of GITS for Stable Diffusion (Chen et al. 2024, arXiv 2405.11326).

    coefficient  0.85, 0.9, ... 1.5. A number of steps without a schedule has the levels of that of 20,
                 log-linear between them
    """
    known = published_gits.COEFFICIENTS
    chosen = checks.one_of(
        "coefficient", round(checks.number("coefficient", coefficient), 9), tuple(known)
    )
    places = published_gits.places(n, chosen)
    table = Discrete.scaled_linear()
    levels = [table.at(9.99 * k).ratio for k in places or published_gits.places(20, chosen) or ()]
    made = np.array(levels) if places else log_linear(levels, n + 1)
    return [process.at_ratio(g) for g in made[:-1]]


def shift(process: GaussianProcess, n: int, shift: float = 3.0, mu: float | None = None) -> Array:
    """Shares shift w / (1 + (shift - 1) w) of even ones, w = 1 - i / n (Esser et al. 2024, arXiv 2403.03206,
    eq. 23).

    shift  above 0: 3 of Stable Diffusion 3; 1 shifts nothing
    mu     its logarithm in its place, which pipelines take from the number of tokens: `mu_of`
    """
    by = math.exp(checks.number("mu", mu)) if mu is not None else checks.number("shift", shift)
    if not by > 0.0:
        raise ValueError(f"shift={by:g}: it is above 0, and 1 shifts nothing")
    w = remaining(n)
    return process.t_max * by * w / (1.0 + (by - 1.0) * w)


def mu_of(
    tokens: int, base: tuple[int, float] = (256, 0.5), most: tuple[int, float] = (4096, 1.15)
) -> float:
    """The mu of dynamic shifting, linear in an image's tokens, through (tokens, mu) of a small and a large
    image, `base` and `most`; Flux' are the defaults: (height / 16) (width / 16) tokens of pixels."""
    slope = (most[1] - base[1]) / (most[0] - base[0])
    return base[1] + slope * (tokens - base[0])


GRIDS: dict[str, Callable[[GaussianProcess, int], Sequence[float | Point] | Array]] = {
    "beta": beta,
    "beta_sigmas": beta_sigmas,
    "kl_optimal": kl_optimal,
    "simple": simple,
    "sgm_uniform": sgm_uniform,
    "linear_quadratic": linear_quadratic,
    "bong_tangent": bong_tangent,
    "ays": ays,
    "ays_sdxl": partial(ays, model="sdxl"),
    "ays_svd": partial(ays, model="svd"),
    "gits": gits,
    "shift": shift,
}
