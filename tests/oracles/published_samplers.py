"""The samplers that repositories publish with their networks, in their own variables, as loops in float64."""

from itertools import pairwise

import numpy as np


def karras_levels(n, low=0.002, high=80.0, rho=7.0):
    """n falling levels sigma."""
    ramp = np.arange(n) / max(n - 1, 1)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def edm_sampler(
    denoise, x, levels, noise=None, churn=0.0, low=0.0, high=np.inf, s_noise=1.0, rounded=float
):
    """Karras et al. 2022, algorithm 2: denoise(x, sigma) is D; levels are those before 0."""
    sigmas = [rounded(s) for s in levels] + [0.0]
    x = x.double()
    for s, t in pairwise(sigmas):
        gamma = min(churn / len(levels), 2**0.5 - 1) if low <= s <= high else 0.0
        hat = rounded(s + gamma * s)
        if hat > s:
            x = x + (hat**2 - s**2) ** 0.5 * s_noise * noise()
        d = (x - denoise(x, hat)) / hat
        end = x + (t - hat) * d
        if t > 0:
            d_prime = (end - denoise(end, t)) / t
            end = x + (t - hat) * (0.5 * d + 0.5 * d_prime)
        x = end
    return x


def respaced_betas(betas, timesteps):
    """Betas of the chain that visits some timesteps of a longer one (rising)."""
    bar = np.cumprod(1.0 - betas)[timesteps]
    return 1.0 - bar / np.append(1.0, bar[:-1])


def p_sample_loop(model, x, betas, timesteps, noise, learned=False, clip=True):
    """Nichol & Dhariwal 2021: model(x, timestep) is (eps, nu); `betas` are the respaced chain's."""
    bar = np.cumprod(1.0 - betas)
    before = np.append(1.0, bar[:-1])
    small = betas * (1 - before) / (1 - bar)
    large = np.append(small[1], betas[1:])
    for i in reversed(range(len(betas))):
        eps, nu = model(x, timesteps[i])
        x0 = (x - (1 - bar[i]) ** 0.5 * eps) / bar[i] ** 0.5
        x0 = x0.clamp(-1, 1) if clip else x0
        mean = betas[i] * before[i] ** 0.5 * x0 + (1 - before[i]) * (1 - betas[i]) ** 0.5 * x
        x = mean / (1 - bar[i])
        if i > 0:
            share = (nu + 1) / 2
            log_variance = share * np.log(betas[i]) + (1 - share) * np.log(small[i])
            x = x + ((0.5 * log_variance).exp() if learned else large[i] ** 0.5) * noise()
    return x


def ddim_sample_loop(model, x, betas, timesteps, noise=None, eta=0.0, clip=True):
    """Song et al. 2021, eq. 12, eps following from the clipped x0."""
    bar = np.cumprod(1.0 - betas)
    before = np.append(1.0, bar[:-1])
    for i in reversed(range(len(betas))):
        eps, _ = model(x, timesteps[i])
        x0 = (x - (1 - bar[i]) ** 0.5 * eps) / bar[i] ** 0.5
        x0 = x0.clamp(-1, 1) if clip else x0
        eps = (x - bar[i] ** 0.5 * x0) / (1 - bar[i]) ** 0.5
        sigma = eta * ((1 - before[i]) / (1 - bar[i])) ** 0.5 * (1 - bar[i] / before[i]) ** 0.5
        x = before[i] ** 0.5 * x0 + (1 - before[i] - sigma**2) ** 0.5 * eps
        if i > 0 and eta:
            x = x + sigma * noise()
    return x


def stochastic_iterative(distiller, x, places, levels, noise):
    """Song et al. 2023, algorithm 1: distiller(x, sigma) is f, clipped; places of the levels, the last one
    the least."""
    for place, following in pairwise(places):
        x = distiller(x, levels[place])
        if following != places[-1]:
            x = x + (levels[following] ** 2 - levels[-1] ** 2) ** 0.5 * noise()
    return x
