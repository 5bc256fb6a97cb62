"""A tiny network that is told prompts, and a decoder of its latents, in closed forms."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Decoder, ScoreNetwork
from diffusion_engine.processes import VP, FlowMatching

TOKENS, WIDTH = 4, 6


@dataclass(frozen=True)
class Letters:
    """A stand-in for a text encoder: a token for each of the first words, of the first letters of it."""

    origin: str = "text/letters/1"

    def __call__(self, prompts):
        return torch.stack([self.tokens(prompt) for prompt in prompts])

    def tokens(self, prompt):
        made = torch.zeros(TOKENS, WIDTH)
        for i, word in enumerate(prompt.split()[:TOKENS]):
            for j, letter in enumerate(word[:WIDTH]):
                made[i, j] = (ord(letter) - 96) / 13.0
        return made


class Attends(nn.Module):
    """x0 = tanh of pixels that attend to the tokens of a text; a token of zeros is a sink."""

    def __init__(self, channels=2, width=8):
        super().__init__()
        self.q, self.out = nn.Linear(channels + 1, width), nn.Linear(width, channels)
        self.kv = nn.Linear(WIDTH, 2 * width, bias=False)

    def forward(self, x, label, text, guidance=None):
        n = len(x)
        each = x.flatten(2).transpose(1, 2)
        told = label if guidance is None else label + 0.1 * guidance
        told = told.view(n, 1, 1).expand(n, each.shape[1], 1)
        q = self.q(torch.cat([each, told], dim=2))[:, None]
        k, v = self.kv(text)[:, None].chunk(2, dim=-1)
        made = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0] + q[:, 0])
        return torch.tanh(made).transpose(1, 2).reshape(x.shape)


class Codec(nn.Module):
    """Twice the side, three channels, and back: z of two channels becomes (a, b, a + b) of each pixel."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, z):
        made = torch.cat([z, z.sum(dim=1, keepdim=True)], dim=1) * self.gain
        return made.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Halves(Codec):
    def forward(self, x):
        return x[:, :2, ::2, ::2] / self.gain


def codec(**options):
    linear = nn.Conv2d(2, 3, 1)
    return Decoder(
        Codec(), **({"scale_factor": 2.0, "shift": 0.5, "channels": 2} | options),
        encoder=Halves(), preview=linear,
    )  # fmt: skip


def attending(process=None, **options):
    """The network, of latents [2, 4, 4]."""
    torch.manual_seed(0)
    said = {
        "prediction": "x0", "null": torch.zeros(TOKENS, WIDTH), "text": Letters(), "name": "letters",
        "defaults": {"solver": "ddim", "steps": 4, "guidance": 3.0},
    }  # fmt: skip
    return ScoreNetwork(Attends().eval(), process or VP(), (2, 4, 4), **(said | options))


def drawn(**options):
    """For --model text_cases:drawn: pictures [3, 8, 8] of the latents."""
    return attending(decoder=codec(), **options)


def flowing():
    """The same on straight paths."""
    return attending(FlowMatching(), prediction="flow", decoder=codec())


def looking():
    """One that is told two neighbours, for command lines: x0 is of the first numbers of both tokens."""

    def weighed(x, label, context):
        each = (context[:, 0] + context[:, 1] / 2.0)[:, : x.shape[1]]
        return each[..., None, None].expand(x.shape)

    return ScoreNetwork(
        weighed, VP(), (3, 4, 4), prediction="x0", null=torch.zeros(2, 384), name="looking",
        defaults={"solver": "ddim", "steps": 2, "guidance": 1.0},
    )  # fmt: skip
