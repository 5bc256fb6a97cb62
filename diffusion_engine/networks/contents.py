"""`Contents`: what a module is made of, to see later whether it still is."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from .network import check_finite

# Values that are the same where they are equal.
VALUES = (int, float, complex, str, bytes, torch.dtype, torch.device)
# What copy.deepcopy leaves as it is.
ATOMS = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    Tensor,
)


class Contents:
    """The items of some dicts and sequences; of a whole module with `of`.

    `same` says whether they still are the same objects, or equal numbers and strings. It takes some 40 ns
    an item, so it can be asked before every run.
    """

    def __init__(self, dicts: list[dict], sequences: Sequence[Any] = ()) -> None:
        self._all = [*dicts, *sequences]
        self.sizes = self._sizes()
        # What was empty is, where its size is the same.
        self.dicts = [found for found in dicts if found]
        self.sequences = [found for found in sequences if found]
        self.keys = list(chain.from_iterable(self.dicts))
        self.values = self._values()

    @classmethod
    def of(cls, module: nn.Module) -> Contents:
        """Everything within a module: submodules, parameters, buffers, hooks and attributes, and what those
        hold; not the values of tensors."""
        dicts: list[dict] = []
        sequences: list[Any] = []
        for found in within(module):
            (dicts if isinstance(found, dict) else sequences).append(found)
        return cls(dicts, sequences)

    def same(self) -> bool:
        if self._sizes() != self.sizes:
            return False
        now = self._values()
        if not all(map(is_, now, self.values)):
            if not all(map(_equal, now, self.values)):
                return False
            self.values = now
        return list(chain.from_iterable(self.dicts)) == self.keys

    def tensors(self) -> list[Tensor]:
        """The tensors among them, each once."""
        found = {id(value): value for value in self.values if isinstance(value, Tensor)}
        return list(found.values())

    def _sizes(self) -> list[int]:
        return list(map(len, self._all))

    def _values(self) -> list[Any]:
        return list(chain(chain.from_iterable(map(dict.values, self.dicts)), *self.sequences))


def _equal(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, VALUES) and a == b)


def within(root: Any) -> Iterator[Any]:
    """The dicts and sequences from which all that an object holds can be reached, its own first."""
    seen, waiting = set(), [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (*VALUES, *ATOMS)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield value
            waiting.extend(dict.values(value))
        elif isinstance(value, (list, tuple, set, frozenset)):
            yield value
            waiting.extend(value)
        elif isinstance(held := getattr(value, "__dict__", None), dict):
            waiting.append(held)


def check_weights(module: Any, weights: Any) -> None:
    """Raises ValueError where these are not the names and shapes of the module's `state_dict`, or one is not
    finite."""
    if not isinstance(module, nn.Module):
        raise ValueError(f"{type(module).__name__} is no torch.nn.Module and has no weights")
    if not isinstance(weights, Mapping) or not all(map(torch.is_tensor, weights.values())):
        raise ValueError("the weights are no mapping of tensors; give a state_dict")
    check_finite({name: weights[name] for name, _ in module.named_parameters() if name in weights})
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    given = {name: tensor.shape for name, tensor in weights.items()}
    if own != given:
        wrong = sorted(n for n in own.keys() | given.keys() if own.get(n) != given.get(n))
        raise ValueError(
            f"the weights do not fit the network: {wrong[:4]} are missing, unknown or of another shape; "
            "give the state_dict of the same architecture"
        )
