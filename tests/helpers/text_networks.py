"""A network of latents that reads prompts, small enough for a test, with a decoder and previews."""

import zlib

import torch

from diffusion_engine import Decoder, ScoreNetwork
from diffusion_engine.processes import VP

LATENT, IMAGE = (2, 4, 4), (3, 8, 8)
TOKENS = (3, 5)


class Encoder:
    """Normals that a prompt's bytes are the seed of; it keeps what it read."""

    origin = "text/of-tests/0"

    def __init__(self):
        self.read = []

    def __call__(self, prompts):
        self.read += prompts
        seeds = [zlib.crc32(prompt.encode()) for prompt in prompts]
        return torch.stack(
            [torch.randn(TOKENS, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )


def reading(x, label, tokens):
    """Every sample's bits are independent of its batch."""
    said = tokens.flatten(1).sum(1).to(x).view(-1, 1, 1, 1)
    return x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, 1, 1, 1) + 0.1 * said


def colours(z):
    """Three channels of two."""
    return torch.cat([z, z[:, :1] - z[:, 1:]], dim=1)


def larger(z):
    return colours(z).repeat_interleave(2, -1).repeat_interleave(2, -2).tanh()


def network():
    return ScoreNetwork(
        reading, VP(), LATENT, null=torch.zeros(TOKENS), name="words", text=Encoder(),
        decoder=Decoder(larger, scale_factor=0.5, preview=colours),
        defaults={"solver": "ddim", "steps": 4, "guidance": 3.0},
    )  # fmt: skip
