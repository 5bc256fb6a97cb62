"""Hands pointers to the compiled modules: `_cpu` and `_cuda` never see a tensor.

An implementation `bind_x(args)` returns the launch; `objection_x(args)` says in a sentence why it
cannot take these arguments, or None. ops/registry.py pairs the two by their names.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from threading import Lock
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..ops.brownian import BrownianArgs
from ..ops.noise import NoiseArgs
from ..ops.step import Launch, StepArgs
from .outputs import Outputs
from .views import scattered, strides

# The dtype codes of csrc/common/step.h.
DTYPE = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.float64: 3,
    torch.int64: 4,
}

BUILD = "python setup.py build_ext --inplace"

KIND = {"_cpu": "cpu", "_cuda": "cuda"}  # of device

# (address, batch stride, channel stride, pixel stride, dtype)
View = tuple[int, int, int, int, int]
NoiseLaunch = Callable[..., None]

_loading = Lock()  # it changes the environment meanwhile


@cache
def module(name: str) -> ModuleType | str:
    """`_cpu` or `_cuda`, or the sentence why it is missing."""
    with _loading:
        return _load(name)


def _load(name: str) -> ModuleType | str:
    # Where the module brings an OpenMP of its own, its threads must not spin between two calls: they
    # would take the cores from torch's.
    policy = os.environ.get("OMP_WAIT_POLICY")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return importlib.import_module(f"diffusion_engine.{name}")
    except ModuleNotFoundError:
        return f"diffusion_engine.{name} is not built: {BUILD}"
    except ImportError as error:
        return f"diffusion_engine.{name} does not load ({error}): {BUILD}"
    finally:
        if policy is None:
            del os.environ["OMP_WAIT_POLICY"]


def loaded(name: str) -> Any:
    """The compiled module. Raises ImportError with the sentence why it is missing."""
    found = module(name)
    if isinstance(found, str):
        raise ImportError(found)
    return found


@cache
def _unfit(device: int) -> str | None:
    """Why the kernels of `_cuda` do not run on a GPU: its driver, or its architecture."""
    return loaded("_cuda").objection(device)


def out_of_place(name: str, field: str, tensor: Tensor) -> str | None:
    """Why a module cannot work on a tensor: it is missing, or the device is none of its own."""
    found, device = module(name), tensor.device
    if isinstance(found, str):
        return found
    if device.type != KIND[name]:
        return f"{name} works on {KIND[name]} tensors; {field} is on {device}"
    return _unfit(device.index or 0) if name == "_cuda" else None


def _view(tensor: Tensor | None) -> View:
    if tensor is None:
        return 0, 0, 0, 0, 0
    found = strides(tensor)
    if found is None:
        raise ValueError(scattered("a tensor", tensor))
    return tensor.data_ptr(), *found, DTYPE[tensor.dtype]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _images(args: StepArgs) -> dict[str, Tensor]:
    """The tensors [B, C, *pixel] of a step except the outputs; equal layouts are given once."""
    names = ("net_in", "mask", "known", "denoised")
    found = {name: t for name in names if (t := getattr(args, name)) is not None}
    found["slots"] = args.slots[0]
    if args.noise is not None and args.noise.shape[0]:
        found["noise"] = args.noise[0]
    return found


def _objection_step(args: StepArgs, name: str) -> str | None:
    if reason := out_of_place(name, "slots", args.slots):
        return reason
    if args.slots.dtype != torch.float32:
        kind = str(args.slots.dtype).removeprefix("torch.")
        return f"the kernels of {name} keep float32 slots; got {kind}"
    for field, tensor in _images(args).items():
        if strides(tensor) is None:
            return scattered(field, tensor)
    plain = ("row", "seed", "src", "dst", "label", "given", "status", "ticket")
    small = {field: getattr(args, field) for field in plain} | args.table._asdict()
    for field, tensor in small.items():
        if tensor is not None and not tensor.is_contiguous():
            return f"{field} is not contiguous: strides {list(tensor.stride())}"
    return None


def objection_step_cpp(args: StepArgs) -> str | None:
    return _objection_step(args, "_cpu")


def objection_step_cuda(args: StepArgs) -> str | None:
    return _objection_step(args, "_cuda")


def _merged(args: StepArgs, outs: Sequence[Tensor]) -> bool:
    """Whether every tensor lies densely in (channel, pixel) order, so that the two are one axis."""
    pixels = args.slots.shape[3:].numel()
    images = (*_images(args).values(), *outs)
    return all(_dense(tensor, strides(tensor), pixels) for tensor in images)


def _dense(tensor: Tensor, found: tuple[int, int, int] | None, pixels: int) -> bool:
    if found is None:
        return False
    _, channel, pixel = found
    return (pixel == 1 or pixels == 1) and (channel == pixels or tensor.shape[1] == 1)


def _step_params(name: str, args: StepArgs, outs: Sequence[Tensor]) -> Any:
    """StepParams of all launches with outputs like these; their addresses come with each."""
    p = loaded(name).StepParams()
    slots = args.slots
    p.batch, p.block = slots.shape[1:3]
    channels, pixels = slots.shape[2], slots.shape[3:].numel()
    p.channels, p.pixels = (1, channels * pixels) if _merged(args, outs) else (channels, pixels)
    p.slot = [_view(slots[k]) for k in range(slots.shape[0])]
    p.out = [(0, *_view(out)[1:]) for out in outs]
    p.blocks = [out.shape[1] // channels for out in outs]
    p.out_entries = [len(out) for out in outs]
    p.outputs = 0 if args.src is None else args.src.shape[1]
    p.entries = 0 if args.dst is None else args.dst.shape[1]
    p.inputs, p.normals, p.learned = args.inputs, args.normals, int(args.learned)
    for name in ("net_in", "mask", "known", "denoised"):
        setattr(p, name, _view(getattr(args, name)))
    if args.noise is not None and args.noise.shape[0]:
        p.noise = _view(args.noise[0])
        p.noise_draw = args.noise.stride(0)
    for name in ("label", "row", "seed", "src", "dst", "given", "status", "ticket"):
        setattr(p, name, _address(getattr(args, name)))
    if args.label is not None:
        p.label_dtype = DTYPE[args.label.dtype]
    p.coef, p.index, p.labels = (_address(t) for t in args.table)
    p.rows = len(args.table.index)
    p.room = min((len(t) for t in (args.net_in, args.label) if t is not None), default=0)
    return p


# Runs params with outputs at these addresses.
RunStep = Callable[[Any, list[int]], None]


def _bind_step(args: StepArgs, name: str, run: RunStep) -> Launch:
    outputs = Outputs(args)
    first, end = outputs.first, outputs.end
    prepared: dict[tuple, Any] = {}  # None where an output has to be copied

    def launch(outs: Sequence[Tensor] = ()) -> None:
        kinds = tuple([(o.shape, o.stride(), o.dtype, o.device, o.is_neg()) for o in outs])
        if kinds not in prepared:
            prepared[kinds] = _step_params(name, args, outs) if outputs.readable(outs) else None
        p, addresses = prepared[kinds], [o.data_ptr() for o in outs]
        if p is None or any([first <= a < end and outputs.overwritten(a) for a in addresses]):
            return launch(outputs.copied(outs))
        run(p, addresses)

    return launch


def bind_step_cpp(args: StepArgs) -> Launch:
    """The C++ step. Its tensors are kept; the addresses of the outputs come with each launch."""
    return _bind_step(args, "_cpu", loaded("_cpu").step)


def bind_step_cuda(args: StepArgs) -> Launch:
    """The CUDA step, on the current stream of each launch."""
    launch, device = loaded("_cuda").step, args.slots.device.index or 0
    if args.ticket is None:
        args = replace(args, ticket=torch.zeros_like(args.row))

    def run(p: Any, outs: list[int]) -> None:
        launch(p, outs, torch.cuda.current_stream(device).cuda_stream, device)

    return _bind_step(args, "_cuda", run)


def _objection_noise(args: NoiseArgs, name: str) -> str | None:
    if reason := out_of_place(name, "out", args.out):
        return reason
    if strides(args.out) is None:
        return scattered("out", args.out)
    for field in ("seed", "row", "index"):
        tensor = getattr(args, field)
        if tensor is not None and not tensor.is_contiguous():
            return f"{field} is not contiguous: strides {list(tensor.stride())}"
    return None


def objection_noise_cpp(args: NoiseArgs) -> str | None:
    return _objection_noise(args, "_cpu")


def objection_noise_cuda(args: NoiseArgs) -> str | None:
    return _objection_noise(args, "_cuda")


def _bind_noise(args: NoiseArgs, name: str, run: Callable[[Any, int, int], None]) -> NoiseLaunch:
    batch, channels = args.out.shape[:2]
    pixels = args.out.shape[2:].numel()
    p = loaded(name).NoiseParams()
    p.batch = batch
    merged = _dense(args.out, strides(args.out), pixels)
    p.channels, p.pixels = (1, channels * pixels) if merged else (channels, pixels)
    p.out = _view(args.out)
    for field in ("seed", "row", "index"):
        setattr(p, field, _address(getattr(args, field)))
    p.rows = 0 if args.index is None else len(args.index)
    return partial(_launch_noise, run, p, args)


def _launch_noise(
    run: Callable[[Any, int, int], None], p: Any, _args: NoiseArgs, key: int = 0, m: int = 0
) -> None:
    """The launch holds `_args` so that the memory behind p lives as long as it does."""
    run(p, key & 0xFFFFFFFF, m)


def bind_noise_cpp(args: NoiseArgs) -> NoiseLaunch:
    return _bind_noise(args, "_cpu", loaded("_cpu").noise)


def bind_noise_cuda(args: NoiseArgs) -> NoiseLaunch:
    """On the current stream of each launch."""
    launch, device = loaded("_cuda").noise, args.out.device.index or 0

    def run(p: Any, key: int, m: int) -> None:
        launch(p, key, m, torch.cuda.current_stream(device).cuda_stream, device)

    return _bind_noise(args, "_cuda", run)


def _objection_brownian(args: BrownianArgs, name: str) -> str | None:
    if reason := _objection_noise(NoiseArgs(args.out[0], args.seed), name):
        return reason
    for field in ("row", "terms", "weight"):
        if not (tensor := getattr(args, field)).is_contiguous():
            return f"{field} is not contiguous: strides {list(tensor.stride())}"
    return None


def objection_brownian_cpp(args: BrownianArgs) -> str | None:
    return _objection_brownian(args, "_cpu")


def objection_brownian_cuda(args: BrownianArgs) -> str | None:
    return _objection_brownian(args, "_cuda")


def _bind_brownian(args: BrownianArgs, name: str, run: Callable[[Any], None]) -> Callable[[], None]:
    out = args.out
    pixels = out.shape[3:].numel()
    p = loaded(name).BrownianParams()
    p.draws, p.batch, channels = out.shape[:3]
    merged = _dense(out[0], strides(out[0]), pixels)
    p.channels, p.pixels = (1, channels * pixels) if merged else (channels, pixels)
    p.out, p.out_draw = _view(out[0]), out.stride(0)
    for field in ("seed", "row", "terms", "weight"):
        setattr(p, field, _address(getattr(args, field)))
    p.rows = len(args.terms)
    return partial(_launch_brownian, run, p, args)


def _launch_brownian(run: Callable[[Any], None], p: Any, _args: BrownianArgs) -> None:
    """The launch holds `_args` so that the memory behind p lives as long as it does."""
    run(p)


def bind_brownian_cpp(args: BrownianArgs) -> Callable[[], None]:
    return _bind_brownian(args, "_cpu", loaded("_cpu").brownian)


def bind_brownian_cuda(args: BrownianArgs) -> Callable[[], None]:
    """On the current stream of each launch."""
    launch, device = loaded("_cuda").brownian, args.out.device.index or 0

    def run(p: Any) -> None:
        launch(p, torch.cuda.current_stream(device).cuda_stream, device)

    return _bind_brownian(args, "_cuda", run)
