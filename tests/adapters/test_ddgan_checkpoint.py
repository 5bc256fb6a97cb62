"""Generators of denoising diffusion GANs from folders, against the published sampler; their conventions."""

import json
import re

import numpy as np
import pytest
import torch
from ncsnpp_cases import REFERENCE, called, normals, save_network
from oracles.ddgan import chain

from diffusion_engine import Sampler
from diffusion_engine.adapters import ddgan as reader
from diffusion_engine.adapters.checkpoint import open_checkpoint
from diffusion_engine.adapters.ddgan import ddgan_network, from_ddgan
from diffusion_engine.ops import philox

SEEDS, SHAPE = (3, 4), (3, 4, 4)
CONFIG = {
    "format": "ddgan", "image_size": 4, "num_channels": 3, "num_channels_dae": 8, "ch_mult": [1, 2],
    "num_res_blocks": 1, "attn_resolutions": [2], "z_emb_dim": 12, "n_mlp": 2, "nz": 10,
    "num_timesteps": 4, "dataset": "cifar10", "epoch_id": 1200,
}  # fmt: skip
ONE = {
    "num_timesteps": 2, "resblock_type": "biggan_oneadagn", "progressive": "output_skip",
    "progressive_input": "input_skip", "not_use_tanh": True,
}  # fmt: skip


def saved(folder, **changed):
    config = CONFIG | changed
    return save_network(folder, config, reader._read(config, "it")[0])


@pytest.mark.parametrize("changed", [{}, ONE], ids=["four steps", "two steps"])
def test_the_published_sampler(changed, tmp_path):
    """x0 = G(x, i, z) with a z of each step, then the posterior; the last step returns x0 itself."""
    network = open_checkpoint(saved(tmp_path / "net", **changed))
    n, generator = (CONFIG | changed)["num_timesteps"], called(network.module)
    start = np.random.default_rng(0).normal(size=(2, *SHAPE))
    ours = Sampler(network, "ddgan", n, **REFERENCE).sample(
        x=torch.from_numpy(start), noised=True, seeds=SEEDS
    )
    *_, c1, c2, std = chain(n)
    x, seeds = start, torch.tensor(SEEDS)
    for step, i in enumerate(reversed(range(n)), 1):
        row = philox.STATE | step
        z = philox.normals(seeds, torch.full_like(seeds, row), philox.LATENT, 10).double().numpy()
        x = c1[i] * generator(x, i, z) + c2[i] * x + std[i] * normals(row, SHAPE, SEEDS)
    assert ours.samples.numpy() == pytest.approx(x, rel=1e-9, abs=1e-9)
    assert changed or np.abs(x).max() <= 1.0  # of tanh


def test_the_calling_convention():
    """t as int64 from n - 1 to 0, z of nz normals."""
    seen = []

    def generator(x, t, z):
        seen.append((t.dtype, int(t[0]), z.shape))
        return 0.0 * x

    network = ddgan_network(generator, (1, 2, 2))
    Sampler(network, "ddgan", 4).sample(2)
    assert seen == [(torch.int64, i, (2, 100)) for i in (3, 2, 1, 0)]
    assert network.process.alpha_bar == pytest.approx(chain(4)[1])


def test_a_geometric_chain():
    """Its variances are beta_min (beta_max / beta_min)^t, and the chain starts anew from the first."""
    made = reader.chain(2, 0.01, 0.5, geometric=True).alpha_bar
    bar = [1.0 - 0.01 * 50.0**t for t in (0.001, 0.5005, 1.0)]
    assert made == pytest.approx([bar[1] / bar[0], bar[2] / bar[0]])
    with pytest.raises(ValueError, match="alpha_bar has to fall strictly"):
        reader.chain(2, geometric=True)  # of betas beyond 1


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"resblock_type": "ddpm"}, "resblock_type='ddpm': choose biggan, biggan_oneadagn"),
        (
            {"nz": 11},
            "tensors of another shape: z_transform.1.weight [12, 10] in place of [12, 11]",
        ),
        ({"n_mlp": 3}, "lacks 2 of the tensors of the network's 164: z_transform.7.weight"),
        ({"num_timestep": 2}, "unknown 'num_timestep'; did you mean num_timesteps?"),
    ],
)
def test_refusals(changed, message, tmp_path):
    path = saved(tmp_path / "net") / "config.json"
    path.write_text(json.dumps(CONFIG | changed))
    with pytest.raises(ValueError, match=re.escape(message)):
        from_ddgan(path.parent)
