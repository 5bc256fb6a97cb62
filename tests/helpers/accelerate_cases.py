"""A network with a module of every kind, and fixtures that keep times from deciding."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion_engine.accelerate import choose, conv3x3, network
from diffusion_engine.accelerate.compare import difference


@pytest.fixture(autouse=True)
def choose_fused(monkeypatch):
    """Times decide what stays, which a test cannot rely on: the fused network does, with our own
    convolutions."""
    monkeypatch.setattr(choose, "BUDGET", 0.0)
    choose_form(monkeypatch, max)
    monkeypatch.setattr(
        network,
        "min",
        lambda times, key: "fused" if "fused" in times else "original",
        raising=False,
    )


def choose_form(monkeypatch, choice):
    """choice of {0: oneDNN's convolution, 2 or 4: Winograd's with such tiles}."""
    monkeypatch.setattr(conv3x3, "_fastest", {})
    monkeypatch.setattr(conv3x3, "fastest", lambda forms, x: choice(forms))


class Block(nn.Module):
    """A block as EDM writes it: norms and convolutions are modules, SiLU and attention torch's functions."""

    def __init__(self, channels=16, heads=2):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(2, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.affine = nn.Linear(8, 2 * channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.heads = heads

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        x = x + self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), scale + 1)))
        qkv = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).mT
        a = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + a.mT.reshape(x.shape)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.embed = nn.Linear(1, 8)
        self.block = Block()
        self.tokens = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, x, t):
        h = self.block(self.stem(x), self.embed(t[:, None].to(x.dtype)))
        tokens = h.flatten(2).mT
        h = h + self.tokens(tokens, tokens, tokens, need_weights=False)[0].mT.reshape(h.shape)
        return self.head(h)


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Net().eval()
    for p in made.parameters():
        p.data = torch.randn_like(p) * 0.3
    return made


@pytest.fixture
def example():
    torch.manual_seed(1)
    return torch.randn(2, 3, 9, 7), torch.tensor([0.3, 0.8])


def randomised(module):
    torch.manual_seed(0)
    for p in module.parameters():
        p.data = 0.3 * torch.randn_like(p)
    return module.eval()


def close(got, want):
    error, allowed = difference(got, want)
    assert error <= allowed


def text_unet(diffusers):
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=24, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
