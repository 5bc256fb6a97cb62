"""diffusers' own fast pipeline tests, with EngineScheduler and with the engine's loop: how many pass.

    PYTHONPATH=. python tests/adapters/upstream_pipelines.py CHECKOUT

CHECKOUT is a clone of diffusers' repository, of which tests/pipelines is read; the package is the installed
one. Its tests need parameterized and requests_mock. What they load from a hub is made here, so that numbers
of the hub's tokenizers cannot come out: a test counts where it passes with diffusers as it is. Writes
benchmarks/results/upstream-pipelines.csv.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import pytest
import upstream
import upstream_hub
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from benchmarks import results as kept
from diffusion_engine.adapters.diffusers import EngineScheduler, accelerate_pipeline
from diffusion_engine.adapters.diffusers.pipelines.asked import KINDS

FILES = (
    "ddpm/test_ddpm", "ddim/test_ddim", "stable_diffusion/test_stable_diffusion",
    "stable_diffusion/test_stable_diffusion_img2img", "stable_diffusion/test_stable_diffusion_inpaint",
    "stable_diffusion_xl/test_stable_diffusion_xl", "stable_diffusion_xl/test_stable_diffusion_xl_img2img",
    "stable_diffusion_xl/test_stable_diffusion_xl_inpaint",
    "stable_diffusion_3/test_pipeline_stable_diffusion_3",
    "stable_diffusion_3/test_pipeline_stable_diffusion_3_img2img", "flux/test_pipeline_flux",
    "flux/test_pipeline_flux_img2img", "dit/test_dit",
    "latent_consistency_models/test_latent_consistency_models",
)  # fmt: skip


@contextmanager
def scheduler() -> Iterator[None]:
    """Every scheduler that a pipeline is given is one of the engine, with its configuration."""
    pipeline = diffusers.DiffusionPipeline
    register, setattr_ = pipeline.register_modules, pipeline.__setattr__

    def ours(value: Any) -> Any:
        if isinstance(value, SchedulerMixin) and not isinstance(value, EngineScheduler):
            return EngineScheduler.from_config(value)
        return value

    def register_modules(self: Any, **parts: Any) -> None:
        register(self, **{name: ours(part) for name, part in parts.items()})

    def __setattr__(self: Any, name: str, value: Any) -> None:
        setattr_(self, name, ours(value))

    with (
        mock.patch.object(pipeline, "register_modules", register_modules),
        mock.patch.object(pipeline, "__setattr__", __setattr__),
    ):
        yield


@contextmanager
def loop() -> Iterator[None]:
    """Every call of a pipeline is one of the engine's."""
    patches = [
        mock.patch.object(getattr(diffusers, name), "__call__", looped(name)) for name in KINDS
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def looped(name: str) -> Callable:
    """A pipeline's call through accelerate_pipeline(pipe), which makes the pipeline's own within."""
    own, within = getattr(diffusers, name).__call__, []

    @wraps(own)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if within:
            return own(self, *args, **kwargs)
        fast = vars(self).get("_fast")
        if fast is None or fast.pipe is not self:
            fast = vars(self)["_fast"] = accelerate_pipeline(self)
        within.append(self)
        try:
            return fast(*args, **kwargs)
        finally:
            within.pop()

    return call


class Seen:
    """What becomes of each test: "" where it passes, else why not; without those that skip themselves."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid.split("pipelines/")[-1]
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = report.longreprtext if crash is None else crash.message
            self.why[name] = upstream.reason(text.strip().split("\n")[0])
        elif report.passed and report.when == "call":
            self.why.setdefault(name, "")


def results(checkout: Path, how: Callable) -> dict[str, str]:
    """What becomes of each test within `how`."""
    seen = Seen()
    files = [str(checkout / f"tests/pipelines/{file}.py") for file in FILES]
    with upstream_hub.made(), how():
        pytest.main([*files, "-q", "--tb=short", "-p", "no:cacheprovider"], plugins=[seen])
    return seen.why


def main(checkout: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    warnings.simplefilter("ignore")
    found = {name: results(checkout, how) for name, how in HOW.items()}
    kept.replace(upstream.counted(rows(found)), kept.UPSTREAM_PIPELINES)


def rows(found: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str, str, str]]:
    """(how, file, test, why it failed) of the tests that count, and of all with diffusers as it is."""
    theirs = found["theirs"]
    made = []
    for how, tests in found.items():
        for name, own in theirs.items():
            file, _, test = name.partition("::")
            if how == "theirs" or not own:
                made.append((how, file.removesuffix(".py"), test, tests.get(name, "not run")))
    return made


HOW: dict[str, Callable] = {"theirs": nullcontext, "scheduler": scheduler, "loop": loop}

if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
