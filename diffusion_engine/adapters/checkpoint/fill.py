"""Tensors of a file into a module that was built without numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

SHOWN = 4
ADVICE = "the config and the weights have to be of the same network"

M = TypeVar("M", bound=nn.Module)


def on_meta(build: Callable[[], M]) -> M:
    """A module whose tensors have shapes and no memory, however large a config makes it.

    Raises ValueError where one is too large to have a size.
    """
    try:
        with torch.device("meta"):
            return build()
    except RuntimeError as error:
        raise ValueError(
            f"the config makes no network: {str(error).splitlines()[0][:200]}"
        ) from error


def fill(module: M, tensors: Mapping[str, Tensor], where: str, ignored: Collection[str] = ()) -> M:
    """The module with tensors of a file in place of its own, in eval mode.

    module   built by `on_meta`; all that it holds is in its state_dict
    tensors  by the names of its state_dict. Floats of another precision are brought to the module's own
    where    what they are of, for errors
    ignored  names that may be there besides

    Raises ValueError where tensors are missing or left over, or one has another shape, is of whole numbers in
    place of floats or the reverse, or is not finite.
    """
    expected = module.state_dict()
    given = {name: t for name, t in tensors.items() if name in expected or name not in ignored}
    _check_names(expected, given, where)
    _refuse("of another shape", where, [
        f"{name} {list(given[name].shape)} in place of {list(own.shape)}"
        for name, own in expected.items() if given[name].shape != own.shape
    ])  # fmt: skip
    _refuse("of another kind", where, [
        f"{name} {given[name].dtype} in place of {own.dtype}"
        for name, own in expected.items() if not _same_kind(given[name].dtype, own.dtype)
    ])  # fmt: skip
    whole = {name: given[name].to(own.dtype) for name, own in expected.items()}
    _refuse("with values that are not finite", where, [
        name for name, tensor in whole.items() if not tensor.isfinite().all()
    ])  # fmt: skip
    module.load_state_dict(whole, assign=True)
    left = [name for name, t in (*module.named_parameters(), *module.named_buffers()) if t.is_meta]
    if left:
        raise RuntimeError(f"{type(module).__name__} holds {_some(left)} outside of its state_dict")
    return module.eval()


def _check_names(expected: Collection[str], given: Collection[str], where: str) -> None:
    missing, extra = (
        [n for n in expected if n not in given],
        [n for n in given if n not in expected],
    )
    if missing or extra:
        said = [
            f"{verb} {len(names)} of the tensors of the network's {len(expected)}: {_some(names)}"
            if verb == "lacks"
            else f"{verb} {len(names)} besides: {_some(names)}"
            for verb, names in (("lacks", missing), ("has", extra))
            if names
        ]
        raise ValueError(f"{where} {', and '.join(said)}; {ADVICE}")


def _refuse(what: str, where: str, names: list[str]) -> None:
    if names:
        raise ValueError(f"{where} has {len(names)} tensors {what}: {_some(names)}; {ADVICE}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _same_kind(a: torch.dtype, b: torch.dtype) -> bool:
    return a == b or (a.is_floating_point and b.is_floating_point)
