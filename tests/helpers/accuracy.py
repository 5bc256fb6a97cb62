"""The one tolerance of the kernels that need not agree bit for bit, the same on every processor."""

import torch

from diffusion_engine.testing.plain import allowed


def assert_accurate(got, plain, exact, scale=None):
    """At most twice the error of the plain float32 sum, plus one rounding unit of got's dtype.

    got    the result
    plain  testing.plain's, of the same inputs
    exact  the float64 result
    scale  what the unit is relative to; None is the largest exact value
    """
    assert got.shape == plain.shape == exact.shape
    assert plain.dtype == torch.float32 and exact.dtype == torch.float64
    assert torch.isfinite(got).all(), f"{int((~torch.isfinite(got)).sum())} results are not finite"
    error = (got.double() - exact).abs().max().item()
    bound = allowed(plain, exact, got.dtype, scale)
    assert error <= bound, f"error {error:.3g}; twice the plain sum's and a unit are {bound:.3g}"
