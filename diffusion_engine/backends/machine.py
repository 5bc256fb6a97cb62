"""The machine that times are of, and what its processor computes at speed."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Instructions that multiply bfloat16, and what they are called.
KINDS = {"amx": "AMX", "avx512_bf16": "AVX512_BF16"}
TILES = "amx"  # the kind that dtype="auto" takes bfloat16 for
# Times that torch takes without them, of float32 on AVX2, for convolutions in channels_last; in a contiguous
# layout it takes 20 to 100.
SLOWER = 5.0


@cache
def processor() -> str:
    """The name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@dataclass(frozen=True)
class Bf16:
    """How the processor computes in bfloat16.

    kind    the instructions: "amx", "avx512_bf16", or "" where it would emulate them
    slower  times that a network takes then, of float32; 1 where it does not
    reason  what it computes by, as a sentence
    """

    kind: str
    slower: float
    reason: str


def bf16() -> Bf16:
    """What the processor multiplies bfloat16 by."""
    from .native import module

    found = module("_cpu")
    if isinstance(found, str):
        return Bf16("", SLOWER, f"nothing says what this processor computes in bfloat16: {found}")
    kinds = found.bf16s()
    if not kinds:
        return Bf16("", SLOWER, f"{processor()} has neither {' nor '.join(KINDS.values())}")
    return Bf16(kinds[0], 1.0, f"{processor()} has {KINDS[kinds[0]]}")


def emulated(asked: str) -> str:
    """A sentence on what was asked for of a processor that emulates bfloat16."""
    here = bf16()
    return (
        f"{asked}: {here.reason}, and bfloat16 that is emulated takes about {here.slower:g} times as long "
        "as float32, or more; use dtype='auto', which is float32 here, or torch.float32"
    )
