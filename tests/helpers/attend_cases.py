"""Attention of recorded networks: what is given to it, how it is run, and what it has to come to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from native_rows import cpu, fill, neighbours_kept, strided
from torch import Tensor

from diffusion_engine.testing import plain


@dataclass
class Case:
    q: Tensor  # [B, H, N, D], of any strides
    k: Tensor
    v: Tensor
    scale: float
    mask: Tensor | None = None  # [B or 1, H or 1, N or 1, M]


def heads(x: Tensor) -> tuple[int, ...]:
    return (x.data_ptr(), *x.stride()[:3])


def make(batch, count, queries, keys, dim, scale=None, seed=0):
    """Tokens of several heads beside one another, q, k and v parts of wider rows."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(batch, n, count * dim + 5, generator=draw)[..., 2:-3]
        .unflatten(2, (count, dim))
        .transpose(1, 2)
        for n in (queries, keys, keys)
    )
    return Case(q, k, v, dim**-0.5 if scale is None else scale)


def masks(case, kind, seed=1):
    """Of a shape such as "bhq": with samples, heads and queries of its own."""
    draw = torch.Generator().manual_seed(seed)
    batch, count, queries, _ = case.q.shape
    shape = [
        n if name in kind else 1 for name, n in zip("bhq", (batch, count, queries), strict=True)
    ]
    return torch.randn(*shape, case.k.shape[2], generator=draw) * 2


def sample_of(case, b):
    """The sample on its own."""
    mask = None if case.mask is None else case.mask[b : b + 1]
    return Case(*(t[b : b + 1] for t in (case.q, case.k, case.v)), case.scale, mask)


def run(case, threads=1, gap=3, backwards=False, bf16=False):
    batch, count, queries, dim = case.q.shape
    whole = strided(batch, queries, count * dim, gap=gap)
    out = whole.unflatten(2, (count, dim)).transpose(1, 2)
    p = fill(
        cpu().AttendParams(), batch=batch, heads=count, queries=queries, keys=case.k.shape[2], dim=dim,
        scale=case.scale, q=heads(case.q), k=heads(case.k), v=heads(case.v), out=heads(out), bf16=bf16,
    )  # fmt: skip
    if case.mask is not None:
        mask = case.mask.expand(batch, count, queries, -1)
        assert mask.stride(3) == 1
        p.mask = heads(mask)
    cpu().run_task(p, threads, backwards=backwards)
    assert neighbours_kept(whole)
    return out.clone()


def exact_weights(case):
    scores = case.scale * case.q.double() @ case.k.double().mT
    if case.mask is not None:
        scores = scores + case.mask.double()
    return (scores - scores.amax(-1, keepdim=True)).softmax(-1)


def exact(case):
    return exact_weights(case) @ case.v.double()


def plain_sums(case):
    if case.mask is None:
        return plain.attention(case.q, case.k, case.v, case.scale)
    scores = plain.product(case.q, case.k.mT) * case.scale + case.mask
    weights = (scores - scores.amax(-1, keepdim=True)).double().exp().float()
    weights /= plain.product(weights, weights.new_ones(weights.shape[3], 1))
    return plain.product(weights, case.v)
