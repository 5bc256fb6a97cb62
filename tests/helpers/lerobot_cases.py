"""Weights and inputs of a small U-Net of lerobot's diffusion policy, the same in its own code and here."""

import torch

UNET = {"down_dims": [8, 16, 24], "kernel_size": 5, "n_groups": 4, "diffusion_step_embed_dim": 8}
CONDITION = 5


def weights(shapes):
    """Numbers for every name, in the order of the names; those of norms lie about 1."""
    numbers = torch.Generator().manual_seed(0)
    return {
        name: (name.endswith("block.1.weight") + 0.3 * torch.randn(shapes[name], generator=numbers))
        for name in sorted(shapes)
    }


def given():
    """x [n, horizon, actions], timesteps and the condition."""
    numbers = torch.Generator().manual_seed(1)
    x = torch.randn(2, 8, 2, generator=numbers)
    return x, torch.tensor([3, 77]), torch.randn(2, CONDITION, generator=numbers)
