"""What networks are told beside time and condition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import number, plain, prompt, said, settle, whole
from .network import Condition, ScoreNetwork


@dataclass(frozen=True)
class ScaleEmbedding:
    """Sines, then cosines of factor (w - 1) at `dim` / 2 frequencies from 1 to 1e-4: w is the guidance scale.

    As LCM's U-Net takes it (Luo et al. 2023): ScoreNetwork(..., scale_input=ScaleEmbedding()).

    dim   an even number, 4 or more
    name  the keyword the network is given it by
    """

    dim: int = 256
    factor: float = 1000.0
    name: str = "timestep_cond"

    def __post_init__(self) -> None:
        wanted = "an embedding has an even number of at least 4 values"
        settle(self, "dim", whole, 4, wanted)
        settle(self, "factor", number)
        if self.dim % 2:
            raise ValueError(f"dim={self.dim}: {wanted}")

    def __call__(self, scales: Tensor) -> Mapping[str, Tensor]:
        """[n] to [n, dim], float64."""
        half = self.dim // 2
        rate = math.log(10000.0) / (half - 1)
        frequency = torch.exp(-rate * torch.arange(half, dtype=torch.float64, device=scales.device))
        angle = self.factor * (scales.double() - 1.0)[:, None] * frequency
        return {self.name: torch.cat([angle.sin(), angle.cos()], dim=1)}


@dataclass(frozen=True)
class ScaleValue:
    """The guidance scale itself: ScoreNetwork(..., scale_input=ScaleValue()).

    name  the keyword the network is given it by
    """

    name: str = "guidance"

    def __call__(self, scales: Tensor) -> Mapping[str, Tensor]:
        """[n] to [n]."""
        return {self.name: scales}


def checked(
    network: ScoreNetwork, condition: Any, n: int, device: torch.device, dtype: torch.dtype
) -> Condition | None:
    """The condition of n samples as tensors on a device; without one the network's null, if it has that.

    dtype  of the network's input, in which it takes conditions that are not whole numbers

    Raises ValueError where it is not one entry a sample, or no class that the network knows.
    """
    if condition is None:
        if network.null is None:
            return None
        return null_like(network, torch.zeros(n, dtype=torch.int64, device=device), dtype)
    if isinstance(condition, Mapping):
        made = {
            name: _tensor(repr(name), value, device, dtype) for name, value in condition.items()
        }
        lengths = sorted({len(t) if t.ndim else 0 for t in made.values()})
        if lengths != [n]:
            raise ValueError(f"the condition holds {lengths} entries for {n} samples")
        nameless = made.keys() == {""} and not isinstance(network.null, Mapping)
        return made[""] if nameless else made
    condition = plain(condition)
    if (texts := prompts(condition, n)) is not None:
        condition = encoded(network, texts)
    tensor = _tensor(
        "it", [condition] * n if isinstance(condition, int) else condition, device, dtype
    )
    if tensor.ndim == 0 or len(tensor) != n:
        raise ValueError(
            f"the condition has shape {list(tensor.shape)} for {n} samples; give one a sample"
        )
    if network.text is not None and not tensor.is_floating_point():
        raise ValueError(f"{takes(network)}; got {said(tensor.tolist()[:8])}")
    if network.classes is None:
        return tensor
    allowed = network.classes + (network.null == network.classes)
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if tensor.ndim > 1 or not whole or not all(0 <= c < allowed for c in tensor.tolist()):
        raise ValueError(
            f"the network knows classes 0 to {network.classes - 1}; got {said(tensor.tolist()[:8])}"
        )
    return tensor.long()


def _tensor(name: str, value: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    try:
        if value is not None:
            tensor = torch.as_tensor(value, device=device)
            return tensor.to(dtype) if tensor.is_floating_point() else tensor
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ValueError(
        "the condition is a class, one class a sample, prompts, a tensor or a mapping of tensors, and "
        f"{name} is {str(value)[:60]!r}"
    )


def length(conditions: Sequence[Any]) -> int | None:
    """How many samples the first condition that says so is for."""
    several = (c for c in map(plain, conditions) if not isinstance(c, int | str | None))
    condition = next(several, None)
    if isinstance(condition, Mapping):
        condition = next(iter(condition.values()), None)
    try:
        return len(condition)  # type: ignore[arg-type]
    except TypeError:
        return None


def prompts(condition: Any, n: int | None = None) -> tuple[str, ...] | None:
    """The prompts of n samples, of one for all or one a sample; None of a condition that is no text.

    n  None: as many as are given
    Raises ValueError where they are not n, or one is no prompt.
    """
    if isinstance(condition, str):
        return (prompt("condition", condition),) * (1 if n is None else n)
    if not isinstance(condition, list | tuple) or not any(isinstance(c, str) for c in condition):
        return None
    made = tuple(prompt(f"condition[{i}]", given) for i, given in enumerate(condition))
    if n not in (None, len(made)):
        raise ValueError(f"{len(made)} prompts for {n} samples; give one for all, or one a sample")
    return made


def encoded(network: ScoreNetwork, texts: Sequence[str]) -> Any:
    """What a network's text encoder makes of prompts, each of which it reads once."""
    check_prompts(network, texts)
    assert network.text is not None
    each = list(dict.fromkeys(texts))
    made = network.text(each)
    return made[[each.index(one) for one in texts]] if len(each) < len(texts) else made


