"""The op `step` in Triton; ops/step.py defines it, step_kernel.py has the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends.outputs import Outputs
from ..ops.op import Implementation
from ..ops.step import Launch, StepArgs
from .cover import Cover, channel_pixel
from .launch import objection_to, on_device, start
from .step_kernel import step


def objection(args: StepArgs) -> str | None:
    if args.slots.dtype != torch.float32:
        kind = str(args.slots.dtype).removeprefix("torch.")
        return f"the Triton kernel keeps float32 slots; got {kind}"
    return objection_to(step, args.images(), args.small())


def bind(args: StepArgs) -> Launch:
    """The launch takes the network's outputs."""
    ticket = torch.zeros_like(args.row) if args.ticket is None else args.ticket
    device, outputs = on_device(args.slots.device), Outputs(args)
    prepared: dict[tuple, Callable[..., None]] = {}

    def launch(outs: Sequence[Tensor] = ()) -> None:
        addresses = [o.data_ptr() for o in outs]
        kinds = [(o.shape, o.stride(), o.dtype, o.device, o.is_neg()) for o in outs]
        alike = tuple([(*kind, a % 16 == 0) for kind, a in zip(kinds, addresses, strict=True)])
        run = prepared.get(alike)
        if (run is None and not outputs.readable(outs)) or outputs.overwritten(addresses):
            return launch(outputs.copied(outs))
        with device():
            if run is None:
                prepared[alike] = start(step, *prepare(args, ticket, outs))
            else:
                run(tuple(outs) or None)

    return launch


def prepare(
    args: StepArgs, ticket: Tensor, outs: Sequence[Tensor]
) -> tuple[tuple[int], dict[str, Any], dict[str, Any]]:
    """What `start` takes after the kernel."""
    images = args.images() | {f"output {t}": out for t, out in enumerate(outs)}
    slots, channels = args.slots, args.slots.shape[2]
    fresh = args.noise is None or args.given is not None
    drawn = fresh and (args.normals > 0 or args.mask is not None)
    # Many slots take many registers; smaller blocks then leave fewer of a multiprocessor's unused.
    most = 1024 if len(slots) <= 2 else 512
    chosen = Cover.choose(slots.shape[2:], map(channel_pixel, images.values()), drawn, most)

    def at(name: str, blocks: bool = False) -> tuple[int, ...] | None:
        """Strides of (sample or entry, channel block if asked for, c, px)."""
        if name not in images:
            return None
        image = images[name]
        channel, pixel = channel_pixel(image)
        return (
            image.stride(0),
            *((channels * channel,) if blocks else ()),
            *chosen.steps((channel, pixel)),
        )

    outs_at: tuple[int, ...] = ()
    for t, out in enumerate(outs):
        outs_at += (*at(f"output {t}", blocks=True), out.shape[1] // channels)
    fixed = {
        "slots": tuple(slots),
        "slots_at": at("slots"),
        "row_ptr": args.row,
        "seed_ptr": args.seed,
        "coef_ptr": args.table.coef,
        "index_ptr": args.table.index,
        "labels_ptr": args.table.label,
        "src_ptr": args.src,
        "dst_ptr": args.dst,
        "ticket_ptr": ticket,
        "status_ptr": args.status,
        "label_ptr": args.label,
        "end_label_ptr": args.end_label,
        "outs_at": outs_at or None,
        "net_in_ptr": args.net_in,
        "net_in_at": at("net_in", blocks=True),
        "noise": None if args.noise is None else tuple(args.noise) or None,
        "noise_at": at("noise"),
        "given_ptr": args.given,
        "mask_ptr": args.mask,
        "mask_at": at("mask"),
        "known_ptr": args.known,
        "known_at": at("known"),
        "denoised_ptr": args.denoised,
        "denoised_at": at("denoised"),
        **chosen.sizes,
        "outputs": 0 if args.src is None else args.src.shape[1],
        "entries": 0 if args.dst is None else args.dst.shape[1],
        "M": args.normals,
        "I": args.inputs,
        "LEARNED": args.learned,
        **chosen.constants,
    }
    return (slots.shape[1] * chosen.programs,), {"outs": tuple(outs) or None}, fixed


TRITON = Implementation(bind=bind, objection=objection)
