"""The sites of plain torch layers: GroupNorm, SiLU after it, Conv2d, MultiheadAttention."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.functional import attention, group_norm
from .site import Site, wants_original

packing = RLock()  # what is made once for all threads: packed weights and choices


def normalize(norm: nn.GroupNorm, x: Tensor, **options: Any) -> Tensor:
    """A GroupNorm's function of x by the fused op, with options of `group_norm`."""
    run = torch.ops.diffusion_engine.group_norm if torch.compiler.is_compiling() else group_norm
    return run(x, norm.num_groups, norm.weight, norm.bias, norm.eps, **options)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`attention`, as one node under torch.compile."""
    run = torch.ops.diffusion_engine.attention if torch.compiler.is_compiling() else attention
    return run(q, k, v, scale)


class GroupNormSite(Site):
    """A GroupNorm by the fused op, and the SiLU that alone reads its result."""

    module: nn.GroupNorm

    def __init__(self, name: str, module: nn.GroupNorm) -> None:
        super().__init__(name, module)
        self.silu: SiluSite | None = None

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "group_norm" if self.silu is None else "group_norm + SiLU"

    def covers(self) -> Iterable[nn.Module]:
        return () if self.silu is None else (self.module, self.silu.module)

    def expected(self, result: Tensor) -> Tensor:
        return result if self.silu is None else nn.functional.silu(result)

    def forward(self, x: Tensor) -> Tensor:
        if wants_original(self.module, x):
            return self.original(x)
        if self.silu is None:
            return normalize(self.module, x)
        return self.silu.mark(normalize(self.module, x, silu=True))

    def install(self) -> None:
        super().install()
        if self.silu is not None:
            self.silu.install()

    def remove(self) -> None:
        super().remove()
        if self.silu is not None:
            self.silu.remove()


class SiluSite(Site):
    """A SiLU that has been applied by the GroupNorm before it, which says so on its result: other calls,
    and other threads, have results of their own."""

    def mark(self, x: Tensor) -> Tensor:
        x._silu = self  # type: ignore[attr-defined]
        return x

    def forward(self, x: Tensor) -> Tensor:
        if getattr(x, "_silu", None) is not self:
            return self.original(x)
        x._silu = None  # type: ignore[attr-defined]
        return x


class Conv2dSite(Site):
    """A convolution of oneDNN with weights packed once, and the addition after it.

    The packed copy takes as much memory again as the weight. Threads share it: what is kept is replaced,
    never changed.
    """

    kind = "packed conv2d"
    module: nn.Conv2d

    def __init__(self, name: str, module: nn.Conv2d) -> None:
        super().__init__(name, module)
        # What the weight was, and its forms: oneDNN's at 0.
        self._made: tuple[tuple[int, int], dict[int, Tensor]] = ((0, 0), {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Conv2dSite:
        made = memo[id(self)] = type(self)(self.name, copy.deepcopy(self.module, memo))
        return made  # packs its own weight at its first call

    @property
    def packed(self) -> dict[int, Tensor]:
        return self._made[1]

    def objection(self) -> str | None:
        if reason := super().objection():
            return reason
        conv = self.module
        if conv.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return "weights are packed for the CPU with oneDNN alone"
        if conv.weight.dtype != torch.float32:
            return f"weights are packed in float32 alone; this one is {conv.weight.dtype}"
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            return f"padding {conv.padding!r} with {conv.padding_mode} is none of oneDNN's"
        return None

    def _weight(self, x: Tensor) -> Tensor:
        conv, padding = self.module, self.module.padding
        return self._kept(0, lambda weight: torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, conv.stride, conv.dilation, conv.groups, x.shape
        ))  # fmt: skip

    def _kept(self, key: int, pack: Callable[[Tensor], Tensor]) -> Tensor:
        """A packed form of the weight, made at its first use."""
        weight = self.module.weight
        if torch.compiler.is_compiling():
            return self.packed.get(key, weight)
        (source, forms), now = self._made, self._now()
        if forms and now != source:
            raise RuntimeError(
                f"the weight of {self.name!r} changed after accelerate(), which packed it: call "
                "refresh() of the result of accelerate(), or restore() and accelerate() again"
            )
        if key not in forms:
            with packing:
                source, forms = self._made
                forms = forms if now == source else {}
                if key not in forms:
                    forms = {**forms, key: pack(weight.detach())}
                    self._made = now, forms
        return forms[key]

    def _keep_only(self, keys: Collection[int]) -> None:
        with packing:
            source, forms = self._made
            self._made = source, {key: form for key, form in forms.items() if key in keys}

    def _now(self) -> tuple[int, int]:
        """What changes with the weight; inference tensors do not count their versions."""
        weight = self.module.weight
        return weight.data_ptr(), 0 if weight.is_inference() else weight._version

    def refresh(self) -> None:
        if self._now() != self._made[0]:
            self._made = ((0, 0), {})

    def _geometry(self) -> tuple[Any, ...]:
        conv = self.module
        return conv.padding, conv.stride, conv.dilation, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        if wants_original(self.module, x) or x.dtype != torch.float32 or x.ndim != 4:
            return self.original(x)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._weight(x), self.module.bias, *self._geometry(), "none", [], ""
        )

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """forward(x) + residual, the sum made while the result is in registers."""
        if wants_original(self.module, x) or x.dtype != torch.float32 or residual.dtype != x.dtype:
            return self.original(x) + residual
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, residual, self._weight(x), self.module.bias, *self._geometry(), "add", None, None, [], None
        )  # fmt: skip


class MultiheadAttentionSite(Site):
    """torch's MultiheadAttention where neither masks nor attention weights are asked for."""

    kind = "attention"
    module: nn.MultiheadAttention

    def objection(self) -> str | None:
        m = self.module
        if m.bias_k is not None or m.add_zero_attn:
            return "it adds keys of its own (add_bias_kv, add_zero_attn)"
        return super().objection()

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        m = self.module
        masked = key_padding_mask is not None or attn_mask is not None or is_causal
        if masked or need_weights or query.ndim != 3 or wants_original(m, query):
            return self.original(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )  # fmt: skip
        q, k, v = (self._heads(t) for t in self._project(query, key, value))
        out = attend(q, k, v)  # [B, H, N, D]
        batch, _, tokens, _ = out.shape
        if not m.batch_first:
            out = out.permute(2, 0, 1, 3).reshape(tokens, batch, -1)
        else:
            out = out.transpose(1, 2).reshape(batch, tokens, -1)
        return m.out_proj(out), None

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
