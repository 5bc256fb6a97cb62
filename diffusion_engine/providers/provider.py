"""What executors have in common that run a network in another runtime, on the CPU."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import checks
from ..choices.turns import numbers
from ..executors.batch import Batch, plain
from ..executors.buffers import Inputs
from ..executors.capacity import Capacity
from ..native.computing import Computing
from ..native.executor import kinds
from ..native.stages import differentiates
from ..networks.network import ScoreNetwork
from .export import Model, Source
from .file import File
from .opened import Opened, ProviderError
from .runtime import Session, Setting
from .stages import Calls, Provided

DTYPES = (torch.float32, torch.bfloat16)


class Provider(Computing[Opened]):
    """Runs networks, exported once as ONNX, in another runtime.

    name      as `executor=` takes it
    title     as sentences call it
    extra     of this package that installs it
    packages  that it needs
    each      whether a call of each size has a session of its own
    """

    name: str
    title: str
    extra: str
    packages: tuple[str, ...]
    each: bool

    def __init__(
        self,
        backend: str = "auto",
        threads: int | Mapping[int, int] | str | None = None,
        dtype: torch.dtype = torch.float32,
        fallback: bool = False,
    ) -> None:
        super().__init__(f"executor={self.name!r}", backend, threads)
        self.dtype = checks.one_of("dtype", dtype, DTYPES)
        self.precision = None if dtype == torch.float32 else dtype
        self.fallback = checks.flag("fallback", fallback)
        # Networks in float32 though another dtype was asked for, and why: whatever their weights become.
        self._plain: WeakKeyDictionary[ScoreNetwork, str] = WeakKeyDictionary()

    def __reduce__(self) -> tuple:
        """A copy, here or in another process, opens networks anew."""
        how: dict[str, Any] = {"dtype": self.dtype, "fallback": self.fallback}
        return partial(type(self), threads=self.threads, **how), (self.backend,)

    @property
    @abstractmethod
    def version(self) -> str:
        """Of the runtime."""

    @abstractmethod
    def settings(self, threads: Sequence[int]) -> list[Setting]:
        """The ways to run a call on so many threads, in ascending order of these."""

    @abstractmethod
    def load(
        self,
        source: Source,
        model: Model | File,
        setting: Setting,
        shapes: list[list[int]] | None,
        dtype: torch.dtype,
    ) -> Session:
        """A model, opened.

        source   what is in its file, or the path of it
        shapes   of its inputs, where all calls have these
        dtype    that it computes in
        """

    def objection(self, device: torch.device) -> str | None:
        if device.type != "cpu":
            return f"executor={self.name!r} runs on the CPU, not on {device}; use executor='graph' there"
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            return (
                f"executor={self.name!r} needs {' and '.join(missing)}: "
                f"pip install 'diffusion-engine[{self.extra}]'"
            )
        return None

    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        if capacity.state_dtype == torch.float64 or capacity.dtype != torch.float32:
            raise ProviderError(
                f"executor={self.name!r} is given float32 and this network runs in {capacity.dtype}; use "
                "executor='eager'"
            )
        with plain():
            return Batch(capacity, partial(Provided, network, self))

    def calling(self, network: ScoreNetwork) -> Callable[..., Sequence[Tensor]]:
        return super().calling(network) if differentiates(network) else Calls(network, self)

    def form(self, network: ScoreNetwork) -> str | None:
        if differentiates(network):
            return None
        dtype = self.dtype_of(network) or torch.float32
        return f"{self.name}/{self.version}/{str(dtype).removeprefix('torch.')}"

    def dtype_of(self, network: ScoreNetwork) -> torch.dtype | None:
        plain = differentiates(network) or network in self._plain
        return torch.float32 if self.precision and plain else self.precision

    def coarse(self, network: ScoreNetwork) -> str | None:
        """Why a network is computed in float32 though another dtype was asked for."""
        return self._plain.get(network)

    def in_float32(self, network: ScoreNetwork, reason: str) -> None:
        """Has a network computed in float32 from now on."""
        self._plain[network] = reason

    def opened(self, network: ScoreNetwork, given: Inputs, look: bool = False) -> Opened:
        """A network as it is now, for calls like the given one. Raises ProviderError.

        look  whether it is held against the module, in whatever way that was changed
        """
        key = (network, *kinds(given))
        found = self._made.get(key)
        if found is not None and not look and not found.written():
            return found
        with self._locks.of(key):
            found = self._made.get(key)
            if found is None or not found.same():
                found = Opened(network, given, self)
            else:
                found.follow()
            self._made.put(key, found, found.bytes)
            return found

    def session(self, opened: Opened, count: int) -> Session:
        """What runs calls of `count` entries of a network, whose weights a session keeps. Raises
        ProviderError."""
        made = opened.session(count)
        self._weighed(opened)
        return made

    def candidates(self, entries: int) -> list[Setting]:
        """The ways to run a call of so many entries, one where nothing is to be measured."""
        given: Any = self.threads
        if isinstance(given, Mapping):
            given = given.get(entries)
        return self.settings(numbers(torch.get_num_threads()) if given is None else [given])
