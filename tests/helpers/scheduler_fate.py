"""What becomes of a configuration of a scheduler: equal, differs, refused here, or none of diffusers' own."""

import json
import math
import warnings
from typing import NamedTuple

import torch
from scheduler_cases import difference, made, theirs

# What diffusers raises where its fields contradict each other.
FAILS = (ValueError, RuntimeError, LookupError, TypeError, NameError, AssertionError)
EQUAL = 1e-5  # of the largest number, in float32, or else in float64


class Fate(NamedTuple):
    outcome: str  # "equal", "rounding" (in float64), "differs", "refused", or "theirs": diffusers has none
    difference: float | None
    said: str

    def row(self, name, config, steps, asked):
        return {
            "scheduler": name, "steps": steps, "configuration": short(config), "asked": short(asked),
            "outcome": self.outcome, "said": self.said,
            "difference": "" if self.difference is None else f"{self.difference:.1e}",
        }  # fmt: skip


def short(given):
    """A mapping as JSON, without its betas."""
    text = json.dumps({k: "..." if k == "trained_betas" else v for k, v in given.items()})
    return "" if text == "{}" else text


def fate(name, config, steps, asked):
    """What becomes of one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            own = {k: v for k, v in asked.items() if k != "published"}
            theirs(made(name, config), steps, **own)
        except FAILS as error:
            return Fate("theirs", None, f"{type(error).__name__}: {error}".splitlines()[0])
        try:
            off, same = difference(name, config, steps, **asked)
            off64 = (
                off if off <= EQUAL else difference(name, config, steps, torch.float64, **asked)[0]
            )
        except ValueError as error:
            return Fate("refused", None, str(error).splitlines()[0])
    notes = "; ".join(same.notes)
    if math.isnan(off):
        return Fate("theirs", None, notes or "no number")
    if off <= EQUAL:
        return Fate("equal", off, notes)
    return Fate("rounding" if off64 <= EQUAL else "differs", off, notes)
