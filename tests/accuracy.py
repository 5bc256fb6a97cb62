"""The one tolerance of the kernels that need not agree bit for bit."""

import torch


def assert_accurate(got, same_dtype, exact, scale=None):
    """At most twice the error of torch in the same dtype against float64, plus one rounding unit.

    got         the result
    same_dtype  torch's own, computed from the same inputs in their dtype
    exact       the float64 result
    scale       what the unit is relative to; None is the largest exact value
    The unit is that of got's dtype.
    """
    assert got.shape == exact.shape and exact.dtype == torch.float64
    assert torch.isfinite(got).all(), f"{int((~torch.isfinite(got)).sum())} results are not finite"
    error = (got.double() - exact).abs().max().item()
    theirs = (same_dtype.double() - exact).abs().max().item()
    size = exact.abs().max().item() if scale is None else scale
    unit = torch.finfo(got.dtype).eps * size
    assert error <= 2 * theirs + unit, (
        f"error {error:.3g}; torch's is {theirs:.3g} and a rounding unit {unit:.3g}"
    )
