"""Runs of k-diffusion's functions that both sides make: by this package's, and in tests/golden by its own.

Nothing here imports either.
"""

import torch

B, SHAPE = 3, (2, 3)
DOWN = (14.6, 6.0, 2.5, 1.0, 0.4, 0.1, 0.03, 0.0)
NO_ZERO = DOWN[:-1]
TWICE = (14.6, 6.0, 6.0, 2.5, 0.4, 0.4, 0.1, 0.0)
ONE = (2.5, 0.0)
CHURN = {"s_churn": 3.0, "s_tmin": 0.3, "s_tmax": 5.0, "s_noise": 1.01}


def denoiser(x, sigma, shift=0.1):
    """The posterior mean of data at shift - 1 and shift + 1."""
    sigma = sigma.view(-1, *[1] * (x.ndim - 1))
    return shift + ((x - shift) / sigma**2).tanh()


def start(sigma):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(B, *SHAPE, generator=generator) * sigma


def noise_sampler(x, calls):
    """Normals of its own generator, and a note of what it was asked."""
    generator = torch.Generator().manual_seed(7)

    def sampler(sigma, sigma_next):
        calls.append((float(sigma), float(sigma_next)))
        return torch.randn(x.shape, generator=generator).to(x.dtype)

    return sampler


def _cases():
    for name in ("euler", "heun", "dpm_2"):
        yield name, DOWN, {}
        yield name, NO_ZERO, {}
        yield name, TWICE, {}
        yield name, DOWN, CHURN
        yield name, TWICE, CHURN
        yield name, ONE, {}
    for name in ("euler_ancestral", "dpm_2_ancestral"):
        yield name, DOWN, {}
        yield name, DOWN, {"noise": True, "eta": 0.6, "s_noise": 0.9}
        yield name, NO_ZERO, {"noise": True}
        yield name, TWICE, {"noise": True}
        yield name, DOWN, {"eta": 0.0}
    for order in (1, 2, 3, 4):
        yield "lms", DOWN, {"order": order}
    yield "lms", NO_ZERO, {}
    yield "dpmpp_2m", DOWN, {}
    yield "dpmpp_2m", NO_ZERO, {}
    yield "dpmpp_2m", ONE, {}
    for name in ("dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde"):
        yield name, DOWN, {"noise": True}
        yield name, NO_ZERO, {"noise": True, "eta": 0.5, "s_noise": 1.1}
        yield name, DOWN, {"noise": True, "eta": 0.0}
    yield "dpmpp_2m_sde", DOWN, {"noise": True, "solver_type": "heun"}
    yield "dpmpp_sde", DOWN, {"noise": True, "r": 0.3}
    yield "dpmpp_sde", TWICE, {"noise": True}
    for n in (7, 8, 9):
        yield "dpm_fast", (14.6, 0.03), {"n": n}
    # Its logarithms in float32 leave 2e-5 of fewer steps over that range.
    for n in (1, 2, 3):
        yield "dpm_fast", (3.0, 0.1), {"n": n}
    yield "dpm_fast", (14.6, 0.03), {"n": 8, "noise": True, "eta": 0.7, "s_noise": 0.9}
    yield "dpm_fast", (3.0, 0.1), {"n": 6, "eta": 1.0}


NAMES = {DOWN: "down", NO_ZERO: "no zero", TWICE: "twice", ONE: "one"}
CASES = {
    " ".join([name, NAMES.get(sigmas, "range"), *(f"{k}={v}" for k, v in options.items())]): (
        f"sample_{name}", sigmas, options,
    )
    for name, sigmas, options in _cases()
}  # fmt: skip
# Of sample_dpm_adaptive from 14.6 to 0.03; "noise" as above.
ADAPTIVE = {
    "23": {},
    "12": {"order": 2, "rtol": 0.02, "atol": 0.002},
    "23 pid": {"pcoeff": 0.3, "icoeff": 0.6, "dcoeff": 0.1, "accept_safety": 0.9, "h_init": 0.2},
    "23 eta": {"eta": 0.7, "s_noise": 0.9},
    "12 eta": {"order": 2, "eta": 1.0},
}
SCHEDULES = {
    "karras": ("get_sigmas_karras", {"n": 7, "sigma_min": 0.03, "sigma_max": 14.6}),
    "karras rho=5": ("get_sigmas_karras", {"n": 5, "sigma_min": 0.1, "sigma_max": 80.0, "rho": 5.0}),
    "exponential": ("get_sigmas_exponential", {"n": 6, "sigma_min": 0.03, "sigma_max": 14.6}),
    "polyexponential": (
        "get_sigmas_polyexponential", {"n": 6, "sigma_min": 0.03, "sigma_max": 14.6, "rho": 1.4},
    ),
    "vp": ("get_sigmas_vp", {"n": 8}),
    "vp beta": ("get_sigmas_vp", {"n": 4, "beta_d": 10.0, "beta_min": 0.2, "eps_s": 0.01}),
}  # fmt: skip


class Inner(torch.nn.Module):
    """A network of its time: eps-like, of as many channels as it is asked for."""

    def __init__(self, double=False):
        super().__init__()
        self.double_channels = double
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 50, dtype=torch.float64) ** 2 * 20
        self.alphas_cumprod = torch.cumprod(1.0 - betas, 0).float()

    def forward(self, x, t, **more):
        made = (x * 0.7 + 0.01 * t.view(-1, *[1] * (x.ndim - 1))).sin()
        return torch.cat([made, made * 0.5], 1) if self.double_channels else made

    def apply_model(self, x, t, cond=None):
        return self(x, t)


MAKERS = {
    "CompVisDenoiser": lambda external: external.CompVisDenoiser(Inner()),
    "CompVisVDenoiser": lambda external: external.CompVisVDenoiser(Inner()),
    "DiscreteEpsDDPMDenoiser": lambda external: external.DiscreteEpsDDPMDenoiser(
        Inner(), Inner().alphas_cumprod, quantize=True
    ),
    "OpenAIDenoiser": lambda external: external.OpenAIDenoiser(
        Inner(double=True),
        type("Diffusion", (), {"alphas_cumprod": Inner().alphas_cumprod.numpy()}),
    ),
    "VDenoiser": lambda external: external.VDenoiser(Inner()),
}