def takes(network: ScoreNetwork) -> str:
    """What a network is given as its condition, the beginning of a sentence."""
    if network.text is not None:
        what = "prompts, such as 'a red heart', or what its text encoder makes of them"
    elif network.classes is not None:
        what = f"a class, 0 to {network.classes - 1}, and no prompt"
    else:
        what = "tensors and no prompt" if network.null is not None else "no prompt"
    return f"the network {network.name!r} takes {what}"


def origins(network: ScoreNetwork, conditions: Sequence[Any]) -> tuple[str, ...]:
    """What conditions were made of, as those say that know: an index of neighbours, say, or the network's
    text encoder. Raises ValueError where there are prompts and it takes none."""
    known = tuple(str(c.origin) for c in conditions if hasattr(c, "origin"))
    texts = [made for c in conditions if (made := prompts(c))]
    if not texts:
        return known
    check_prompts(network, texts[0])
    origin = getattr(network.text, "origin", None)
    return known if origin is None else (*known, str(origin))


def check_prompts(network: ScoreNetwork, texts: Sequence[str]) -> None:
    """Raises ValueError where a network takes no prompts."""
    if network.text is None:
        raise ValueError(f"{takes(network)}; got the prompt {said(texts[0])}")


def null_like(network: ScoreNetwork, like: Condition, dtype: torch.dtype) -> Condition | None:
    """The null condition once for every sample, shaped like a condition; floats in the dtype."""
    null = network.null
    if null is None:
        return None
    first = next(iter(like.values())) if isinstance(like, Mapping) else like

    def repeated(value: Any) -> Tensor:
        tensor = torch.as_tensor(value, device=first.device)
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return tensor.expand(len(first), *tensor.shape)

    if isinstance(null, Mapping):
        return {name: repeated(value) for name, value in null.items()}
    if isinstance(like, Mapping):
        raise ValueError(
            f"the condition has the names {sorted(like)} and the network's null condition none; give both "
            "the same"
        )
    return repeated(null)


def _kinds(condition: Condition | None) -> dict[str, tuple]:
    """Shape of one entry and dtype by name; a tensor without a name is ""'s."""
    named = condition if isinstance(condition, Mapping) else {"": condition}
    return {n: (tuple(t.shape[1:]), t.dtype) for n, t in named.items() if t is not None}


def check_alike(conditions: Sequence[Condition | None]) -> None:
    """Raises ValueError where conditions to compose are not of one kind."""
    kinds = [_kinds(condition) for condition in conditions]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(
            "the composed conditions are entries of one batched call and have to have the same names, shapes "
            f"and dtypes; got {kinds}"
        )


def check_shapes(condition: Condition | None, null: Condition | None) -> None:
    """Raises ValueError where a condition and the null condition do not fit into one batch."""
    given, none = ({n: kind[0] for n, kind in _kinds(c).items()} for c in (condition, null))
    if given != none:
        shapes = [{n: list(shape) for n, shape in kinds.items()} for kinds in (given, none)]
        raise ValueError(
            f"one sample's condition has the shape {shapes[0]} and the network's null condition {shapes[1]}; "
            "give both the same"
        )
