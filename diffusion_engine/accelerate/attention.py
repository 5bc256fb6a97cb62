"""The replacement of torch's MultiheadAttention."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from .fused_ops import attention_takes, objection_to_heads, op
from .replacement import Replacement, wants_original


class FusedMultiheadAttention(Replacement):
    """`attention` for a MultiheadAttention that is asked for neither masks nor attention weights."""

    kind = "attention"
    module: nn.MultiheadAttention

    def objection(self) -> str | None:
        m = self.module
        if m.bias_k is not None or m.add_zero_attn:
            return "it adds keys of its own (add_bias_kv, add_zero_attn)"
        return objection_to_heads(m.head_dim) or super().objection()

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        m = self.module
        masked = key_padding_mask is not None or attn_mask is not None or is_causal
        if not (masked or need_weights or query.ndim != 3 or wants_original(m, query, key, value)):
            q, k, v = (self._heads(t) for t in self._project(query, key, value))
            if attention_takes(q, k, v):
                return self._merged(op("attention")(q, k, v)), None
        return self.original(
            query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )  # fmt: skip

    def _merged(self, out: Tensor) -> Tensor:
        """[B, H, N, D] through the last layer, [B, N, C] or [N, B, C]."""
        m = self.module
        batch, _, tokens, _ = out.shape
        if not m.batch_first:
            out = out.permute(2, 0, 1, 3).reshape(tokens, batch, -1)
        else:
            out = out.transpose(1, 2).reshape(batch, tokens, -1)
        return m.out_proj(out)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> Iterable[Tensor]:
        m, linear = self.module, nn.functional.linear
        if m._qkv_same_embed_dim and query is key is value:
            return linear(query, m.in_proj_weight, m.in_proj_bias).chunk(3, dim=-1)
        weights: Iterable[Tensor] = (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight)
        if m._qkv_same_embed_dim:
            weights = m.in_proj_weight.chunk(3)
        biases = (None,) * 3 if m.in_proj_bias is None else m.in_proj_bias.chunk(3)
        given = zip((query, key, value), weights, biases, strict=True)
        return [linear(x, w, b) for x, w, b in given]

    def _heads(self, x: Tensor) -> Tensor:
        """[B, N, C] or [N, B, C] to [B, H, N, D]; a view."""
        split = x.unflatten(-1, (self.module.num_heads, -1))
        return split.transpose(1, 2) if self.module.batch_first else split.permute(1, 2, 0, 3)
