"""The U-Net of latents that reads tokens: of a prompt, or of neighbours."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .unet import Attention, Block, fold, norm, unfold, wave, zero

HEAD = 32  # channels of a head of attention


class CrossAttention(nn.Module):
    """Residual attention of all positions to the tokens of a context (Rombach et al. 2022, section 3.3).

    Keys and values have no bias: a token of zeros has the key 0 and the value 0, and adds to the softmax's
    denominator alone. So contexts of fewer tokens are filled with zeros, and zeros alone are no context.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm, self.q = norm(channels), nn.Conv2d(channels, channels, 1)
        self.kv = nn.Linear(width, 2 * channels, bias=False)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = rearrange(self.q(self.norm(x)), "b (k c) h w -> b k (h w) c", c=HEAD)
        kv = rearrange(self.kv(context), "b t (n k c) -> n b k t c", n=2, c=HEAD)
        h = F.scaled_dot_product_attention(q, kv[0], kv[1])
        return x + self.out(rearrange(h, "b k (h w) c -> b (k c) h w", h=x.shape[2]))


class Level(nn.Module):
    """Blocks of one resolution; behind each the positions attend to the context, and before that to each
    other where `own`."""

    def __init__(
        self, channels: int, emb: int, width: int, blocks: int, context: bool, own: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, channels, emb) for _ in range(blocks))
        self.own = nn.ModuleList(Attention(channels) for _ in range(blocks if own else 0))
        self.cross = nn.ModuleList(
            CrossAttention(channels, width) for _ in range(blocks if context else 0)
        )

    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x, emb)
            if self.own:
                x = self.own[i](x)
            if self.cross:
                x = self.cross[i](x, context)
        return x


class ContextUNet(nn.Module):
    """A prediction o(x, t, c) of latents x and a context c of tokens, with a learned gain of x as of UNet.

    The first token, a sentence's embedding or the nearest neighbour's, is in the vector of time as well; all
    are attended to at 1/2 and 1/4 of the latent's side.

    Args:
        channels: widths at the latent's side, 1/2 and 1/4 of it, multiples of 32.
        blocks: of each level on either way; at 1/4 of both ways together.
        emb: width of the vector of time and context, even, at least 4.
        width: of a token.
        inputs: channels of the latents.
        fastest: angular rate of the fastest sinusoid of t, positive.
        guided: it is told its guidance scale, an embedding beside that of t (Meng et al. 2023, section 3.1),
            which starts at zero.

    Raises:
        ValueError: a width does not fit.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (1, 1, 2),
        emb: int = 256,
        width: int = 384,
        inputs: int = 4,
        fastest: float = 100.0,
        guided: bool = False,
    ) -> None:
        super().__init__()
        c1, c2, c3 = channels
        if any(c < 32 or c % 32 for c in channels) or emb < 4 or emb % 2 or min(blocks) < 1:
            raise ValueError(
                f"channels {tuple(channels)}, blocks {tuple(blocks)} and emb {emb} do not fit; give positive "
                "multiples of 32, 1 block or more a level and an even emb of 4 or more"
            )
        if width < 1 or inputs < 1 or not fastest > 0.0:
            raise ValueError(
                f"width {width}, inputs {inputs} and fastest {fastest} do not fit; give 1 or more and a "
                "positive rate"
            )
        self.emb, self.fastest = emb, float(fastest)
        self.time = nn.Sequential(nn.Linear(emb, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.token = nn.Linear(width, emb, bias=False)
        if guided:
            self.scale = nn.Sequential(nn.Linear(emb, emb), nn.SiLU(), zero(nn.Linear(emb, emb)))
        self.gain = zero(nn.Linear(emb, 1))
        self.stem = nn.Conv2d(inputs, c1, 3, padding=1)
        self.down1 = Level(c1, emb, width, blocks[0], context=False)
        self.to2 = nn.Conv2d(4 * c1, c2, 1)
        self.down2 = Level(c2, emb, width, blocks[1], context=True)
        self.to3 = nn.Conv2d(4 * c2, c3, 1)
        self.mid = Level(c3, emb, width, blocks[2], context=True, own=True)
        self.from3 = nn.Conv2d(c3, 4 * c2, 1)
        self.up2 = Level(c2, emb, width, blocks[1], context=True)
        self.from2 = nn.Conv2d(c2, 4 * c1, 1)
        self.up1 = Level(c1, emb, width, blocks[0], context=False)
        self.norm, self.head = norm(c1), zero(nn.Conv2d(c1, inputs, 3, padding=1))

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, guidance: Tensor | None = None
    ) -> Tensor:
        """The prediction.

        Args:
            x: [B, inputs, H, W] float, H and W multiples of 4.
            t: [B] float, time in [0, 1].
            context: [B, T, width] tokens; zeros are none.
            guidance: [B] float, the scale s, where it is `guided`; 1 is the context alone.

        Returns:
            [B, inputs, H, W] of x's dtype.
        """
        told = self.time(wave(t, self.emb, self.fastest, x.dtype)) + self.token(context[:, 0])
        if guidance is not None:
            # A tenth of s is about as large as a time.
            told = told + self.scale(wave(0.1 * guidance, self.emb, self.fastest, x.dtype))
        emb = F.silu(told)
        h1 = self.down1(self.stem(x), emb, context)
        h2 = self.down2(self.to2(fold(h1)), emb, context)
        h = self.mid(self.to3(fold(h2)), emb, context)
        h = self.up2(unfold(self.from3(h)) + h2, emb, context)
        h = self.up1(unfold(self.from2(h)) + h1, emb, context)
        return self.gain(emb)[:, :, None, None] * x + self.head(F.silu(self.norm(h)))
