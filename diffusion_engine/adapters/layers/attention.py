"""Self-attention over all positions of an image."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def heads_of(channels: int, head: int) -> int:
    """How many heads of `head` channels there are. Raises ValueError where some are left over."""
    heads, left = divmod(channels, head)
    if left:
        raise ValueError(
            f"a block of {channels} channels attends by heads of {head}, which do not divide them"
        )
    return heads


def attend(qkv: Tensor, heads: int, order: str) -> Tensor:
    """softmax(q^T k / sqrt(c)) v of each head: [B, 3 C, *pixel] to [B, C, *pixel] (Vaswani et al. 2017).

    order  of heads n, channels c and parts k = (q, k, v) on the channel axis, slowest first: "n k c" say
    """
    q, k, v = rearrange(qkv.flatten(2), f"b ({order}) p -> k b n p c", k=3, n=heads).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v)
    return rearrange(out, "b n p c -> b (n c) p").unflatten(2, qkv.shape[2:])
