"""diffusers' own scheduler tests, pointed at EngineScheduler: how many pass, and why others do not.

    PYTHONPATH=. python tests/adapters/upstream.py CHECKOUT

CHECKOUT is a clone of diffusers' repository, of which tests/schedulers is read; the package is the installed
one. `common` are the tests that all its schedulers share, of every solver here; `class` are all tests of a
scheduler's own file, of what is the same as that scheduler. Writes benchmarks/results/upstream.csv.
"""

from __future__ import annotations

import importlib
import io
import re
import sys
import unittest
import warnings
from pathlib import Path

import diffusers

from benchmarks import results as kept
from diffusion_engine import SOLVERS
from diffusion_engine.adapters.diffusers import EngineScheduler

CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02}
# What runs on no chain of timesteps, or needs a network of its own.
OTHER = ("genie", "ddgan", "vdm", "ald", "dpdm_sde")
FILES = {
    "ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler", "kdpm2_discrete": "KDPM2DiscreteScheduler",
    "kdpm2_ancestral": "KDPM2AncestralDiscreteScheduler", "pndm": "PNDMScheduler",
    "dpm_multi": "DPMSolverMultistepScheduler", "dpm_single": "DPMSolverSinglestepScheduler",
    "deis": "DEISMultistepScheduler", "unipc": "UniPCMultistepScheduler", "lcm": "LCMScheduler",
    "ipndm": "IPNDMScheduler", "edm_euler": "EDMEulerScheduler",
}  # fmt: skip


def standing_for(name: str) -> type[EngineScheduler]:
    """A scheduler that is the same as a class where nothing else is said."""

    def init(self: EngineScheduler, **fields: object) -> None:
        EngineScheduler.__init__(self, **{"like": name, **fields})

    return type("EngineScheduler", (EngineScheduler,), {"__init__": init})


def results(kind: type[unittest.TestCase]) -> list[tuple[str, str]]:
    """(test, why it failed), "" where it passed; without those that skip themselves."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(kind)
    names = [test._testMethodName for test in suite]
    made = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(suite)
    why = {test._testMethodName: text for test, text in (*made.errors, *made.failures)}
    skipped = {test._testMethodName for test, _ in made.skipped}
    return [(name, reason(why.get(name, ""))) for name in names if name not in skipped]


def reason(text: str) -> str:
    """The last line of a traceback, short, with no address or path in it."""
    last = text.strip().splitlines()[-1] if text else ""
    return re.sub(r"0x[0-9a-f]+|/\S+/", "", last)[:140]


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout).resolve()))
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    common = importlib.import_module("tests.schedulers.test_schedulers").SchedulerCommonTest
    rows = []
    for name, kind in SOLVERS.items():
        if kind.parts != 1 or name in OTHER:
            continue

        class Common(common):
            scheduler_classes = (EngineScheduler,)
            solver = name

            def get_scheduler_config(self, **more: object) -> dict:
                return {**CONFIG, "like": "DDIMScheduler", "solver": self.solver, **more}

        rows += [("common", name, *result) for result in results(Common)]
    for file, name in FILES.items():
        module = importlib.import_module(f"tests.schedulers.test_scheduler_{file}")
        setattr(module, name, standing_for(name))  # which a test may make itself
        for kind in [k for k in vars(module).values() if isinstance(k, type)]:
            if issubclass(kind, common) and kind.__module__ == module.__name__:
                kind.scheduler_classes = (getattr(module, name),)
                rows += [("class", name, *result) for result in results(kind)]
    kept.replace(counted(rows), kept.UPSTREAM)
    for part in ("common", "class"):
        passed = sum(not why for p, _, _, why in rows if p == part)
        total = sum(p == part for p, *_ in rows)
        print(f"{part}: {passed} of {total} pass ({passed / total:.1%})")


def counted(rows: list[tuple[str, str, str, str]]) -> list[kept.Row]:
    """A line for each solver or class, and one for each test of it that failed."""
    made: list[kept.Row] = []
    empty: kept.Row = dict.fromkeys(kept.UPSTREAM_KEYS, "")
    for part, of in dict.fromkeys(row[:2] for row in rows):
        own = [row for row in rows if row[:2] == (part, of)]
        failed = [row for row in own if row[3]]
        about = empty | {"part": part, "of": of, "diffusers": kept.version("diffusers")}
        made.append(about | {"passed": len(own) - len(failed), "tests": len(own)})
        made += [about | {"failed": test, "why": why} for _, _, test, why in failed]
    return made


if __name__ == "__main__":
    main(sys.argv[1])
