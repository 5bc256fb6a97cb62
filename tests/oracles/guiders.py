"""Guidance by numbers of each sample, as the papers write it: torch in float64, on whole tensors."""

import torch


def flat(x):
    return x.double().flatten(1)


def each(numbers, x):
    return numbers.view(-1, *[1] * (x.ndim - 1))


def rescale(c, u, scale, phi):
    """Lin et al. 2024, equations 15 and 16."""
    out = u + scale * (c - u)
    std_c, std = (each(flat(t).std(dim=1), c) for t in (c, out))
    return phi * (out * std_c / std) + (1 - phi) * out


def cfg_zero(c, u, scale):
    """Fan et al. 2025, algorithm 1, after the first calls."""
    fit = (flat(c) * flat(u)).sum(1) / flat(u).square().sum(1)
    u = each(fit, u) * u
    return u + scale * (c - u)


def tcfg(c, u, scale):
    """Kwon et al. 2025, by a singular value decomposition."""
    _, _, v = torch.linalg.svd(torch.stack([flat(c), flat(u)], dim=1), full_matrices=False)
    first = v[:, :1]
    kept = (first @ flat(u).unsqueeze(2)) * first
    u = kept.view_as(u)
    return u + scale * (c - u)


def apg(estimate, without, scale, eta, momentum, limit, before):
    """Sadat et al. 2025, algorithm 1: the estimate of x0, and what is kept."""
    change = estimate - without + momentum * before
    kept = change
    if limit is not None:
        norm = each(flat(change).norm(dim=1), change)
        change = change * torch.minimum(torch.ones_like(norm), limit / norm)
    unit = estimate / each(flat(estimate).norm(dim=1), estimate)
    along = each((flat(change) * flat(unit)).sum(1), unit) * unit
    return estimate + (scale - 1) * (change - along + eta * along), kept


def threshold(estimate, q, most):
    """Saharia et al. 2022, section 2.3."""
    by = torch.quantile(flat(estimate).abs(), q, dim=1).clamp(min=1.0)
    by = each(by if most is None else by.clamp(max=most), estimate)
    return torch.maximum(torch.minimum(estimate, by), -by) / by


class Steered(torch.nn.Module):
    """A network whose one output is the guided one of another's two: eps(x, t, y), for runs of one sample set
    from the start to the end.

    rule  (x, c, u, alpha, sigma, state) -> eps
    """

    def __init__(self, module, process, null, rule):
        super().__init__()
        self.module, self.process, self.null, self.rule = module, process, null, rule
        self.state = {}

    def forward(self, x, t, y):
        at = self.process.at(float(t[0]))
        c, u = self.module(x, t, y), self.module(x, t, torch.full_like(y, self.null))
        return self.rule(x, c, u, at.alpha, at.sigma, self.state)


def on_estimates(apply):
    """A rule of eps from one of estimates of x0: apply(D_c, D_u, state)."""

    def rule(x, c, u, alpha, sigma, state):
        estimates = ((x - sigma * eps) / alpha for eps in (c, u))
        return (x - alpha * apply(*estimates, state)) / sigma

    return rule
