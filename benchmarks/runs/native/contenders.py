"""Who calls the networks, each in a process that knows its setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import results
from ...ddim_run import DDIMRun
from .. import engine
from .cases import Case, Files, first

# threads and waiting of each setting: the OpenMP threads of torch's contenders wait as OMP_WAIT_POLICY says,
# those of ONNX Runtime may spin where it says active; the others have pools with rules of their own.
OPENMP = ((1, ""), (2, "passive"), (2, "active"))
OWN = ((1, ""), (2, ""))
HALF = torch.bfloat16


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
    """torch in float32 as it is, in channels_last, or accelerated."""
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


def halved(place: Place) -> Ready:
    """torch in bfloat16, pictures in channels_last; a call's input and output are in float32."""
    from ...peers.diffusers import Loop

    run = place.ddim_run()
    loop, network = Loop(run), run.module.to(HALF)
    if run.noise.ndim == 4:
        network = network.to(memory_format=torch.channels_last)
        loop.noise = run.noise.contiguous(memory_format=torch.channels_last)

    def call(x: Tensor, t: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(x.to(HALF), t).float()

    timed = partial(call, loop.noise, torch.tensor(first(run)))
    return Ready(timed, partial(loop, call), torch.__version__)


def native(place: Place, dtype: torch.dtype = torch.float32) -> Ready:
    """The call that Sampler(executor="native", dtype=dtype) makes."""
    from diffusion_engine.native import Native

    run = place.ddim_run()
    given, inputs = call_of(run)
    network = engine.score_network(run, run.module)
    owner = Native(threads=place.threads, dtype=dtype)
    recording = owner.recording(network, given)
    program = owner.program(recording, place.case.batch)
    sampler: list[Any] = []

    def samples() -> Tensor:
        if not sampler:
            sampler.append(engine.sampler(run, run.module, executor=owner, dtype=dtype))
        return _sampled(sampler[0].sample, run)

    further = partial(owner.program, recording, place.case.batch + 1)
    return Ready(lambda: program(inputs)[0], samples, owner.form(network), further)


def call_of(run: DDIMRun) -> tuple[tuple, list[Tensor]]:
    """A call as a recording is given it, and as its program is."""
    from diffusion_engine.native.called import taken_apart

    given = (run.noise, torch.full((len(run.noise),), first(run)), None, None, None)
    return given, taken_apart(given)


def onnxruntime(place: Place) -> Ready:
    from ...peers import onnxruntime as peer

    model, spinning = str(place.files.onnx(place.case)), place.waiting == "active"
    return _arrays(place, peer.opened(model, place.threads, spinning), peer.onnxruntime.__version__)


def openvino(place: Place, precision: str = "f32") -> Ready:
    """From the same ONNX file: its own converter does not take every network here."""
    from ...peers import openvino as peer

    network = peer.opened(str(place.files.onnx(place.case)), place.threads, precision)
    return _arrays(place, network, peer.openvino.__version__)


def _arrays(place: Place, network: Callable[..., Any], version: str) -> Ready:
    from ...peers.host import Loop

    run = place.ddim_run(module=False)
    call = partial(network, run.noise.numpy(), np.array(first(run), np.int64))
    return Ready(call, partial(Loop(run), network), version)


@dataclass(frozen=True)
class Contender:
    """What makes it ready, its settings, and what it computes in."""

    make: Callable[[Place], Ready]
    settings: tuple[tuple[int, str], ...]
    dtype: torch.dtype = torch.float32


CONTENDERS = {
    "torch": Contender(plain, OPENMP),
    "torch:channels_last": Contender(partial(plain, last=True), OPENMP),
    "onnxruntime": Contender(onnxruntime, OPENMP),
    "openvino": Contender(openvino, OWN),
    "ours:accelerate": Contender(partial(plain, accelerated=True), OPENMP),
    "ours:native": Contender(native, OWN),
    "torch:bf16": Contender(halved, OPENMP, HALF),
    "openvino:bf16": Contender(partial(openvino, precision="bf16"), OWN, HALF),
    "ours:native-bf16": Contender(partial(native, dtype=HALF), OWN, HALF),
}
EXPORTED = ("onnxruntime", "openvino")  # libraries that read one exported file


def library(contender: str) -> str:
    return contender.partition(":")[0]


def dtype_said(contender: str) -> str:
    """The dtype that a contender computes in, as rows have it: nothing is float32."""
    dtype = CONTENDERS[contender].dtype
    return "" if dtype == torch.float32 else results.dtype_name(dtype)
