"""`Packed`: a network's weights as programs read them."""

from __future__ import annotations

from ..networks.watched import Known
from .lower import Folded
from .siblings import Joint
from .weights import Weights


class Packed:
    """Weights as they were, packed, and how they are known.

    known   checksums of the tensors that a recording watches, and where these lie: what needs no packing is
            read there
    joint   biases of several layers that are done as one
    folded  what calls of constants came to
    held    whether a program of them was held against the module
    half    what does products in bf16, "" in float32
    """

    def __init__(self, known: Known, half: str = "") -> None:
        self.known, self.weights = known, Weights(half)
        self.joint: Joint = {}
        self.folded: Folded = {}
        self.held = False

    @property
    def half(self) -> str:
        return self.weights.half

    @property
    def bytes(self) -> int:
        return self.weights.bytes + sum(t.nbytes for t in self.joint.values())
