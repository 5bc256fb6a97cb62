"""Random cases of the op `attention`, shared by the tests of all its implementations.

What is written begins as NaN, and the memory around it keeps a value that shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from accuracy import assert_accurate
from torch import Tensor

from diffusion_engine.ops.attention import DTYPES, AttentionArgs
from diffusion_engine.ops.registry import resolve
from diffusion_engine.testing import plain

DIMS = (8, 16, 24, 32, 40, 64, 72, 80, 128, 160, 256, 9, 13, 15, 33, 77, 100, 131, 255)
# Around the blocks of the kernels, primes, one.
TOKENS = (1, 2, 5, 7, 8, 9, 16, 17, 31, 33, 48, 64, 77, 101, 127, 128, 129, 131, 200, 257, 300)
LARGE = 20_000_000  # multiplications of a case at most
AROUND = 7.0


@dataclass(eq=False)
class Case:
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float | None
    tokens_first: bool  # the layout of out
    gap: int  # elements between two rows of out


@lru_cache(maxsize=200)
def make(seed: int, *, small: bool = False, device: str = "cpu") -> Case:
    """Kept, with what is expected, for the next instruction set."""
    return _Maker(np.random.default_rng(seed), small, device).case()


class _Maker:
    def __init__(self, rng: np.random.Generator, small: bool, device: str) -> None:
        self.rng, self.small, self.device = rng, small, device

    def pick(self, options):
        return options[self.rng.integers(len(options))]

    def sizes(self) -> tuple[int, int, int, int, int]:
        limit = LARGE // 40 if self.small else LARGE
        tokens = [n for n in TOKENS if n < 140] if self.small else TOKENS
        while True:
            queries = self.pick(tokens)
            keys = self.pick((queries, self.pick(tokens)))
            found = self.pick((1, 2, 3)), self.pick((1, 2, 3)), queries, keys, self.pick(DIMS)
            if np.prod(found) <= limit:
                return found

    def case(self) -> Case:
        batch, heads, queries, keys, dim = self.sizes()
        dtype = self.pick((torch.float32, *DTYPES))
        tokens_first = bool(self.rng.integers(2))
        # Parts of one tensor, as a projection to q, k and v makes them.
        lengths = self.pick(((queries, keys, keys), (queries, keys)))
        parts: list[Tensor] = []
        for n, count in zip(lengths, (1, 1, 1) if len(lengths) == 3 else (1, 2), strict=True):
            if n == queries == keys and len(lengths) == 2:
                parts = self.packed(batch, heads, n, dim, 3, dtype, tokens_first)
                break
            parts += self.packed(batch, heads, n, dim, count, dtype, tokens_first)
        parts[2] += self.pick((0.0, 0.0, 2.0))
        q, k, v = map(self.view, parts)
        scale = self.pick((None, None, 0.05, 0.9 / dim, -0.1))
        return Case(q, k, v, scale, bool(self.rng.integers(2)), self.pick((0, 0, 8, 3)))

    def view(self, x: Tensor) -> Tensor:
        """At times one sample or head for all, and any stride where there is one token."""
        if self.rng.random() < 0.2:
            axis = int(self.rng.integers(2))
            x = x.narrow(axis, 0, 1).expand(x.shape)
        if x.shape[2] == 1 and self.rng.integers(2):
            x = x.as_strided(x.shape, (*x.stride()[:2], 3, 1))
        return x

    def packed(self, batch, heads, tokens, dim, count, dtype, tokens_first) -> list[Tensor]:
        """Views [batch, heads, tokens, dim] of one tensor of random numbers."""
        size = self.pick((1.0, 1.0, 4.0))
        shape = (
            (batch, tokens, count, heads, dim)
            if tokens_first
            else (count, batch, heads, tokens, dim)
        )
        numbers = self.rng.standard_normal(shape, dtype=np.float32) * size
        made = torch.from_numpy(np.asarray(numbers, np.float32)).to(self.device, dtype)
        if tokens_first:
            return [part.transpose(1, 2) for part in made.unbind(2)]
        return list(made.unbind(0))


def args_of(case: Case) -> tuple[AttentionArgs, Tensor]:
    """The arguments, with out as NaN, and the memory that out is a part of."""
    batch, heads, queries, dim = case.q.shape
    row = dim + case.gap
    if case.tokens_first:
        memory = case.q.new_full((batch, queries + 2, heads, row), AROUND)
        out = memory[:, 1:-1, :, :dim].transpose(1, 2)
    else:
        memory = case.q.new_full((batch, heads, queries + 2, row), AROUND)
        out = memory[:, :, 1:-1, :dim]
    out.fill_(torch.nan)
    return AttentionArgs(case.q, case.k, case.v, out, case.scale), memory


def run(backend: str, case: Case) -> Tensor:
    """out, after a look at the memory around it."""
    args, memory = args_of(case)
    made = resolve("attention", backend, args)(args.tensors())
    if made is None:
        made = args.out.clone()
    args.out.fill_(AROUND)
    assert (memory == AROUND).all(), "written outside of out"
    return made


def check(backend: str, case: Case) -> None:
    """Against the definition in float64 and the plain float32 sum.

    The rounding unit is that of a score of float32 too: where s is 50, its last place changes weights by
    50 units of theirs.
    """
    got = run(backend, case)
    try:
        assert_accurate(got, *expected(case), unit_size(case))
    except AssertionError as error:
        raise AssertionError(f"{describe(case)}: {error}") from error


@lru_cache(maxsize=200)
def expected(case: Case) -> tuple[Tensor, Tensor]:
    """(the plain float32 sum, the exact result)"""
    return plain.attention(case.q, case.k, case.v, case.scale), definition(case)


def unit_size(case: Case) -> float:
    """What one rounding unit is relative to."""
    factor = args_of(case)[0].factor
    scores = (case.q.double() @ case.k.double().mT).abs().max().item() * abs(factor)
    share = torch.finfo(torch.float32).eps / torch.finfo(case.q.dtype).eps
    return case.v.abs().max().item() * max(1.0, scores * share)


def definition(case: Case) -> Tensor:
    q, k, v = (t.double() for t in (case.q, case.k, case.v))
    args = AttentionArgs(q, k, v, torch.empty_like(q), case.scale)
    resolve("attention", "torch", args)(args.tensors())
    return args.out


def describe(case: Case) -> str:
    strides = [tuple(t.stride()) for t in (case.q, case.k, case.v)]
    return (
        f"q {tuple(case.q.shape)}, k {tuple(case.k.shape)}, {case.q.dtype}, scale {case.scale}, "
        f"strides {strides}, out tokens first: {case.tokens_first}, gap {case.gap}"
    )
