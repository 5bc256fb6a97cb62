"""`Packed`: the forms of a weight in which kernels read it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import RLock
from typing import Any

from torch import Tensor

from ..backends.checksum import checksums

packing = RLock()  # what is made once for all threads: packed weights and choices


class Packed:
    """Forms of a weight as it is now, made at their first use. Threads share them: what is kept is replaced,
    never changed.

    weight  the weight
    total   its checksum, taken before any form was made
    forms   by key
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.state = weight, state(weight)
        (self.total,) = checksums([weight])
        self.forms: dict[int, Tensor] = {}
        self._makers: dict[int, Callable[[Tensor], Tensor]] = {}

    def form(self, key: int, make: Callable[[Tensor], Tensor]) -> Tensor:
        made = self.forms.get(key)
        if made is None:
            with packing:
                made = self.forms.get(key)
                if made is None:
                    made = make(self.weight.detach())
                    self._makers = {**self._makers, key: make}
                    self.forms = {**self.forms, key: made}
        return made

    def keep_only(self, keys: Collection[int]) -> None:
        """Forgets the other forms."""
        with packing:
            self.forms = {key: form for key, form in self.forms.items() if key in keys}

    def of(self, weight: Tensor) -> bool:
        """Whether this is the weight's, as far as its address and its version tell."""
        return weight is self.weight and state(weight) == self.state

    def again(self, weight: Tensor) -> Packed:
        """The same forms of another weight, or of what this one was changed to."""
        made = Packed(weight)
        for key in self.forms:
            made.form(key, self._makers[key])
        return made


def state(weight: Tensor) -> tuple[Any, ...]:
    """What changes with the weight; inference tensors do not count their versions."""
    version = 0 if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.stride()
