"""The sites of plain torch layers: GroupNorm, SiLU after it, Conv2d, MultiheadAttention."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.attention import DIMS, DTYPES
from ..ops.functional import attention, group_norm
from .packed import Packed, packing
from .replacement import Site, wants_original


def normalize(norm: nn.GroupNorm, x: Tensor, **options: Any) -> Tensor:
    """A GroupNorm's function of x by the fused op, with options of `group_norm`."""
    run = torch.ops.diffusion_engine.group_norm if torch.compiler.is_compiling() else group_norm
    return run(x, norm.num_groups, norm.weight, norm.bias, norm.eps, **options)


def normalizes(x: Tensor) -> bool:
    """Whether the fused op takes x."""
    return x.dtype in DTYPES and x.ndim >= 2 and x.numel() > 0


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`attention`, as one node under torch.compile."""
    run = torch.ops.diffusion_engine.attention if torch.compiler.is_compiling() else attention
    return run(q, k, v, scale)


def attends(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the fused op takes q, k and v."""
    if (
        q.ndim != 4
        or k.shape != v.shape
        or q.shape[:2] != k.shape[:2]
        or q.shape[3:] != k.shape[3:]
    ):
        return False
    known = q.dtype in DTYPES and q.dtype == k.dtype == v.dtype
    return known and DIMS[0] <= q.shape[3] <= DIMS[1] and q.numel() > 0 and k.numel() > 0


def unsuited(dim: int) -> str | None:
    """Why heads of so many elements cannot attend by the fused op, or None."""
    low, high = DIMS
    return None if low <= dim <= high else f"its heads have {dim} elements, not {low} to {high}"


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
        norm = self.module
        if not normalizes(x) or x.shape[1] != norm.num_channels or wants_original(norm, x):
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
        self.packs: Packed | None = None
        self.geometry = geometry(module)

    @property
    def packed(self) -> dict[int, Tensor]:
        """The packed weights, oneDNN's at 0."""
        return {} if self.packs is None else self.packs.forms

    def __getstate__(self) -> dict[str, Any]:
        """A copy packs its own weight at its first call."""
        return vars(self) | {"packs": None}

    def objection(self) -> str | None:
        if reason := super().objection():
            return reason
        conv = self.module
        if "weight" not in conv._parameters.keys() | conv._buffers.keys():
            return "a hook makes its weight anew (weight_norm, spectral_norm, pruning); remove that first"
        if conv.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return "weights are packed for the CPU with oneDNN alone"
        if conv.weight.dtype != torch.float32:
            return f"weights are packed in float32 alone; this one is {conv.weight.dtype}"
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            return f"padding {conv.padding!r} with {conv.padding_mode} is none of oneDNN's"
        return None

    def _weight(self, x: Tensor) -> Tensor:
        conv, padding, shape = self.module, self.module.padding, x.shape
        return self._kept(0, lambda weight: torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, conv.stride, conv.dilation, conv.groups, shape
        ))  # fmt: skip

    def _kept(self, key: int, pack: Callable[[Tensor], Tensor]) -> Tensor:
        """A packed form of the weight, made at its first use."""
        weight, packs = self.module.weight, self.packs
        if torch.compiler.is_compiling():
            return weight if packs is None else packs.forms.get(key, weight)
        if packs is None:
            with packing:
                packs = self.packs = self.packs or Packed(weight)
        if not packs.of(weight):
            raise RuntimeError(
                f"the weight of {self.name!r} changed after accelerate(), which packed it: call refresh() of "
                "the result of accelerate(). Where it is another tensor at every call (weight_norm, "
                "functional_call), restore() and accelerate() again"
            )
        return packs.form(key, pack)

    def refresh(self, total: int) -> None:
        """Packs the weight again unless it is as it was; `total` is its checksum now."""
        packs, weight = self.packs, self.module.weight
        if packs is not None and not (packs.of(weight) and packs.total == total):
            self.packs = packs.again(weight)

    def _wants_original(self, x: Tensor, residual: Tensor | None = None) -> bool:
        conv = self.module
        taken = x.dtype == torch.float32 and x.ndim == 4 and x.numel() > 0
        if not taken or x.shape[1] != conv.in_channels or x.device.type != "cpu":
            return True
        if geometry(conv) != self.geometry or "_conv_forward" in vars(conv):
            return True
        return wants_original(conv, x, residual)

    def forward(self, x: Tensor) -> Tensor:
        return self.original(x) if self._wants_original(x) else self._fused(x)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """forward(x) + residual, the sum made while the result is in registers."""
        if self._wants_original(x, residual) or residual.dtype != x.dtype:
            return self.original(x) + residual
        return self._fused(x, residual)

    def _fused(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        run, weight = torch.ops.mkldnn._convolution_pointwise, self._weight(x)
        given = weight, self.module.bias, *self._geometry()
        if residual is None:
            return run(x, *given, "none", [], "")
        return run.binary(x, residual, *given, "add", None, None, [], None)

    def _geometry(self) -> tuple[Any, ...]:
        stride, padding, dilation, groups, _ = self.geometry
        return padding, stride, dilation, groups


def geometry(conv: nn.Conv2d) -> tuple[Any, ...]:
    """What decides a convolution beside its weight and bias."""
    return conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode


class MultiheadAttentionSite(Site):
    """torch's MultiheadAttention where neither masks nor attention weights are asked for."""

    kind = "attention"
    module: nn.MultiheadAttention

    def objection(self) -> str | None:
        m = self.module
        if m.bias_k is not None or m.add_zero_attn:
            return "it adds keys of its own (add_bias_kv, add_zero_attn)"
        return unsuited(m.head_dim) or super().objection()

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        m = self.module
        masked = key_padding_mask is not None or attn_mask is not None or is_causal
        if not (masked or need_weights or query.ndim != 3 or wants_original(m, query, key, value)):
            q, k, v = (self._heads(t) for t in self._project(query, key, value))
            if attends(q, k, v):
                return self._merged(attend(q, k, v)), None
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
