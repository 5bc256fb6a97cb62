"""Replacements of diffusers' ResnetBlock2D and Attention; diffusers itself is not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .conv2d import FusedConv2d
from .fused_ops import attention_takes, group_norm_takes, objection_to_heads, op, settings
from .replacement import Replacement, wants_original

PROCESSOR = "AttnProcessor2_0"  # diffusers' default


class FusedResnetBlock(Replacement):
    """Two fused norms with SiLU and a fused skip for a ResnetBlock2D.

    The first norm reads x; the second reads h + time, or h with time's scale and shift. conv2 adds the skip.
    """

    kind = "resnet block"
    module: Any

    def covers(self) -> Iterable[nn.Module]:
        m = self.module
        return m.norm1, m.norm2, m.nonlinearity, m.dropout, m.conv2

    def objection(self) -> str | None:
        m = self.module
        if not isinstance(m.nonlinearity, nn.SiLU):
            return f"its activation is {type(m.nonlinearity).__name__}, not SiLU"
        if m.time_embedding_norm not in ("default", "scale_shift"):
            return f"its time_embedding_norm is {m.time_embedding_norm!r}"
        for norm in (m.norm1, m.norm2):
            if type(norm) is not nn.GroupNorm:
                return f"its norm is a {type(norm).__name__}"
        return super().objection()

    def forward(
        self, input_tensor: Tensor, temb: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        m, x = self.module, input_tensor
        given = args or kwargs.get("scale") is not None
        if given or not self._takes(x, temb) or wants_original(m, x, temb):
            return self.original(input_tensor, temb, *args, **kwargs)
        h = op("group_norm")(x, *settings(m.norm1), silu=True)
        resample = m.upsample if m.upsample is not None else m.downsample
        if resample is not None:
            x, h = resample(x), resample(h)
        h = op("group_norm")(m.conv1(h), *settings(m.norm2), silu=True, **self._time(temb))
        if m.conv_shortcut is not None:
            x = m.conv_shortcut(x)
        y = self._conv2(h, x)
        return y if m.output_scale_factor == 1.0 else y / m.output_scale_factor

    def _takes(self, x: Tensor, temb: Tensor | None) -> bool:
        """Whether `group_norm` takes x, and the block's time layer, if any, a row of temb a sample."""
        m = self.module
        if not group_norm_takes(x):
            return False
        if m.time_emb_proj is None:
            return temb is None
        if temb is None:
            return m.time_embedding_norm == "scale_shift"  # `_time` says what is missing
        return temb.ndim == 2 and len(temb) == len(x) and temb.dtype == x.dtype

    def _time(self, temb: Tensor | None) -> dict[str, Tensor]:
        """What the time embedding [B, C or 2C] is to the second norm."""
        m = self.module
        if temb is not None:
            temb = m.time_emb_proj(temb if m.skip_time_act else F.silu(temb))
        if m.time_embedding_norm == "scale_shift":
            if temb is None:
                raise ValueError(
                    f"{self.name}: time_embedding_norm='scale_shift' needs temb, got None"
                )
            scale, shift = temb.chunk(2, dim=1)
            return {"scale": scale, "shift": shift}
        return {} if temb is None else {"residual": temb}

    def _conv2(self, h: Tensor, x: Tensor) -> Tensor:
        conv = getattr(self.module.conv2.forward, "__self__", None)
        return conv.add(h, x) if isinstance(conv, FusedConv2d) else self.module.conv2(h) + x


class FusedAttention(Replacement):
    """`attention` for an Attention with its default processor, self or cross, without masks."""

    kind = "attention"
    module: Any

    def covers(self) -> Iterable[nn.Module]:
        return () if self.module.group_norm is None else (self.module.group_norm,)

    def objection(self) -> str | None:
        m = self.module
        if (processor := self._processor()) != PROCESSOR:
            return f"its processor is {processor}, which computes something else"
        if m.spatial_norm is not None or m.norm_q is not None or m.norm_k is not None:
            return "it normalises its queries, keys or positions"
        if m.group_norm is not None and type(m.group_norm) is not nn.GroupNorm:
            return f"its norm is a {type(m.group_norm).__name__}"
        return objection_to_heads(m.inner_dim // m.heads) or super().objection()

    def _processor(self) -> str:
        return type(self.module.processor).__name__

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        m, x, context = self.module, hidden_states, encoder_hidden_states
        others = any(value is not None for name, value in kwargs.items() if name != "temb")
        masked = attention_mask is not None or self._processor() != PROCESSOR
        if not (masked or others or not group_norm_takes(x) or wants_original(m, x, context)):
            tokens = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
            if m.group_norm is not None:
                channels_first = tokens.transpose(1, 2)
                tokens = op("group_norm")(channels_first, *settings(m.group_norm)).transpose(1, 2)
            q, k, v = self._project(tokens, context)
            if attention_takes(q, k, v):
                return self._merged(op("attention")(q, k, v), x)
        return self.original(hidden_states, encoder_hidden_states, attention_mask, **kwargs)

    def _project(self, tokens: Tensor, context: Tensor | None) -> Iterable[Tensor]:
        m = self.module
        if context is None:
            context = tokens
        elif m.norm_cross:
            context = m.norm_encoder_hidden_states(context)
        given = ((m.to_q, tokens), (m.to_k, context), (m.to_v, context))
        return [self._heads(f(t)) for f, t in given]

    def _merged(self, h: Tensor, x: Tensor) -> Tensor:
        """The heads [B, H, N, D] through the last layers, like x."""
        m = self.module
        h = h.transpose(1, 2).flatten(2)
        for layer in m.to_out:
            h = layer(h)
        if x.ndim == 4:
            h = h.transpose(1, 2).unflatten(2, x.shape[2:])
        if m.residual_connection:
            h = h + x
        return h if m.rescale_output_factor == 1.0 else h / m.rescale_output_factor

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.module.heads, -1)).transpose(1, 2)


CLASSES: dict[str, Callable[[str, nn.Module], Replacement]] = {
    "diffusers.models.resnet.ResnetBlock2D": FusedResnetBlock,
    "diffusers.models.attention_processor.Attention": FusedAttention,
}
