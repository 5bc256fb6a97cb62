"""The forward of a BERT encoder (Devlin et al. 2019) over its safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Bert:
    """x_0 = norm(word + position + type); x_l = norm(a + mlp(a)), a = norm(x + attention(x)).

    weights  float32, under transformers' names; the file stays mapped, and of the embeddings only rows that
             are looked up are read
    """

    weights: Mapping[str, Tensor]
    layers: int
    heads: int
    eps: float

    @classmethod
    def load(cls, folder: Path) -> Bert:
        """From `config.json` and `model.safetensors` of a folder."""
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_text())
        return cls(
            load_file(folder / "model.safetensors"),
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            eps=config["layer_norm_eps"],
        )

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        """The last hidden states [n, length, width] of sentences of equal length, ids [n, length]."""
        with torch.autocast("cpu", enabled=False):
            x = self._embed(ids)
            for i in range(self.layers):
                at = f"encoder.layer.{i}."
                attended = self._linear(at + "attention.output.dense", self._attend(at, x))
                x = self._norm(at + "attention.output.LayerNorm", x + attended)
                hidden = F.gelu(self._linear(at + "intermediate.dense", x))
                x = self._norm(
                    at + "output.LayerNorm", x + self._linear(at + "output.dense", hidden)
                )
            return x

    def _embed(self, ids: Tensor) -> Tensor:
        word, position, kind = (
            self.weights[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        return self._norm("embeddings.LayerNorm", word[ids] + kind[0] + position[: ids.shape[1]])

    def _attend(self, at: str, x: Tensor) -> Tensor:
        q, k, v = (
            self._linear(f"{at}attention.self.{name}", x)
            .unflatten(2, (self.heads, -1))
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)
