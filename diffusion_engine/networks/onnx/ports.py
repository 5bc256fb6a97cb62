"""Inputs and outputs of an ONNX file, and which of them is what to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ... import checks

# By what ONNX calls them. Of bfloat16 NumPy has no arrays, and ONNX Runtime hardly an operation on a CPU.
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
}

# What exporters call the noised sample, the time and a latent.
NAMES = {
    "x": {
        "x", "x_t", "xt", "sample", "samples", "latents", "latent", "noisy_latents", "latent_model_input",
        "noisy", "image", "images", "input", "inputs", "hidden_states",
    },
    "label": {
        "t", "timestep", "timesteps", "time", "times", "sigma", "sigmas", "label", "noise_label",
        "noise_labels", "noise_level", "c_noise", "log_sigma", "log_snr",
    },
    "latent": {"z", "latent"},
}  # fmt: skip
OUTPUTS = ("sample", "out_sample", "output", "noise_pred")


@dataclass(frozen=True)
class Port:
    """shape  a number, or a name where the size is free"""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.shape))
        return f"{self.name} {str(self.dtype).removeprefix('torch.')} [{sizes}]"

    def takes(self, sizes: Sequence[int]) -> bool:
        """Whether entries of these sizes, behind the batch, fit."""
        own = self.shape[1:]
        return len(own) == len(sizes) and all(
            a == b or isinstance(a, str) for a, b in zip(own, sizes, strict=True)
        )


def listed(ports: Sequence[Port]) -> str:
    return "; ".join(map(str, ports)) or "none"


def roles(
    ports: Sequence[Port], given: Any, state: tuple[int, ...] | None, latent: bool
) -> dict[str, Port]:
    """The input that is x, the one that is the label, and with `latent` that one.

    given  names of inputs by what they are, as a user says it
    state  sizes of x behind the batch, where they are known

    Raises ValueError where names and shapes leave it open.
    """
    wanted = ("x", "label", "latent") if latent else ("x", "label")
    said = _said(ports, given, wanted)
    may: dict[str, list[Port]] = {
        "x": [p for p in ports if p.dtype.is_floating_point and _is_x(p, state)],
        "label": [p for p in ports if p.dtype != torch.bool and is_label(p)],
        "latent": [p for p in ports if p.dtype.is_floating_point and len(p.shape) == 2],
    }
    found: dict[str, Port] = {}
    for role in sorted(wanted, key=lambda it: it not in said):
        if role in said:
            left = [p for p in may[role] if p.name == said[role]]
        else:
            taken = {*said.values(), *(p.name for p in found.values())}
            free = [p for p in may[role] if p.name not in taken]
            left = [p for p in free if p.name.lower() in NAMES[role]] or free
        if len(left) != 1:
            raise ValueError(_open(role, ports, left, said.get(role), state))
        found[role] = left[0]
    return found


def _is_x(port: Port, state: tuple[int, ...] | None) -> bool:
    return len(port.shape) > 1 if state is None else port.takes(state)


def is_label(port: Port) -> bool:
    """[], [B] or [B, 1]."""
    return len(port.shape) < 2 or (len(port.shape) == 2 and port.shape[1] == 1)


def _said(ports: Sequence[Port], given: Any, wanted: Sequence[str]) -> dict[str, str]:
    """What a user says of the inputs. Raises ValueError where it says nothing that is there."""
    if given is None:
        return {}
    example = "give names of inputs of the file, as inputs={'x': 'sample', 'label': 'timestep'}"
    if not isinstance(given, Mapping):
        raise ValueError(f"inputs={checks.said(given)}: {example}")
    checks.names("inputs", given, wanted)
    known = [port.name for port in ports]
    for role, name in given.items():
        if name not in known:
            raise ValueError(
                f"inputs={{{role!r}: {name!r}}}: the file's inputs are {listed(ports)}; {example}"
            )
    if len(set(given.values())) < len(given):
        raise ValueError(f"inputs={dict(given)}: one input of the file is not two things")
    return dict(given)


def _open(
    role: str, ports: Sequence[Port], left: Sequence[Port], said: str | None, state: Any
) -> str:
    sizes = "channels, ..." if state is None else ", ".join(map(str, state))
    what = {
        "x": f"floats [batch, {sizes}]",
        "label": "numbers [] or [batch]",
        "latent": "floats [batch, size]",
    }[role]  # fmt: skip
    inputs = f"The file's inputs are {listed(ports)}"
    if said is not None:
        return f"inputs={{{role!r}: {said!r}}}: {role} is {what}. {inputs}"
    keyword = f"say which it is with inputs={{{role!r}: NAME}}"
    if left:
        return (
            f"{' and '.join(p.name for p in left)} may all be {role}, {what}: {keyword}. {inputs}"
        )
    return f"no input of the file can be {role}, {what}. {inputs}"


def chosen(ports: Sequence[Port], given: Any) -> tuple[Port, ...]:
    """The outputs that a network returns. Raises ValueError where that is open."""
    by_name = {port.name: port for port in ports}
    keyword = "say outputs=('sample',), or several whose channels count on"
    if given is not None:
        names = [given] if isinstance(given, str) else checks.entries("outputs", given, keyword)
        if not names or any(name not in by_name for name in names):
            raise ValueError(
                f"outputs={checks.said(given)}: the file's outputs are {listed(ports)}; {keyword}"
            )
        return tuple(by_name[name] for name in names)
    if len(ports) == 1:
        return tuple(ports)
    named = [by_name[name] for name in OUTPUTS if name in by_name]
    if len(named) != 1:
        raise ValueError(f"the file's outputs are {listed(ports)}: {keyword}")
    return tuple(named)
