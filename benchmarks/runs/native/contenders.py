"""Who calls the networks, each in a process that knows its setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...ddim_run import DDIMRun
from .. import engine
from .cases import Case, Files, first

# threads and waiting of each setting: the OpenMP threads of torch's contenders wait as OMP_WAIT_POLICY says,
# those of ONNX Runtime may spin where it says active; the others have pools with rules of their own.
OPENMP = ((1, ""), (2, "passive"), (2, "active"))
OWN = ((1, ""), (2, ""))


@dataclass(frozen=True)
class Ready:
    """A network that is loaded.

    call     the call that is timed; its output is a tensor or an array
    samples  makes a whole trajectory
    version  of the package
    further  makes what another batch size needs
    """

    call: Callable[[], Any]
    samples: Callable[[], Tensor]
    version: str | None = None
    further: Callable[[], object] | None = None


@dataclass(frozen=True)
class Place:
    """What a contender is given."""

    files: Files
    case: Case
    threads: int
    waiting: str

    def ddim_run(self, module: bool = True) -> DDIMRun:
        return self.files.ddim_run(self.case, module)


def plain(place: Place, last: bool = False, accelerated: bool = False) -> Ready:
    """torch as it is, in channels_last, or accelerated."""
    from ...peers.diffusers import Loop

    run = place.ddim_run()
    network, x, t = run.module, run.noise, torch.tensor(first(run))
    loop = Loop(run)
    if last:
        if x.ndim != 4:
            raise ValueError("channels_last is of pictures")
        network = network.to(memory_format=torch.channels_last)
        x = loop.noise = x.contiguous(memory_format=torch.channels_last)
    samples = partial(loop, network)
    if accelerated:
        from diffusion_engine.accelerate import accelerate

        accelerate(network, x, t)
        samples = engine.sampler(run, network).sample  # type: ignore[assignment]
        samples = partial(_sampled, samples, run)

    def call() -> Tensor:
        with torch.inference_mode():
            return network(x, t)

    return Ready(call, samples, torch.__version__)


def _sampled(sample: Callable[..., Any], run: DDIMRun) -> Tensor:
    return sample(x=run.noise, noised=True).samples


def native(place: Place) -> Ready:
    """The call that Sampler(executor="native") makes."""
    from diffusion_engine.native import Native

    run = place.ddim_run()
    given, inputs = call_of(run)
    network = engine.score_network(run, run.module)
    owner = Native(threads=place.threads)
    recording = owner.recording(network, given)
    program = owner.program(recording, place.case.batch)
    sampler: list[Any] = []

    def samples() -> Tensor:
        if not sampler:
            sampler.append(engine.sampler(run, run.module, executor=owner))
        return _sampled(sampler[0].sample, run)

    further = partial(owner.program, recording, place.case.batch + 1)
    return Ready(lambda: program(inputs)[0], samples, None, further)


def call_of(run: DDIMRun) -> tuple[tuple, list[Tensor]]:
    """A call as a recording is given it, and as its program is."""
    from diffusion_engine.native.recording import taken_apart

    given = (run.noise, torch.full((len(run.noise),), first(run)), None, None)
    return given, taken_apart(given)


def onnxruntime(place: Place) -> Ready:
    from ...peers import onnxruntime as peer

    model, spinning = str(place.files.onnx(place.case)), place.waiting == "active"
    return _arrays(place, peer.opened(model, place.threads, spinning), peer.onnxruntime.__version__)


def openvino(place: Place) -> Ready:
    """From the same ONNX file: its own converter does not take every network here."""
    from ...peers import openvino as peer

    network = peer.opened(str(place.files.onnx(place.case)), place.threads)
    return _arrays(place, network, peer.openvino.__version__)


def _arrays(place: Place, network: Callable[..., Any], version: str) -> Ready:
    from ...peers.host import Loop

    run = place.ddim_run(module=False)
    call = partial(network, run.noise.numpy(), np.array(first(run), np.int64))
    return Ready(call, partial(Loop(run), network), version)


# name -> what makes it ready, and its settings
CONTENDERS: dict[str, tuple[Callable[[Place], Ready], tuple[tuple[int, str], ...]]] = {
    "torch": (plain, OPENMP),
    "torch:channels_last": (partial(plain, last=True), OPENMP),
    "onnxruntime": (onnxruntime, OPENMP),
    "openvino": (openvino, OWN),
    "ours:accelerate": (partial(plain, accelerated=True), OPENMP),
    "ours:native": (native, OWN),
}
