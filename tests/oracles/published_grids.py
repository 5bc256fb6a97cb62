"""Levels of published grids, as loops in float64 that follow the texts: n levels, and 0."""

import math

SD15 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)

# scipy.stats.beta.ppf(p, a, b), of scipy 1.17
QUANTILES = {
    (0.05, 0.6, 0.6): 0.012554456873611399,
    (0.1, 0.6, 0.6): 0.03958440558878085,
    (0.3, 0.6, 0.6): 0.23401700387523572,
    (0.5, 0.6, 0.6): 0.5000000000000001,
    (0.8, 0.6, 0.6): 0.8770782495416671,
    (0.25, 2.5, 0.4): 0.7966934799886937,
    (0.001, 0.3, 5.0): 1.496897948269007e-11,
    (0.999, 20.0, 2.5): 0.9949448035145203,
}
# Timesteps of a table of 1000, of ten steps: rint(999 ppf(1 - i / 10, 0.6, 0.6)).
BETA_10 = (999, 959, 876, 765, 637, 500, 362, 234, 123, 40)
# Of n places from 1 to 0.
BETA_LEVELS_6 = (
    1.0,
    0.8770782495416671,
    0.6372990092467856,
    0.36270099075321405,
    0.12292175045833284,
    0.0,
)
# e^mu / (e^mu + 1 / w - 1) of w = 1, 4/5, ... 1/5: of shift 3, and of Flux's mu of 1024 tokens, 0.63
SHIFT_3 = (1.0, 0.9230769230769231, 0.818181818181818, 0.6666666666666666, 0.42857142857142866)
FLUX_1024 = (1.0, 0.8824972941775645, 0.7379740483342184, 0.555899069830985, 0.3194513406329396)
# Of coefficients and steps, with the level in whose place a run has clean data.
GITS = {
    (0.85, 6): (14.61464119, 11.54541874, 7.49001646, 5.09240818, 2.84484982, 0.95350921, 0.02916753),
    (1.2, 6): (14.61464119, 5.85520077, 2.05039096, 0.95350921, 0.45573691, 0.17026083, 0.02916753),
    (1.5, 10): (
        14.61464119, 1.84880662, 0.95350921, 0.59516323, 0.41087446, 0.29807833, 0.22545385, 0.17026083,
        0.13792117, 0.09824532, 0.02916753,
    ),
    (1.2, 20): (
        14.61464119, 7.49001646, 4.65472794, 3.07277966, 2.19988537, 1.61558151, 1.24153244, 0.95350921,
        0.74807048, 0.59516323, 0.50118381, 0.41087446, 0.34370604, 0.29807833, 0.25053367, 0.22545385,
        0.19894916, 0.17026083, 0.13792117, 0.09824532, 0.02916753,
    ),
}  # fmt: skip
# Of a coefficient's schedules of 2 to 20 steps, as published: the logarithm of each level times its place in
# its schedule, counted from 0, all summed.
GITS_SUMS = {
    0.85: 1069.818,
    0.9: 636.506,
    0.95: 61.212,
    1.0: -662.524,
    1.05: -1154.865,
    1.1: -1524.890,
    1.15: -1646.298,
    1.2: -2076.080,
    1.25: -2298.787,
    1.3: -2400.676,
    1.35: -2515.726,
    1.4: -2593.382,
    1.45: -2631.549,
    1.5: -2664.471,
}


def tangents(high, low, n):
    """tan of even steps between two arc tangents."""
    a, b = math.atan(high), math.atan(low)
    return [math.tan(a + (b - a) * i / (n - 1)) for i in range(n)]


def linear_quadratic(n, threshold, linear):
    """s(i): even steps of threshold / linear, then a i^2 + b i + c with s(linear) = threshold, the slope of
    the even steps there, and s(n) = 1."""
    slope = threshold / linear
    a = (1.0 - threshold - slope * (n - linear)) / (n - linear) ** 2
    b = slope - 2.0 * a * linear
    c = threshold - a * linear**2 - b * linear
    made = [slope * i for i in range(linear)] + [a * i * i + b * i + c for i in range(linear, n)]
    return [1.0 - s for s in made] + [0.0]


def bong_tangent(n):
    """Two stages of arc tangents, each stretched to its ends, that share the level 1/2."""
    whole = n + 2
    middle = int(whole * 0.6)
    slope = 0.2 / (whole / 40.0)

    def stage(count, pivot, start, end):
        raw = [(2.0 / math.pi * math.atan(-slope * (k - pivot)) + 1.0) / 2.0 for k in range(count)]
        return [(r - raw[-1]) / (raw[0] - raw[-1]) * (start - end) + end for r in raw]

    return stage(middle, middle, 1.0, 0.5)[:-1] + stage(whole - middle, 0, 0.5, 0.0)


def log_linear(levels, n):
    """n levels at even places."""
    made = []
    for i in range(n):
        place = i * (len(levels) - 1) / (n - 1)
        low = min(int(place), len(levels) - 2)
        part = place - low
        made.append(math.exp((1 - part) * math.log(levels[low]) + part * math.log(levels[low + 1])))
    return made
