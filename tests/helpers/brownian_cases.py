"""Arguments of the op `brownian`."""

import numpy as np
import torch

from diffusion_engine.ops import layout as at
from diffusion_engine.ops.brownian import BrownianArgs


def arguments(shape, last=False, seed=0):
    """[draws, batch, ...] buffers, rows of several lengths, one sample that is done."""
    draws, batch, rows = *shape[:2], 5
    generator = np.random.default_rng(seed)
    terms = generator.integers(0, 2**31, (rows, draws, at.HEADER + at.TERMS), dtype=np.int32)
    terms[..., 0] = generator.integers(0, at.TERMS + 1, (rows, draws))
    terms[0, 0, 0], terms[1, -1, 0], terms[..., 1] = 1, 0, generator.integers(0, 6, (rows, draws))
    weight = generator.standard_normal((rows, draws, at.TERMS)).astype(np.float32)
    row = np.arange(batch, dtype=np.int32) % rows
    row[-1] = -1 if batch > 1 else 0
    out = torch.full(shape, -7.0)
    if last:
        out = torch.full((*shape[:2], *shape[3:], shape[2]), -7.0).movedim(-1, 2)
    seeds = torch.from_numpy(generator.integers(-(2**63), 2**63 - 1, batch))
    return BrownianArgs(out, seeds, *map(torch.from_numpy, (row, terms, weight)))
