"""The op `attention` by torch's scaled_dot_product_attention, where cuDNN or FlashAttention compute it.

Which of torch's kernels takes a call is torch's own choice, by the device and by what the user
enabled. Its two others are refused, and ours serve: one is slower, one builds the matrix of queries x keys.

The same call gives the same bits twice. A sample alone need not have those that it has in a batch:
FlashAttention splits the keys where there are few samples and heads, and cuDNN chooses by the shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from ..ops.attention import AttentionArgs, Launch
from ..ops.op import Implementation

FUSED = (SDPBackend.CUDNN_ATTENTION.value, SDPBackend.FLASH_ATTENTION.value)


def objection(args: AttentionArgs) -> str | None:
    """Why this implementation cannot take args, or None."""
    if args.factor < 0:
        return f"FlashAttention may overflow where the scale is negative, {args.factor}"
    q, k, v = args.q, args.k, args.v
    try:
        with torch.no_grad():
            chosen = torch._fused_sdp_choice(q, k, v, scale=args.scale)
    except RuntimeError as error:  # all that could serve was disabled
        return f"torch's attention is disabled ({str(error).splitlines()[0]})"
    if chosen in FUSED:
        return None
    return (
        f"neither cuDNN nor FlashAttention, as enabled in torch, takes heads of {q.shape[3]} in {q.dtype} on "
        f"{q.device} with strides {q.stride()}, {k.stride()}, {v.stride()}"
    )


def bind(args: AttentionArgs) -> Launch:
    """A launch that returns the result."""
    scale = args.scale

    def launch(tensors: Sequence[Tensor]) -> Tensor:
        q, k, v, _ = tensors
        with torch.no_grad():
            made = F.scaled_dot_product_attention(q, k, v, scale=scale)
        # It lies as q does; where that is how layers leave it, nothing is copied.
        return made.transpose(1, 2).contiguous().transpose(1, 2)

    return launch


SDPA = Implementation(bind=bind, objection=objection)
