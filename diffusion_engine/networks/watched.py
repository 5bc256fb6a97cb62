"""`Watched`: a module and the tensors that a graph of it reads, to see what has changed since."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from ..backends.checksum import checksums
from .contents import Contents
from .wrapper import unwrapped

_VERSION = attrgetter("_version")

# Checksums of tensors, and where they lie.
Known = tuple[tuple[int, ...], tuple[int, ...]]


class Watched:
    """What was made of a module is watched for changes of it.

    module     called by a network; of another callable the constants are watched alone
    constants  tensors whose values a graph of it reads
    """

    def __init__(self, module: Any, constants: Iterable[Tensor]) -> None:
        inner = unwrapped(module)
        self._contents = Contents.of(inner) if isinstance(inner, nn.Module) else None
        own = [] if self._contents is None else self._contents.tensors()
        watched = {id(t): t for t in (*own, *constants)}
        self._watched = [t for t in watched.values() if not t.is_meta]
        self._versions = self._now()

    def same(self) -> bool:
        """Whether the module is made of what it was: submodules, parameters, hooks, attributes."""
        return self._contents is None or self._contents.same()

    def written(self) -> bool:
        """Whether weights were written to since `known`, as torch counts it: some 100 ns for each."""
        return self._now() != self._versions

    def known(self, pool: Any = None) -> Known:
        """By what the weights are known as they are now, in whatever way they were changed.

        pool  threads that make checksums, as in `checksums`
        """
        self._versions = self._now()
        return tuple(checksums(self._watched, pool)), tuple(map(Tensor.data_ptr, self._watched))

    def _now(self) -> list[Any]:
        try:
            return [*map(_VERSION, self._watched), *map(Tensor.data_ptr, self._watched)]
        except RuntimeError:  # of an inference tensor, which has no version
            return [(t._version, t.data_ptr()) for t in self._watched if not t.is_inference()]
