"""Samplers without a history: Euler and its relatives, EDM's Heun, DPM2, DDIM, DDPM."""

import math

from .common import Array, Denoiser, Noise, at_end, eps_of, steps

CHURN_LIMIT = math.sqrt(2) - 1  # EDM's


def euler(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule=None,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=math.inf,
    s_noise=1.0,
    churn_limit=CHURN_LIMIT,
    call_before_noise=False,
) -> Array:
    """Euler in x / alpha against the ratio (Karras et al. 2022, Alg. 1), the same map as DDIM.

    With the churn of their Alg. 2; call_before_noise takes eps of the state before its noise.
    """
    churn = s_churn, s_tmin, s_tmax, s_noise, churn_limit
    for step, s, t in steps(points):
        raised, hat = churned(x, s, step, len(points) - 1, noise, schedule, *churn)
        if hat is s or not call_before_noise:
            x, s = raised, hat
            denoised = denoiser(x, s)
            # x/alpha + (ratio_t - ratio_s) eps, with x/alpha = denoised + ratio_s eps
            x = t.alpha * (denoised + t.ratio * eps_of(x, s, denoised))
        else:
            eps = eps_of(x, s, denoiser(x, s))
            x = t.alpha * (raised / hat.alpha + (t.ratio - hat.ratio) * eps)
    return x


def ancestral_split(ratio_s: float, ratio_t: float, eta: float) -> tuple[float, float]:
    """(down, up): go deterministically to `down`, then add noise `up` to land on ratio_t."""
    share = 0.0 if ratio_s == math.inf else (ratio_t / ratio_s) ** 2
    up = min(1.0, eta * math.sqrt(1 - share))
    if up == 1.0:
        return 0.0, ratio_t
    # 1 - up^2, where up may be as good as 1
    return ratio_t * math.sqrt(1 - eta**2 + eta**2 * share), ratio_t * up


def euler_ancestral(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, eta=1.0, s_noise=1.0
) -> Array:
    """k-diffusion's sample_euler_ancestral, in x / alpha."""
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        down, up = ancestral_split(s.ratio, t.ratio, eta)
        x_bar = denoised + down * eps_of(x, s, denoised)
        if s_noise * up > 0:
            x_bar = x_bar + s_noise * up * noise(step, 0)
        x = t.alpha * x_bar
    return x


def churned(x, s, step, n_steps, noise, schedule, s_churn, s_tmin, s_tmax, s_noise, churn_limit):
    """Lines 4 to 6 of EDM's Alg. 2: raise the ratio by (1 + gamma), adding the noise for it."""
    if s_churn == 0 or s.alpha == 0 or not s_tmin <= s.ratio <= s_tmax:
        return x, s
    ratio = (1 + min(s_churn / n_steps, churn_limit)) * s.ratio
    hat = schedule.point_at_lam(-math.log(ratio))
    x_bar = x / s.alpha
    scale = s_noise * math.sqrt(ratio**2 - s.ratio**2)
    if scale > 0:
        x_bar = x_bar + scale * noise(step, 0)
    return hat.alpha * x_bar, hat


def heun(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule=None,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=math.inf,
    s_noise=1.0,
    churn_limit=CHURN_LIMIT,
) -> Array:
    """EDM's stochastic Heun (Karras et al. 2022, Alg. 2); churn needs the schedule."""
    n_steps = len(points) - 1
    for step, s, t in steps(points):
        x, s = churned(
            x, s, step, n_steps, noise, schedule, s_churn, s_tmin, s_tmax, s_noise, churn_limit
        )
        denoised = denoiser(x, s)
        slope = eps_of(x, s, denoised)
        if at_end(s, t):
            x = t.alpha * (denoised + t.ratio * slope)
            continue
        x_bar, dratio = x / s.alpha, t.ratio - s.ratio
        x_euler = t.alpha * (x_bar + dratio * slope)
        slope_t = eps_of(x_euler, t, denoiser(x_euler, t))
        x = t.alpha * (x_bar + dratio * (slope + slope_t) / 2)
    return x


