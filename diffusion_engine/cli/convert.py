"""The command `convert`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json


def convert(
    source: Annotated[
        Path,
        typer.Argument(help="checkpoint: .pt, .pth, .pkl, .ckpt, .npz, .safetensors or flax'"),
    ],
    out: Annotated[Path, typer.Argument(help="folder to make")],
    format: Annotated[
        str | None, typer.Option(help="of the network, such as edm; what --config says")
    ] = None,
    ema: Annotated[
        str,
        typer.Option(
            help="auto: averaged weights where there are some; none; or their decay, 0.9999"
        ),
    ] = "auto",
    config: Annotated[
        Path | None, typer.Option(help="JSON file of the network's fields, see docs/checkpoints.md")
    ] = None,
    unconfined: Annotated[
        bool,
        typer.Option(
            "--unconfined",
            help="read a pickle also where the system cannot keep its reader from network and files",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Converts a checkpoint, without running anything of it, to a folder that --model takes."""
    from ..adapters.convert import convert as converted

    signal.signal(signal.SIGTERM, _ended)  # or what is half made would stay
    report = converted(source, out, format, ema, config, unconfined)
    typer.echo(json.dumps(report, indent=1) if as_json else "\n".join(_lines(report)))


def _ended(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def _lines(report: dict[str, Any]) -> list[str]:
    decay = "" if report["decay"] is None else f" of decay {report['decay']:g}"
    dtypes = ", ".join(f"{count} {name}" for name, count in report["dtypes"].items())
    lines = [
        f"{report['folder']}: {report['format']}, {report['tensors']} tensors ({dtypes}), "
        f"{report['numbers']:,} numbers",
        f"kept: {report['kept']}{decay}",
    ]
    if report["besides"]:
        lines.append(f"not averaged, as they are: {_some(report['besides'])}")
    if report["dropped"]:
        lines.append(f"dropped: {_some(report['dropped'])}")
    if report["prefix"]:
        lines.append(f"dropped of all names: {report['prefix']}")
    return [*lines, *(f"limits: {line}" for line in report["limits"])]


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
