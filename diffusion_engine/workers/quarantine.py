"""`Quarantine`: the recipes that ended workers, which are refused for a while."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from .errors import Quarantined
from .messages import Asked

MOST = 4096  # recipes that are remembered


class Quarantine:
    """Recipes, by what they ask for without its seeds.

    seconds  that one is refused for
    clock    seconds that never go back
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._until: dict[bytes, float] = {}

    def __len__(self) -> int:
        self._forget()
        return len(self._until)

    def put(self, asked: Asked) -> None:
        """Refuses requests like this one from now on."""
        self._until.pop(key := recipe(asked), None)
        self._until[key] = self._clock() + self._seconds
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]

    def check(self, asked: Asked) -> None:
        """Raises Quarantined where a request is like one that is refused."""
        if (error := self.objection(asked)) is not None:
            raise error

    def objection(self, asked: Asked) -> Quarantined | None:
        """Why a request is not taken."""
        self._forget()
        if not self._until or (until := self._until.get(recipe(asked))) is None:
            return None
        left = until - self._clock()
        return Quarantined(
            f"requests like this one ended the workers that ran them, and are refused for {left:.0f} s more; "
            "ask for something else",
            left,
        )

    def _forget(self) -> None:
        now = self._clock()
        while self._until and next(iter(self._until.values())) <= now:
            del self._until[next(iter(self._until))]


def recipe(asked: Asked) -> bytes:
    """A digest of what is asked for, without the seeds and what says whose it is."""
    same = msgspec.structs.replace(
        asked,
        id="",
        seeds=[len(asked.seeds)],
        priority=0.0,
        deadline=None,
        key="",
        preview=0,
        tensors={},
    )
    made = hashlib.sha256(msgspec.msgpack.encode(same, order="deterministic"))
    for name, array in sorted(asked.tensors.items()):
        made.update(f"{name} {array.dtype} {array.shape}".encode())
        made.update(array.tobytes())
    return made.digest()