def dpm_2(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=math.inf,
    s_noise=1.0,
    churn_limit=CHURN_LIMIT,
) -> Array:
    """k-diffusion's sample_dpm_2: the midpoint rule in ratio, its midpoint taken in lam."""
    n_steps = len(points) - 1
    for step, s, t in steps(points):
        x, s = churned(
            x, s, step, n_steps, noise, schedule, s_churn, s_tmin, s_tmax, s_noise, churn_limit
        )
        denoised = denoiser(x, s)
        slope = eps_of(x, s, denoised)
        if at_end(s, t):
            x = t.alpha * (denoised + t.ratio * slope)
            continue
        x_bar = x / s.alpha
        mid = schedule.point_at_lam((s.lam + t.lam) / 2)
        x_mid = mid.alpha * (x_bar + (mid.ratio - s.ratio) * slope)
        slope_mid = eps_of(x_mid, mid, denoiser(x_mid, mid))
        x = t.alpha * (x_bar + (t.ratio - s.ratio) * slope_mid)
    return x


def dpm_2_ancestral(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule,
    eta=1.0,
    s_noise=1.0,
) -> Array:
    """k-diffusion's sample_dpm_2_ancestral: dpm_2 down to `down`, then noise `up`."""
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        slope = eps_of(x, s, denoised)
        down, up = ancestral_split(s.ratio, t.ratio, eta)
        if s.alpha == 0 or down == 0:
            x_bar = denoised + down * slope
        else:
            mid = schedule.point_at_lam((s.lam - math.log(down)) / 2)
            x_bar = x / s.alpha
            x_mid = mid.alpha * (x_bar + (mid.ratio - s.ratio) * slope)
            x_bar = x_bar + (down - s.ratio) * eps_of(x_mid, mid, denoiser(x_mid, mid))
        if s_noise * up > 0:
            x_bar = x_bar + s_noise * up * noise(step, 0)
        x = t.alpha * x_bar
    return x


def flow_heun(denoiser: Denoiser, points, x: Array, noise: Noise | None = None) -> Array:
    """Heun's method for dx/dt = eps - x0 of straight paths x = (1 - t) x0 + t eps, of x / (alpha + sigma)."""
    for _, s, t in steps(points):
        size = [p.alpha + p.sigma for p in (s, t)]
        time = [p.sigma / (p.alpha + p.sigma) for p in (s, t)]
        y, d = x / size[0], time[1] - time[0]
        denoised = denoiser(x, s)
        slope = (y - denoised) / time[0]
        if t.sigma == 0:
            x = size[1] * (y + d * slope)
            continue
        end = size[1] * (y + d * slope)
        late = (end / size[1] - denoiser(end, t)) / time[1]
        x = size[1] * (y + d * (slope + late) / 2)
    return x


def ddim(denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, eta=0.0) -> Array:
    """DDIM (Song, Meng, Ermon 2021, eq. 12), for any alpha and sigma."""
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        eps = eps_of(x, s, denoised)
        # eq. 16 of the paper: sigma_t/sigma_s sqrt(1 - alpha_bar_s/alpha_bar_t) if VP
        scale = eta * t.sigma * math.sqrt(-math.expm1(2 * (s.lam - t.lam)))
        x = t.alpha * denoised + math.sqrt(t.sigma**2 - scale**2) * eps
        if scale > 0:
            x = x + scale * noise(step, 0)
    return x


def ddpm(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    variance="fixed_small",
    last_noise=False,
) -> Array:
    """DDPM's ancestral sampler (Ho et al. 2020, eqs. 6, 7), for any subset of the timesteps.

    beta is the variance of the forward step t -> s; with VP it is 1 - alpha_bar_s/alpha_bar_t.
    "fixed_large" draws with variance beta, "fixed_small" with that of the posterior, a function with what it
    makes of (s, posterior, beta).
    """
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        decay = s.alpha / t.alpha
        beta = s.sigma**2 - decay**2 * t.sigma**2
        posterior = beta * t.sigma**2 / s.sigma**2
        x = (t.alpha * beta * denoised + decay * t.sigma**2 * x) / s.sigma**2
        if callable(variance):
            square = variance(s, posterior, beta)
        else:
            square = {"fixed_small": posterior, "fixed_large": beta}[variance]
        scale = math.sqrt(square)
        if scale > 0 and (last_noise or t.sigma > 0):  # the last step of a chain is its mean
            x = x + scale * noise(step, 0)
    return x
