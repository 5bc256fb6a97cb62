"""Neighbours by brute force, and the posterior mean of a mixture that stands at them."""

import numpy as np


def nearest(embeddings, query, k, metric="inner_product"):
    """The k nearest of a query, of equals the first; (index, similarity) of each."""
    if metric == "l2":
        similar = [-float(np.dot(e - query, e - query)) for e in embeddings]
    else:
        similar = [float(np.dot(e, query)) for e in embeddings]
    order = sorted(range(len(embeddings)), key=lambda i: (-similar[i], i))[:k]
    return [(i, similar[i]) for i in order]


def denoised(x, alpha, sigma, centres, std):
    """E[x0 | x = alpha x0 + sigma eps] of x0 ~ N(c, std^2 I), c one of the centres with equal odds."""
    variance = alpha**2 * std**2 + sigma**2
    log = np.array([-np.sum((x - alpha * c) ** 2) / (2.0 * variance) for c in centres])
    odds = np.exp(log - log.max())
    odds /= odds.sum()
    return sum(
        w * (c + alpha * std**2 / variance * (x - alpha * c))
        for w, c in zip(odds, centres, strict=True)
    )
