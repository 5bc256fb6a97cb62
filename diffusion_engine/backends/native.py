"""The compiled modules, `_cpu` and `_cuda`, which are handed pointers and never see a tensor."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..ops.op import Implementation
from .views import scattered, strides

Args = TypeVar("Args")

# The dtype codes of csrc/common/step.h.
DTYPE = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.float64: 3,
    torch.int64: 4,
}

FLOATS = (torch.float32, torch.bfloat16, torch.float16)

BUILD = "python setup.py build_ext --inplace"
CLONE = "or, after `pip install .`, start Python outside the folder of the sources"

# (address, batch stride, channel stride, pixel stride, dtype)
View = tuple[int, int, int, int, int]
ABSENT: View = (0, 0, 0, 0, 0)

_loading = Lock()  # it changes the environment meanwhile


@cache
def module(name: str) -> ModuleType | str:
    """`_cpu` or `_cuda`, or the sentence why it is missing."""
    with _loading:
        return _load(name)


def _load(name: str) -> ModuleType | str:
    # Where the module brings an OpenMP of its own, its threads must not spin between two calls: they
    # would take the cores from torch's.
    policy = os.environ.get("OMP_WAIT_POLICY")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return importlib.import_module(f"diffusion_engine.{name}")
    except ModuleNotFoundError:
        reason = f"diffusion_engine.{name} is not built: {BUILD}"
        if (
            name == "_cpu" and sys.platform == "linux"
        ):  # an install builds it: its absence is a surprise
            said = f"torch runs in place of C++, slower. {reason}; {CLONE}"
            warnings.warn(said, RuntimeWarning, stacklevel=2)
        return reason
    except ImportError as error:
        return f"diffusion_engine.{name} does not load ({error}): {BUILD}"
    finally:
        if policy is None:
            del os.environ["OMP_WAIT_POLICY"]


def loaded(name: str) -> Any:
    """The compiled module. Raises ImportError with the sentence why it is missing."""
    found = module(name)
    if isinstance(found, str):
        raise ImportError(found)
    return found


@cache
def _unfit(device: int) -> str | None:
    """Why the kernels of `_cuda` do not run on a GPU: its driver, or its architecture."""
    return loaded("_cuda").objection(device)


@dataclass(frozen=True)
class Module:
    """A compiled module.

    name    of it in the package
    device  the kind of device whose memory its kernels work on
    """

    name: str
    device: str

    def objection(self, field: str, tensor: Tensor) -> str | None:
        """Why it cannot work on a tensor: it is missing, or the device is none of its own."""
        found, device = module(self.name), tensor.device
        if isinstance(found, str):
            return found
        if device.type != self.device:
            return f"{self.name} works on {self.device} tensors; {field} is on {device}"
        return _unfit(device.index or 0) if self.device == "cuda" else None

    def objection_to_floats(self, tensors: Mapping[str, Tensor]) -> str | None:
        """The same of several, and that kernels of layers take 32- and 16-bit numbers."""
        for field, tensor in tensors.items():
            if reason := self.objection(field, tensor):
                return reason
            if tensor.dtype not in FLOATS:
                return (
                    f"the kernels of {self.name} take float32, bfloat16 and float16; "
                    f"{field} is {tensor.dtype}"
                )
        return None

    def part(self, name: str) -> Any:
        """What the module offers under a name. Raises ImportError where it was built without."""
        found = loaded(self.name)
        if not hasattr(found, name):
            raise ImportError(
                f"diffusion_engine.{self.name} has no {name}. It was built from other sources, or bind.cpp "
                f"does not show it: {BUILD}"
            )
        return getattr(found, name)

    def params(self, kind: str) -> Any:
        """New parameters of a kernel, all zero."""
        return self.part(kind)()

    def kernel(self, op: str, device: torch.device) -> Callable[..., None]:
        """Runs an op with parameters and what belongs to the call, on a GPU on the current stream of each."""
        run = self.part(op)
        if self.device == "cpu":
            return run
        index = device.index or 0

        def launch(*given: Any) -> None:
            run(*given, torch.cuda.current_stream(index).cuda_stream, index)

        return launch

    def layer_kernel(self, op: str, device: torch.device) -> Callable[[Any, list[int]], None]:
        """The same of an op of parameters and addresses, which on a GPU takes scratch as well: from torch's
        allocator, which knows the stream and a capture's pool."""
        run = self.kernel(op, device)
        if self.device == "cpu":
            return run
        workspace = self.part(f"{op}_workspace")

        def launch(p: Any, addresses: list[int]) -> None:
            size = workspace(p, addresses)
            scratch = torch.empty(size, dtype=torch.uint8, device=device) if size else None
            run(p, addresses, address(scratch))

        return launch


CPU, CUDA = Module("_cpu", "cpu"), Module("_cuda", "cuda")


def implementations(
    bind: Callable[[Module, Args], Callable[..., Any]],
    objection: Callable[[Module, Args], str | None],
) -> tuple[Implementation[Args], Implementation[Args]]:
    """Those of an op in C++ and in CUDA C++, whose modules take the same parameters."""
    cpp, cuda = (
        Implementation(bind=partial(bind, on), objection=partial(objection, on))
        for on in (CPU, CUDA)
    )
    return cpp, cuda


def view(tensor: Tensor | None) -> View:
    """Raises ValueError where the pixels have no single stride."""
    if tensor is None:
        return ABSENT
    found = strides(tensor)
    if found is None:
        raise ValueError(scattered("a tensor", tensor))
    return tensor.data_ptr(), *found, DTYPE[tensor.dtype]


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
